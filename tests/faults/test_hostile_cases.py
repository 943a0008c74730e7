"""Hostile checkpoint files, case by case; `tests/hubcore/checkpoints/hostile_files.py` makes the files.

There are more of them than cases: `test_hostile.py` watches what the interpreter does while it reads each, and how much memory
all of them take together, and `test_hostile_loading.py` gives each to `hub.load` and to the command line.
"""

from __future__ import annotations

import io
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import CheckpointError
from tests.faults.cases import Case, Cases
from tests.hubcore.checkpoints import hostile_pieces as build
from tests.hubcore.checkpoints.hostile_files import hostile_files
from tests.hubcore.checkpoints.test_hostile import SECONDS, is_inert, use

pytestmark = pytest.mark.slow

cases = Cases()
pytest_generate_tests = cases.generate


@dataclass
class Folder:
    """All hostile files, and the place where a call that was made would leave a trace."""

    files: dict[str, Path]
    canary: Path

    def refuses(self, *names: str) -> None:
        """Reading each of them is refused, or gives a record and nothing else, soon, and runs nothing."""
        for name in names:
            began = time.process_time()
            if is_inert(name):
                use(self.files[name])
            else:
                with pytest.raises(CheckpointError):
                    use(self.files[name])
            assert time.process_time() - began < SECONDS, name
            assert list(self.canary.iterdir()) == [], name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("hostile")
    return Folder(dict(hostile_files(path)), path / "canary")


def test_case(case: Case, folder: Folder) -> None:
    case.run(folder)


def read(name: str, fault: str, outcome: str, *names: str) -> None:
    """A case that consists of reading hostile files."""

    cases.all.append(Case(name, fault, outcome, lambda folder: folder.refuses(*names)))


def calls(*functions: str) -> tuple[str, ...]:
    """The three files for each function: called in a zip archive, called in an older file, and made an instance of."""
    return tuple(f"inert-{kind}-{function}" for function in functions for kind in ("call", "call-legacy", "new"))


INERT = "inert: nothing runs"
UNSAFE = "refused, nothing runs"
read("call_of_os", "a call of `os.system`, `mkdir` or `popen`", INERT, *calls("os.system", "os.mkdir", "os.popen"))
read("call_of_posix", "the same under the names of a platform", INERT, *calls("posix.system", "nt.system"))
read("call_of_eval", "a call of `eval` or `exec`", INERT, *calls("builtins.eval", "builtins.exec", "timeit.timeit"))
read("python_2_builtins", "Python 2's `__builtin__`", INERT, *calls("__builtin__.eval", "__builtin__.execfile"))
read("chain_of_getattr", "a chain of `getattr`", f"{INERT}; calling its result is refused",
     *calls("builtins.getattr", "operator.attrgetter"), "call-of-result", "call-of-text")  # fmt: skip
read("call_of_resolve_name", "`pkgutil.resolve_name`", INERT, *calls("pkgutil.resolve_name"))
read("call_of_import", "`importlib.import_module`, `__import__`, `runpy`", INERT,
     *calls("importlib.import_module", "builtins.__import__", "runpy.run_path"))  # fmt: skip
read("nested_pickle", "a pickle inside the pickle", INERT, *calls("pickle.loads", "_pickle.loads", "marshal.loads"))
read("torch_load", "a call of `torch.load` or `torch.jit.load`", INERT,
     *calls("torch.load", "torch.jit.load", "torch.storage._load_from_bytes"))  # fmt: skip
read("torch_hub", "`torch.hub.load` or `torch.hub._load_local`, which allow-lists of `torch.` let through", INERT,
     *calls("torch.hub.load", "torch.hub._load_local"))  # fmt: skip
read("call_of_partial", "`functools.partial` or `reduce`", INERT, *calls("functools.partial", "functools.reduce"))
read("popped_call", "a call whose result is thrown away, so that no trace of it is left", INERT, "inert-popped-call")
read("instruction_inst", "the instruction INST", UNSAFE, "instruction-inst")
read("instruction_obj", "the instruction OBJ", UNSAFE, "instruction-obj")
read("instruction_ext", "the instructions EXT1, EXT2, EXT4", UNSAFE,
     "instruction-ext1", "instruction-ext2", "instruction-ext4")  # fmt: skip
read("dotted_name", "a name with a dot inside, `path.system` of `os`", INERT, "inert-dotted-name")
read("dotted_torch_name", "a name with a dot inside, of a module of torch", INERT, "inert-dotted-torch")
read("numpy_objects", "numpy arrays of objects", INERT, *calls("numpy.core.multiarray._reconstruct", "numpy.load"))
read("rebuild_from_a_function", "`_rebuild_from_type_v2` with a function for a type", UNSAFE,
     "type-swap", "type-swap-parameter")  # fmt: skip
read("state_with_setstate", "a state that brings its own `__setstate__`", INERT, "inert-setstate", "inert-hash-method")
read("state_with_a_class", "a state that sets `__class__` and `__call__`", INERT, "inert-class-swap")
read("state_of_a_function", "a state for a function's `__defaults__`", "refused; the function is unchanged", "build-defaults")
read("state_of_a_class", "a state for a class", "refused; the class is unchanged", "build-class")


@cases("a state for a class that does not exist here", "refused, nothing is made of that name")
def case_state_of_an_unknown_class(folder: Folder) -> None:
    state = b"}" + build.text("__reduce__") + build.name("os", "system") + b"s"
    folder.files["stub"] = folder.canary.parent / "stub.pt"
    folder.files["stub"].write_bytes(build.zipped(build.entry(build.name("my", "Thing") + state + b"b")))
    folder.refuses("stub")


read("call_as_legacy_magic", "an older file with a call for its magic number or version", UNSAFE,
     "legacy-pickle-0", "legacy-pickle-1")  # fmt: skip
read("call_as_legacy_system", "an older file with a call for its description of the machine or list of storages", UNSAFE,
     "legacy-pickle-2", "legacy-pickle-4")  # fmt: skip
read("call_in_legacy_body", "an older file with a call in its body", INERT, "inert-legacy-pickle-3")


@cases("a tar archive, torch's oldest format, whose members are calls", "refused, and said to be a tar archive")
def case_tar_archive(folder: Folder) -> None:
    payload = build.P2 + build.call("os.mkdir", build.text(str(folder.canary / "made"))) + b"."
    folder.files["tar"] = folder.canary.parent / "tar.pt"
    with tarfile.open(folder.files["tar"], "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            tar.addfile(member, io.BytesIO(payload))
    folder.refuses("tar", "other-tar")
    with pytest.raises(CheckpointError, match="it is a tar archive"):
        TorchFile(folder.files["tar"])


def both(*labels: str) -> tuple[str, ...]:
    """The geometry in a zip archive and in an older file."""
    return tuple(f"geometry-{kind}{label}" for label in labels for kind in ("", "legacy-"))


OUTSIDE = "refused, no byte outside the storage is read"
read("size_beyond_storage", "a tensor with more elements than its storage", OUTSIDE, *both("size-beyond", "size-far-beyond"))
read("stride_beyond_storage", "strides that lead out of the storage", OUTSIDE, *both("stride-beyond", "ranks-differ"))
read("offset_beyond_storage", "an offset beyond the storage", OUTSIDE, *both("offset-beyond", "offset-far", "empty-far-offset"))
read("negative_offset", "a negative offset", OUTSIDE, *both("offset-negative"))
read("negative_stride", "a negative stride, or two negative sizes", OUTSIDE, *both("stride-negative", "size-negative"))
read("overflowing_offset", "offsets and strides about 2^62 whose sum overflows", OUTSIDE,
     *both("overflow-offset", "overflow-stride", "overflow-sum"))  # fmt: skip
read("overflowing_size", "sizes whose product overflows", OUTSIDE, *both("overflow-product"))
read("expanded_by_stride_zero", "one element expanded to 2^40 by a stride of 0", "refused, no memory is taken", *both("expand"))
read("slightly_expanded", "a few elements more by a stride of 0, or 100,000 dimensions", "refused",
     *both("expand-small", "rank-17", "rank-100000"))  # fmt: skip
read("storage_larger_than_file", "a storage with more elements than the file has bytes for", "refused",
     "storage-more-than-bytes", "legacy-structure-more", "legacy-count-more", "legacy-both-more")  # fmt: skip
read("storage_smaller_than_file", "a storage with fewer elements than bytes", "refused",
     "storage-less-than-bytes", "legacy-structure-less", "legacy-count-less", "legacy-both-less")  # fmt: skip
read("huge_storage", "a storage of 2^40 elements", "refused, no memory is taken",
     "storage-2-to-40", "storage-2-to-62", "legacy-both-2-to-62")  # fmt: skip
read("negative_storage", "a storage of a negative size", "refused", "storage-negative", "legacy-both-negative")
read("storage_size_of_another_type", "a storage whose size is a text, a float or true", "refused",
     "storage-id-size-text", "storage-id-size-float", "storage-id-size-bool")  # fmt: skip
read("storage_of_two_types", "one storage with two types or two sizes", "refused",
     "storage-two-types", "storage-two-sizes", "legacy-two-types", "tensor-v3-two-types", "storage-wrong-type")  # fmt: skip
read("sparse_tensor", "a sparse COO tensor", "refused: its indices could point anywhere", "tensor-sparse")
read("sparse_csr_tensor", "a sparse CSR tensor", "refused", "tensor-sparse-csr")
read("quantised_tensor", "a quantised tensor", "refused", "tensor-quantised", "storage-quantised")
read("nested_tensor", "a nested tensor", "refused", "tensor-nested")
read("tensor_subclass", "a tensor of a foreign subclass", "refused", "tensor-wrapper", "tensor-from-numpy")
read("meta_tensor", "a tensor without memory (meta)", "refused", "tensor-meta", "storage-meta")
read("conjugate_tensor", "a tensor with its conjugate or negative bit set", "refused",
     "tensor-conjugate", "tensor-negative", "tensor-flagged")  # fmt: skip
BOUNDED = "refused within 3 s; all of these together take less than 300 MB"
read("huge_bytearray", "`bytearray(2^36)`", "inert: no memory is taken", "inert-bytearray")
read("huge_sized_tensor", "`FloatTensor(2^34)`", "inert: no memory is taken", "inert-tensor-by-size")
read("huge_set", "`set(range(2^40))`, `9 ** 2^60`", "inert: nothing is computed", "inert-range-set", "inert-power")
read("huge_memo", "memo places up to 2^31", BOUNDED, "memo-2-to-31", "memo-sparse")
read("long_text", "texts and bytes of 2^40 and 2^62", BOUNDED,
     *(f"{kind}-of-2-to-{size}" for kind in ("text", "bytes", "bytearray") for size in (40, 62)))  # fmt: skip
read("huge_frame", "a frame of 2^40 or 2^62", BOUNDED, "frame-of-2-to-40", "frame-of-2-to-62")
read("long_number", "a number of a million bytes", BOUNDED, "long4", "long1-of-255")
read("deep_tuples", "two million marks or tuples, one inside the other", BOUNDED,
     "deep-marks", "deep-tuples", "deep-tuples-within-limits", "deep-lists")  # fmt: skip
read("deep_dicts", "200,000 dictionaries, one inside the other", BOUNDED, "deep-dicts")
read("many_values", "2.5 million values", BOUNDED, "many-pushes", "many-values-left", "many-lists", "many-names")
read("billion_laughs", "billion laughs", BOUNDED, "laughs", "laughs-tuples", "copied-dicts", "copied-lists", "copied-bytes")
read("values_within_themselves", "values that contain themselves", BOUNDED,
     "cycle-list", "cycle-dict", "cycle-through-tuple", "inert-cycle-record")  # fmt: skip
read("colliding_numbers", "60,000 keys that are numbers with one hash", BOUNDED,
     "keys-colliding-numbers", "keys-many-numbers", "keys-huge-number")  # fmt: skip
read("colliding_tuples", "32,000 keys that are tuples with few hashes", BOUNDED, "keys-many-tuples")
DAMAGED = "refused as damaged"
read("cut_in_the_middle", "a file that was cut in the middle", DAMAGED, "zip-cut-half", "legacy-cut-half", "zip-cut-head")
read("last_byte_missing", "a file without its last byte", DAMAGED, "zip-cut-last-byte", "legacy-cut-last-byte")
read("empty_file", "an empty file", DAMAGED, "other-empty")
read(
    "web_page_as_checkpoint", "a web page, or a git-lfs pointer", "refused with a hint at what it is", "other-html", "other-lfs"
)
read("random_bytes", "random bytes, zeros, text", DAMAGED, "other-random", "other-zeros", "other-text")
read("gzip_file", "a gzip file", "refused; nothing is unpacked", "other-gzip")
read("something_before_the_archive", "an archive with something before it, such as a pickle", "refused",
     "zip-prefix", "zip-prefix-pickle", "zip-prefix-aligned", "zip-two-archives", "zip-suffix")  # fmt: skip
read(
    "flipped_bit_in_the_pickle",
    "a flipped bit in the pickle",
    "refused by its CRC, which torch does not check",
    "zip-flip-pickle",
)
read(
    "flipped_bit_in_a_weight", "a flipped bit in a weight", "refused by its CRC, which torch does not check", "zip-flip-storage"
)
read("forged_size", "an archive that lies about a size", "refused",
     "zip-size-more", "zip-size-huge", "zip-size-less", "zip-two-sizes", "zip-extra-lies")  # fmt: skip
read("forged_offset", "an archive that lies about a place", "refused",
     *(f"zip-offset-{place}" for place in ("itself", "middle", "end", "huge", "unset")), "zip-overlap-unused")  # fmt: skip
read("duplicate_entry", "an archive with two entries of one name", "refused", "zip-duplicate-storage", "zip-duplicate-pickle")
read("compressed_entry", "a compressed entry that would unfold", "refused, nothing is unpacked", "compressed", "zip-method-8")
read("zip_slip", "entries named `../evil`, `/etc/evil`, `a\\..\\evil`", "refused; nothing is ever extracted",
     "zip-name-parent", "zip-name-absolute", "zip-name-backslash", "storage-traversal", "storage-absolute")  # fmt: skip
read(
    "something_after_the_pickle",
    "something after the end of the pickle",
    "refused",
    "pickle-after-stop",
    "pickle-after-stop-pickle",
)
read("torchscript", "a TorchScript archive, that is, a program", "refused", "zip-torchscript", "zip-torchscript-code")
read("too_few_values", "instructions that need more values than there are", DAMAGED,
     *(f"pickle-underflow-{what}" for what in ("pop", "tuple", "reduce", "build", "append", "setitem", "memo")))  # fmt: skip
read("missing_memo", "a memo place that was never filled", DAMAGED, "pickle-missing-memo", "pickle-missing-memo-long")
read("pickle_without_an_end", "a pickle without an end", DAMAGED, "pickle-no-stop", "pickle-only-protocol", "pickle-empty")
read("names_not_utf8", "names and texts that are not UTF-8", DAMAGED, "pickle-name-bad-utf8", "pickle-bad-utf8")
read("key_without_a_value", "a dictionary with a key and no value", DAMAGED, "pickle-odd-items", "pickle-underflow-setitems")
read("legacy_no_keys", "an older file that leaves out its storages (torch returns memory that was never written)",
     "refused", "legacy-keys-none", "legacy-keys-more", "legacy-keys-other", "legacy-keys-twice")  # fmt: skip
read("legacy_counts", "an older file with two sizes for one storage", "refused",
     "legacy-count-more", "legacy-count-less", "legacy-structure-less")  # fmt: skip
read("legacy_cut", "an older file that was cut", DAMAGED,
     *(f"legacy-cut-{place}" for place in ("half", "last-byte", "header", "no-numbers", "no-keys", "two")))  # fmt: skip
read("legacy_huge", "an older file with a storage of 2^36 elements", "refused, no memory is taken",
     "legacy-both-huge", "legacy-count-huge", "legacy-structure-huge")  # fmt: skip
