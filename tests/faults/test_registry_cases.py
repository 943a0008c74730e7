"""Registry files that are wrong or hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubcore import hub
from hubcore.errors import RegistryError
from hubcore.registry.names import current_registry
from hubcore.registry.reading import read_registry
from tests.faults.cases import Case, Cases

cases = Cases()
pytest_generate_tests = cases.generate
BAD_FILE = "tests/hubcore/registry/test_names.py::test_a_wrong_file_is_an_error_with_file_and_line_and_harms_nothing"
ERROR = "`RegistryError` with file and line; every other file and record stays usable"
HEAD = "version: 1\nupstreams:\n"


def bad_file(name: str, fault: str, *ids: str, outcome: str = ERROR) -> None:
    cases.tested_by(name, fault, outcome, *(f"{BAD_FILE}[{id_}]" for id_ in ids))


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.run(tmp_path, monkeypatch)


def errors_in(path: Path, text: str | bytes) -> list[str]:
    """What is said about a file."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        return [str(error) for error in read_registry(path)[1]]
    except RegistryError as error:
        return [str(error)]


bad_file("python_tags", "a tag that makes Python objects (`!!python/object/apply`, `!!python/name`)",
         "python tag", "python name", "import path", outcome=f"{ERROR}; nothing is imported or called")  # fmt: skip
bad_file("duplicate_keys", "a name or field that stands twice", "duplicate record", "duplicate field")
bad_file("aliases", "anchors and aliases", "anchor")
bad_file("merge_keys", "merge keys (`<<`)", "merge key")


@cases("billion laughs in YAML", "`RegistryError` at the first anchor, before anything unfolds")
def case_billion_laughs_in_yaml(folder: Path, patch: pytest.MonkeyPatch) -> None:
    laughs = "".join(f"  a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10) if k else 'ha'}]\n" for k in range(30))
    (said,) = errors_in(folder / "a.yaml", HEAD + laughs)
    assert "a.yaml, line 3: anchors and aliases are not allowed" in said
    good = folder / "good.yaml"
    good.write_text(HEAD + "  mine: {upstream: fbank, config: fbank, license: none needed}\n")
    patch.setenv("HUBCORE_REGISTRY", f"{folder / 'a.yaml'}:{good}")
    assert {"mine", "fbank"} < set(hub.list())
    assert [problem.owner for problem in current_registry().problems] == ["user"]


bad_file("deep_yaml", "lists nested 5,000 deep", "deep")
bad_file("digits_taken_for_numbers", "an unquoted revision or checksum of digits, which YAML takes for a number",
         "numeric revision", "numeric checksum", outcome=f"{ERROR}: put it in quotes")  # fmt: skip
bad_file("no_and_on", "names such as `true:`, and `on:` for a field", "boolean name",
         "boolean field", outcome=f"{ERROR}: put it in quotes")  # fmt: skip


@cases(
    "a file that is not UTF-8, begins with a byte order mark, or has 10 MB",
    "`RegistryError`; the byte order mark, which some editors write, is allowed",
)
def case_odd_encodings(folder: Path, _: pytest.MonkeyPatch) -> None:
    record = "  mine: {upstream: fbank, license: MIT, note: 'é'}\n"
    assert "must be a UTF-8 text file" in errors_in(folder / "a.yaml", (HEAD + record).encode("latin-1"))[0]
    assert "must be a UTF-8 text file" in errors_in(folder / "a.yaml", (HEAD + record).encode("utf-16"))[0]
    assert "At most 1048576 are read" in errors_in(folder / "a.yaml", HEAD + "# " + "x" * 10_000_000)[0]
    assert errors_in(folder / "a.yaml", b"\xef\xbb\xbf" + (HEAD + record).encode()) == []
    assert "it is empty" in errors_in(folder / "none.yaml", "")[0]
    with pytest.raises(RegistryError, match="cannot be read"):
        read_registry(folder)


bad_file("unknown_field", "a field that is misspelt or unknown", "unknown field", "no licence", outcome=f"{ERROR}, and "
         "the nearest field")  # fmt: skip


@cases(
    "a source without SHA-256 or size, with a wrong one, or with an address that is not https",
    "missing: allowed, as many publishers state none; pinned at the first fetch. Wrong or not https: `RegistryError`",
)
def case_odd_sources(folder: Path, _: pytest.MonkeyPatch) -> None:
    def said(source: str) -> list[str]:
        text = f"{HEAD}  good: {{upstream: fbank, license: MIT}}\n"
        found = errors_in(folder / "a.yaml", f"{text}  mine:\n    upstream: a\n    license: b\n    sources: [{source}]\n")
        assert read_registry(folder / "a.yaml")[0][0].name == "good"
        return found

    assert said("{uri: 'https://h/x'}") == said("{uri: 'hf://org/repo/file', sha256: null, size: null}") == []
    for uri in ("http://h/x", "ftp://h/x", "file:///etc/passwd"):
        (error,) = said(f"{{uri: '{uri}'}}")
        assert "a.yaml, line 7" in error and "'mine'" in error and "must be https://" in error
    for wrong in (
        "sha256: abc",
        f"sha256: {'A' * 64}",
        "size: -1",
        "size: big",
        "size: 1.5",
        "sha1: abc",
    ):
        (error,) = said(f"{{uri: 'https://h/x', {wrong}}}")
        assert "a.yaml, line 7" in error and "'mine'" in error, wrong
