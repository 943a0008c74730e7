"""Files of units: what was written is read back, and what is malformed is named."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from hubcore.errors import ExtractionError, OptionError
from hubcore.units import Units, read_units, write_units
from hubcore.units.files import FORMATS

TIMES = np.array([[0.0, 0.045], [0.04, 0.065], [0.06, 0.085]])
SOME = {
    "anna/1": Units(np.array([5, 12, 5]), np.array([2, 1, 1]), TIMES),
    "ben": Units(np.array([499]), np.array([7]), TIMES[:1]),
    "nobody": Units(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2))),
}


def lists(units):
    return {
        name: [None if part is None else part.tolist() for part in (one.units, one.durations, one.times)]
        for name, one in units.items()
    }


@pytest.mark.parametrize("format", FORMATS)
def test_units_are_read_back_and_the_same_ones_are_the_same_bytes(format, tmp_path):
    paths = [tmp_path / f"{name}{FORMATS[format]}" for name in "ab"]
    for path in paths:
        write_units(path, SOME)
    found = read_units(paths[0], names=[*SOME] if format == "km" else None)
    expected = lists(SOME)
    if format in ("text", "km"):
        expected = {name: [units, None, None] for name, (units, _, _) in expected.items()}
    assert lists(found) == expected
    assert [*found] == [*SOME]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("format", ["npz", "parquet"])
def test_one_unit_a_frame_needs_no_durations(format, tmp_path):
    path = tmp_path / "units"
    write_units(path, {"a": Units(np.array([1, 1]))}, format=format)
    assert lists(read_units(path, format=format)) == {"a": [[1, 1], None, None]}


def test_nothing_is_a_file_too(tmp_path):
    for ending in FORMATS.values():
        write_units(tmp_path / f"none{ending}", {})
        assert read_units(tmp_path / f"none{ending}", names=[]) == {}


def test_km_takes_the_names_of_the_manifest_beside_it(tmp_path):
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\nen/1.wav\t400\nen/2.wav\t400\n")
    (tmp_path / "train.km").write_text("1 2 2\n7\n")
    assert lists(read_units(tmp_path / "train.km")) == {"en/1": [[1, 2, 2], None, None], "en/2": [[7], None, None]}
    (tmp_path / "train.km").write_text("1 2 2\n")
    with pytest.raises(ExtractionError, match=r"has 1 line, and there are 2 utterances"):
        read_units(tmp_path / "train.km")
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(ExtractionError, match=r"there is no .*train.tsv. Put the manifest"):
        read_units(tmp_path / "train.km")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a 1 2\nb 1 x\n", r":2: this line is '1 x', not units"),
        ("a -1\n", r":1: this line is '-1', not units"),
        ("a 1  2\n", r":1: this line is '1  2', not units"),
        ("a 99999999999\n", r":1: this line is '99999999999', not units"),
        ("a 1\na 2\n", r":2: this line has the utterance 'a' again"),
        ("a 1\n\nb 2\n", r":2: this line has no name of an utterance"),
    ],
)
def test_a_malformed_line_is_named(text, wrong, tmp_path):
    path = tmp_path / "units.txt"
    path.write_text(text)
    with pytest.raises(ExtractionError, match=wrong):
        read_units(path)


def test_text_holds_no_name_with_a_space(tmp_path):
    with pytest.raises(ExtractionError, match=r"'a b' has white space .* Choose another format, such as npz"):
        write_units(tmp_path / "units.txt", {"a b": Units(np.array([1]))})
    assert not [*tmp_path.iterdir()]


def test_a_format_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"does not end like a file of units. The formats are npz \(.npz\), parquet"):
        read_units(tmp_path / "units.csv")
    with pytest.raises(OptionError, match=r"the format of units is 'csv'"):
        write_units(tmp_path / "units.npz", {}, format="csv")


def npz(path, compressed=False, **changed):
    arrays = {"utterances": np.array(["a", "b"]), "lengths": np.array([2, 1]), "units": np.array([1, 2, 3])} | changed
    (np.savez_compressed if compressed else np.savez)(path, **arrays)


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"lengths": np.array([2, 2])}, r"its units are int64 of shape \(3,\), not \(4,\)"),
        ({"lengths": np.array([4, -1])}, r"its lengths are not one count"),
        ({"lengths": np.array([3])}, r"its lengths are not one count"),
        ({"units": np.array([1.0, 2, 3])}, r"its units are float64"),
        ({"units": np.array([1, 2, -3])}, r"a unit is below 0"),
        ({"times": np.zeros((3, 3))}, r"its times are float64 of shape \(3, 3\), not \(3, 2\)"),
        ({"utterances": np.array(["a", "a"])}, r"an utterance twice"),
        ({"utterances": np.array([1, 2])}, r"its utterances are no names"),
        ({"units": np.array([1, 2, object()])}, r"Object arrays cannot be loaded"),
        ({"compressed": True}, r"it is compressed"),
    ],
)
def test_a_malformed_npz_is_refused(changed, wrong, tmp_path):
    npz(tmp_path / "units.npz", **changed)
    with pytest.raises(ExtractionError, match=wrong):
        read_units(tmp_path / "units.npz")


def test_an_array_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "units.npz", "w") as archive:
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (900000000000,), }".ljust(117) + b"\n"
        archive.writestr("units.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 80)
    with pytest.raises(ExtractionError, match=r"cannot be read as units \(npz\)"):
        read_units(tmp_path / "units.npz")


@pytest.mark.parametrize("ending", FORMATS.values())
def test_any_other_bytes_are_an_error_of_ours(ending, tmp_path):
    path = tmp_path / f"units{ending}"
    path.write_bytes(b"\x93\x00PAR1 nothing \xff\n")
    with pytest.raises(ExtractionError):
        read_units(path, names=["a"])
    with pytest.raises(ExtractionError, match="cannot be read as units"):
        read_units(tmp_path / f"missing{ending}", names=["a"])
