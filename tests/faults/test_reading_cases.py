"""Checkpoints that are honest and saved in some odd way, files that change under our feet, and writers that die."""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hubcore import hub
from hubcore.checkpoints import write_native
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.doctor.odd_weights import odd_weights
from hubcore.errors import CheckpointError, CheckpointLayoutError, ChecksumError, MissingWeightsError
from hubcore.sources import resolve as sources
from hubcore.sources.stamps import hash_file
from tests.fairseq_layout import fairseq_tree
from tests.faults import fuzz
from tests.faults.cases import Case, Cases
from tests.gold import gold_file
from tests.hubcore.checkpoints import hostile_pieces as build
from tests.hubcore.checkpoints.test_native import STATE, Config
from tests.hubcore.checkpoints.watching import suspicious, watching
from tests.paths import REPOSITORY
from tests.running import python

cases = Cases()
pytest_generate_tests = cases.generate
SAFETENSORS = "tests/hubcore/checkpoints/formats/test_safetensors_file.py::test_bad_headers_are_refused"


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.run(tmp_path, monkeypatch)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return hub.load("wav2vec2", checkpoint=path).state_dict()


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def steps(tensor: torch.Tensor) -> list[int]:
    """The strides that matter: those of dimensions with more than one element."""
    return [step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@cases(
    "a fairseq file as zip archive or older file, pickle protocol 2 to 5, and omegaconf and fairseq not installed",
    "the same tensors as `torch.load` gives, to the last bit, ties and strides kept",
    slow=True,
)
def case_every_torch_format(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for package in ("omegaconf", "fairseq", "hydra"):
        patch.setitem(sys.modules, package, None)  # importing it is an error now
    upstream = hub.load("wav2vec2_tiny_prompts")
    tree = fairseq_tree(upstream, adam=True)
    weight = tree["model"]["post_extract_proj.weight"]
    tree["model"]["post_extract_proj.weight"] = weight.t().contiguous().t()
    tree["model"]["final_proj.weight"] = tree["model"]["post_extract_proj.weight"]
    for protocol in (2, 3, 4, 5):
        for zipped in (True, False):
            path = folder / f"{protocol}-{zipped}.pt"
            torch.save(tree, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
            oracle = torch.load(path, weights_only=False)["model"]
            with TorchFile(path) as file:
                ours = file.read_many(file.tree["model"])
            assert same(ours, oracle)
            assert all(steps(ours[name]) == steps(oracle[name]) for name in oracle)
            assert ours["final_proj.weight"].data_ptr() == ours["post_extract_proj.weight"].data_ptr()
            assert same(weights_of(path), upstream.state_dict())
    assert same(
        weights_of(gold_file("fairseq_tiny_w2v2_groupnorm_dictconfig.pt")),
        weights_of(gold_file("fairseq_tiny_w2v2_groupnorm.pt")),
    )


@cases("saved without checksums (`compute_crc32=False`)", "loads")
def case_no_checksums(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = folder / "a.pt"
    path.write_bytes(build.archive(*(replace(record, crc=0) for record in build.parts(build.HONEST_TREE))))
    with TorchFile(path) as file:
        assert file.read(file.tree["x"]).tolist() == [[0, 1, 2], [3, 4, 5]]


@cases(
    "random damage: bits flipped, bytes lost, put in, swapped (`python -m tests.faults.fuzz --mutations 20000`)",
    "read or refused with an error of ours, each within a second; nothing is written, imported or run",
    slow=True,
)
def case_random_damage(folder: Path, _: pytest.MonkeyPatch) -> None:
    found = fuzz.fuzz(folder, int(os.environ.get("HUBCORE_FUZZ_MUTATIONS", "1500")), seed=0)
    assert found.wrong == []
    assert sum(found.refused.values()) > 20 * len(fuzz.FORMATS) and found.read > 0


@cases(
    "a file is replaced between being hashed and being read, or while it is read",
    "one open file is read from start to end; where its card states a SHA-256, a file that was replaced meanwhile is a "
    "`ChecksumError`, and what was loaded is thrown away",
)
def case_file_replaced_while_read(folder: Path, patch: pytest.MonkeyPatch) -> None:
    published, other = folder / "published.pt", folder / "other.pt"
    published.write_bytes(gold_file("fairseq_tiny_w2v2_groupnorm.pt").read_bytes())
    other.write_bytes(gold_file("fairseq_tiny_w2v2_groupnorm_dictconfig.pt").read_bytes())
    digest = hash_file(published)
    (folder / "cards.yaml").write_text(
        "version: 1\nupstreams:\n  mine:\n    upstream: wav2vec2\n    license: MIT\n"
        f"    sources: [{{uri: published.pt, sha256: {digest}}}]\n"
    )
    patch.setenv("HUBCORE_REGISTRY", str(folder / "cards.yaml"))
    report = hub.load("mine").load_report
    assert report is not None and report.sha256 == digest
    with TorchFile(published) as file:
        wanted = file.read_many(file.tree["model"])
    with TorchFile(published) as file:
        os.replace(other, published)
        assert same(file.read_many(file.tree["model"]), wanted)
    other.write_bytes(published.read_bytes())
    published.write_bytes(gold_file("fairseq_tiny_w2v2_groupnorm.pt").read_bytes())
    verify = sources.verify

    def verified_then_replaced(path: Path, source: Any) -> None:
        verify(path, source)
        if other.exists():
            os.replace(other, published)

    patch.setattr(sources, "verify", verified_then_replaced)
    with pytest.raises(ChecksumError, match="was replaced while it was read"):
        hub.load("mine")
    assert not other.exists()


@cases(
    "keys that are no text; weights that are missing, misnamed or of another shape",
    "one error that lists them all. A tensor without a place in the model is an error too, unless it is of a head, which the "
    "load report lists; keys that are no text are ignored",
)
def case_odd_keys(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = folder / "a.pt"
    upstream = hub.load("wav2vec2_tiny_prompts")

    def attempt(change: Any, error: type[CheckpointError] = MissingWeightsError) -> str:
        tree = fairseq_tree(upstream)
        change(tree["model"])
        torch.save(tree, path)
        with pytest.raises(error, match=r"a\.pt") as caught:
            weights_of(path)
        return str(caught.value)

    def lose(state: dict[Any, torch.Tensor]) -> None:
        del state["layer_norm.weight"]
        del state["post_extract_proj.weight"]
        state[7] = state.pop("layer_norm.bias")

    said = attempt(lose)
    assert all(name in said for name in ("feature_norm.weight", "feature_norm.bias", "projection.weight"))

    def misname(state: dict[Any, torch.Tensor]) -> None:
        for name in ("weight", "bias"):
            state[f"layer_nrom.{name}"] = state.pop(f"layer_norm.{name}")

    said = attempt(misname, CheckpointLayoutError)
    assert "layer_nrom.weight" in said and "layer_nrom.bias" in said

    def reshape(state: dict[Any, torch.Tensor]) -> None:
        for name in ("layer_norm.weight", "layer_norm.bias"):
            state[name] = state[name][1:].clone()

    said = attempt(reshape)
    assert "layer_norm.weight must have shape" in said and "layer_norm.bias must have shape" in said
    tree = fairseq_tree(upstream)
    tree["model"] |= {7: torch.ones(1), "final_proj.bias": torch.ones(2)}
    torch.save(tree, path)
    loaded = hub.load("wav2vec2", checkpoint=path)
    assert same(loaded.state_dict(), upstream.state_dict())
    assert loaded.load_report is not None and loaded.load_report.ignored == ("final_proj.bias",)


@cases(
    "a file with the right name and another architecture",
    "an error that names the file and every value that differs, wanted and found",
)
def case_another_architecture(folder: Path, patch: pytest.MonkeyPatch) -> None:
    torch.save(fairseq_tree(hub.load("wav2vec2_tiny_prompts")), folder / "wav2vec_small.pt")
    (folder / "cards.yaml").write_text(
        "version: 1\nupstreams:\n  mine: {upstream: wav2vec2, config: base, license: MIT, sources: [{uri: wav2vec_small.pt}]}\n"
    )
    patch.setenv("HUBCORE_REGISTRY", str(folder / "cards.yaml"))
    with pytest.raises(CheckpointLayoutError, match=r"wav2vec_small\.pt.*dim must be 768, but is 96.*the card or the file"):
        hub.load("mine")


@cases(
    "weights that are NaN, infinite or nothing but zeros",
    "loaded, since they are what was published; `odd_weights(model.state_dict())` names them, and an extraction refuses "
    "features that are not finite",
)
def case_odd_weights(folder: Path, _: pytest.MonkeyPatch) -> None:
    tree = fairseq_tree(hub.load("wav2vec2_tiny_prompts"))
    torch.save(tree, folder / "good.pt")
    assert odd_weights(weights_of(folder / "good.pt")) == ()
    tree["model"]["layer_norm.weight"][3] = float("nan")
    tree["model"]["layer_norm.bias"][0] = float("-inf")
    tree["model"]["post_extract_proj.weight"].zero_()
    torch.save(tree, folder / "bad.pt")
    first, second = odd_weights(weights_of(folder / "bad.pt"))
    assert "NaN or infinity in 2 tensors: model.feature_norm.weight, model.feature_norm.bias" in first
    assert "only zeros in 1 matrix: model.projection.weight" in second
    large = torch.full((4, 4), 3e38)
    assert odd_weights({"sum overflows": large, "cancels": torch.tensor([[1.0, -1.0]]), "count": torch.zeros(2, 2).int()}) == ()


cases.tested_by(
    "safetensors_headers",
    "safetensors files: a name that stands twice (the last one wins elsewhere), empty names, `../` in names, holes, overlaps, "
    "sizes that overflow, odd types, deep JSON",
    "refused when the file is opened",
    *(
        f"{SAFETENSORS}[{label}]"
        for label in (
            "duplicate name", "duplicate field", "empty name", "parent in name", "absolute name", "unknown type",
            "negative size", "product overflows to the right size", "offsets swapped", "offsets beyond the file",
            "hole in the middle", "overlap", "same bytes twice", "header is a list", "not UTF-8", "deep lists",
        )
    ),
    f"{SAFETENSORS.replace('headers', 'files')}[trailing byte]",
    f"{SAFETENSORS.replace('headers', 'files')}[length of 2 to 63]",
)  # fmt: skip

WRITER = """
import os, signal, sys
from pathlib import Path
import torch
from hubcore.checkpoints import native, write_native
from tests.hubcore.checkpoints.test_native import Config
save = native.save_file
def cut(tensors, path, **options):
    save(tensors, path, **options)
    os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)
native.save_file = cut
write_native(Path(sys.argv[1]), {"weight": torch.ones(4096)}, config=Config(), upstream="Toy")
"""


@cases(
    "a process that writes a checkpoint is killed half-way, or two write the same one",
    "what was there stays until a whole file replaces it; half a file never has the name of one",
    slow=True,
)
def case_killed_writer(folder: Path, _: pytest.MonkeyPatch) -> None:
    path = folder / "a.safetensors"
    write_native(path, STATE, config=Config(), upstream="Toy")
    before = path.read_bytes()
    python("-c", WRITER, path, code=-signal.SIGKILL)
    assert path.read_bytes() == before and sorted(left.suffix for left in folder.iterdir()) == [".part", ".safetensors"]
    versions = [{"weight": torch.full((1 << 16,), float(value))} for value in range(2)]
    seen: list[float] = []

    def write(state: dict[str, torch.Tensor]) -> None:
        for _ in range(4):
            write_native(path, state, config=Config(), upstream="Toy")

    writers = [threading.Thread(target=write, args=(state,)) for state in versions]
    write(versions[0])
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or not seen:
        weight = load_file(path)["weight"]
        assert bool((weight == weight[0]).all()), "half of one and half of the other"
        seen.append(float(weight[0]))
    for writer in writers:
        writer.join()
    assert set(seen) <= {0.0, 1.0}


UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load", "torch.hub.load", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "os.system", "os.popen", "subprocess.run", "subprocess.Popen", "tempfile.mktemp",
}  # fmt: skip
UNSAFE_METHODS = {"extractall", "extract_all", "unpack_archive"}
UNSAFE_IMPORTS = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "subprocess", "tarfile"}
KIT = "hubcore/testing/"
"""The conformance kit copies a model by pickle, to see that it can be copied; it opens no file that way."""


def unsafe_calls(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of every call or import in a module that could run what a file says."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            pickled = any(keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False" for keyword in node.keywords)
            if name in UNSAFE_CALLS or name.rpartition(".")[2] in UNSAFE_METHODS or pickled:
                yield node.lineno, name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for name in [module] if module else [alias.name for alias in node.names]:
                if name.partition(".")[0] in UNSAFE_IMPORTS:
                    yield node.lineno, name


ALLOWED = {
    ("hubcore/corpus/inputs/archive.py", "tarfile"),
    ("hubcore/corpus/utterance.py", "subprocess"),
    ("hubcore/corpus/utterance.py", "subprocess.run"),
    ("hubcore/doctor/process.py", "subprocess"),
    ("hubcore/doctor/process.py", "subprocess.Popen"),
    ("hubcore/extract/formats/webdataset.py", "tarfile"),
    ("hubcore/features/exports.py", "pickle"),
    ("hubcore/pretrain/provenance.py", "subprocess"),
    ("hubcore/pretrain/provenance.py", "subprocess.run"),
    ("plugins/hubcore_ofa_wav2vec2/bundled/make_prompts.py", "subprocess"),
    ("plugins/hubcore_ofa_wav2vec2/bundled/make_prompts.py", "subprocess.run"),
}
"""Doctor and `plugin check` start this interpreter to import a plugin apart, a run asks git for its revision, the maker of demo
data unpacks Debian's files, a list's command runs if the user allows it. Archives are read by the places of their members, and
written; lhotse keeps arrays of memory pickled. No checkpoint is near any of them."""


@cases(
    "somebody adds `torch.load`, `pickle.load`, `yaml.load`, `eval`, `exec` or `extractall` to the library",
    "a test that reads all of its code fails",
    slow=True,
)
def case_unsafe_call_in_the_library(*_: object) -> None:
    files = [*(REPOSITORY / "hubcore").rglob("*.py"), *(REPOSITORY / "plugins").rglob("*.py")]
    found = []
    for path in files:
        where = path.relative_to(REPOSITORY).as_posix()
        if not where.startswith(KIT):
            text = path.read_text(encoding="utf-8")
            found += [f"{where}:{line}: {name}" for line, name in unsafe_calls(text) if (where, name) not in ALLOWED]
    assert len(files) > 50 and found == []
    for bad in ("torch.load('x')", "eval('1')", "import pickle", "from pickle import loads", "tar.extractall()",
                "numpy.load(p, allow_pickle=True)", "yaml.load(t, Loader=yaml.SafeLoader)"):  # fmt: skip
        assert list(unsafe_calls(bad)), bad
    assert list(unsafe_calls("model.eval()\nre.compile('x')\nsafetensors.torch.load_file(p)")) == []


# The fuzzer itself ----------------------------------------------------------------------------------------------------


def test_the_files_that_are_mutated_are_honest(tmp_path: Path) -> None:
    for name, contents in fuzz.seeds(tmp_path).items():
        for content in contents:
            fuzz.read_all(fuzz.write(tmp_path, name, content))


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    kept = [torch.zeros(k) for k in range(9)]
    first = fuzz.seeds(tmp_path / "one")
    del kept[::2]  # so that the second time memory is laid out in another way
    assert first == fuzz.seeds(tmp_path / "two")


def test_the_watch_sees_what_it_must(tmp_path: Path) -> None:
    with watching() as events:
        (tmp_path / "made").write_text("x")
        (tmp_path / "made").read_text()
    assert [event.partition(" ")[0] for event in suspicious(events)] == ["open"]
    with watching() as events:
        os.close(os.open(tmp_path / "made", os.O_RDWR))
        os.mkdir(tmp_path / "folder")
        exec("pass")
        with pytest.raises(ImportError):
            import no_such_module_anywhere  # noqa: F401
    assert {event.partition(" ")[0] for event in suspicious(events)} >= {"open", "os.mkdir", "exec", "import"}


def test_the_fuzzer_reports_what_a_bad_reader_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(path: Path) -> None:
        (path.parent / "canary").write_text("made")
        raise ValueError("not ours")

    monkeypatch.setattr(fuzz, "read_all", bad)
    found = fuzz.fuzz(tmp_path, 3, 0)
    assert sum("ValueError: not ours" in what for what in found.wrong) == 3
    assert any("open for writing" in what for what in found.wrong) and "a file was left: canary" in found.wrong
    assert found.summary(0).startswith("0 mutations of 4 formats, seed 0: 0 read, refused none")
