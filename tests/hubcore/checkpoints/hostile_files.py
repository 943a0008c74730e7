"""A builder of hostile and damaged checkpoint files: attacks on whoever opens one, and everything that breaks in transit.

`hostile_files(folder)` writes them. A file whose name starts with `inert-` asks for a call that a data-only reader may
record as long as it does not make it; every other file has to be refused. A call, if made, leaves a trace in
`folder/canary`.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from tests.hubcore.checkpoints.hostile_pieces import (
    HONEST_LEGACY_TREE,
    HONEST_TREE,
    MAGIC,
    P2,
    P4,
    STORAGE,
    SYSTEM,
    VERSION,
    Record,
    archive,
    call,
    entry,
    items,
    legacy,
    name,
    number,
    parts,
    storage,
    tensor,
    text,
    zipped,
)


def hostile_files(directory: Path) -> list[tuple[str, Path]]:
    """Writes every file into `directory` and returns name and path of each; the names are unique."""
    (directory / "canary").mkdir(parents=True, exist_ok=True)
    written = []
    for label, content in contents(directory):
        path = directory / f"{label}.pt"
        path.write_bytes(content)
        written.append((label, path))
    return written


@functools.cache
def names() -> list[str]:
    """The names of all files; it takes making them."""
    return [label for label, _ in contents(Path("unused"))]


def parametrize_names(metafunc: pytest.Metafunc) -> None:
    """A module's `pytest_generate_tests`: each test with a `name` runs once for every file; `make check` makes none."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", [] if metafunc.config.getoption("markexpr") == "not slow" else names())


def contents(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every file, for a canary in `directory`."""
    canary = str(directory / "canary").encode()
    return itertools.chain(_calls(canary), _bombs(), _tensors(), _pickles(), _zips(), _legacies(), _others())


def _calls(canary: bytes) -> Iterator[tuple[str, bytes]]:
    """Everything that could make a reader call, import or look up something."""
    made = text(canary + b"/made")
    shell = text(b"touch " + canary + b"/made")
    python = text(b"open(" + repr((canary + b"/made").decode()).encode() + b", 'w')")
    nested = pickle.dumps(0, 2)[:-2] + call("os.system", shell) + b"."
    targets = {
        "os.system": (shell,), "posix.system": (shell,), "nt.system": (shell,), "os.mkdir": (made,), "os.popen": (shell,),
        "subprocess.Popen": (shell, number(-1), b"N", b"N", b"N", b"N", b"N", b"\x88", b"\x88"),
        "subprocess.getoutput": (shell,), "builtins.eval": (python,), "builtins.exec": (python,),
        "__builtin__.eval": (python,), "__builtin__.execfile": (made,), "builtins.open": (made, text("w")),
        "io.open": (made, text("w")), "_io.FileIO": (made, text("w")),
        "builtins.getattr": (name("os", "system"), text("__call__")), "operator.attrgetter": (text("system"),),
        "builtins.__import__": (text("antigravity"),), "importlib.import_module": (text("antigravity"),),
        "pkgutil.resolve_name": (text("os:system"),), "runpy.run_path": (made,), "timeit.timeit": (python,),
        "pickle.loads": (b"C" + bytes([len(nested)]) + nested,), "_pickle.loads": (b"C" + bytes([len(nested)]) + nested,),
        "marshal.loads": (b"C\x01N",), "types.FunctionType": (b"N", b"}"), "ctypes.CDLL": (made,),
        "functools.partial": (name("os", "system"), shell), "functools.reduce": (name("os", "system"), shell),
        "torch.load": (made,), "torch.jit.load": (made,), "torch.hub.load": (made, text("x")),
        "torch.hub._load_local": (text(canary), text("made")), "torch.storage._load_from_bytes": (b"C\x01.",),
        "numpy.load": (made, b"N", b"\x88"),
        "numpy.core.multiarray._reconstruct": (name("numpy", "ndarray"), items(), text("O")),
        "copyreg._reconstructor": (name("os", "system"), name("builtins", "object"), b"N"), "shutil.rmtree": (text(canary),),
        "pathlib.Path.touch": (made,), "webbrowser.open": (text("http://127.0.0.1:9/"),),
        "socket.create_connection": (items(text("127.0.0.1"), number(9)),), "logging.FileHandler": (made,),
        "hydra.utils.instantiate": (b"}" + text("_target_") + text("os.system") + b"s",), "omegaconf.OmegaConf.load": (made,),
    }  # fmt: skip
    for function, args in targets.items():
        yield f"inert-call-{function}", zipped(entry(call(function, *args)))
        yield f"inert-call-legacy-{function}", legacy(entry(items(tensor(storage(legacy=True)), call(function, *args))))
        module, _, attribute = function.rpartition(".")
        yield f"inert-new-{function}", zipped(entry(name(module, attribute) + items(*args) + b"\x81"))
    system = name("os", "system")
    yield "inert-popped-call", zipped(P2 + call("os.system", shell) + b"0}.")
    yield "inert-dotted-name", zipped(P4 + b"\x8c\x02os\x8c\x0bpath.system\x93" + items(shell) + b"R.")
    yield "inert-dotted-torch", zipped(P4 + b"\x8c\x13torch.serialization\x8c\x09os.system\x93" + items(shell) + b"R.")
    yield "inert-default-factory", zipped(entry(name("collections", "defaultdict") + items(system) + b"R" + text("k") + b"Ns"))
    yield "inert-name-only", zipped(entry(system))
    yield "inert-setstate", zipped(entry(name("os", "system") + b")\x81" + b"}" + text("__setstate__") + system + b"sb"))
    yield "inert-class-swap", zipped(entry(call("my.Thing") + b"}(" + text("__class__") + system + text("__call__") + b"Nub"))
    yield "inert-hash-method", zipped(entry(call("my.Thing") + b"}" + text("__reduce__") + system + b"sb"))
    yield "inert-new-state-tuple", zipped(entry(call("my.Thing") + items(b"N", b"}" + text("a") + system + b"s") + b"b"))
    yield "call-of-result", zipped(entry(call("builtins.getattr", name("os", "system"), text("x")) + items(shell) + b"R"))
    yield "call-of-text", zipped(entry(text("os.system") + items(shell) + b"R"))
    yield "call-args-no-tuple", zipped(entry(system + shell + b"R"))
    yield "new-of-text", zipped(entry(text("os.system") + items(shell) + b"\x81"))
    yield "new-ex", zipped(P4 + system + items(shell) + b"}\x92.")
    yield "instruction-inst", zipped(P2 + b"(" + shell + b"ios\nsystem\n.")
    yield "instruction-obj", zipped(P2 + b"(" + system + shell + b"o.")
    yield "instruction-ext1", zipped(P2 + b"\x82\x01" + items(shell) + b"R.")
    yield "instruction-ext2", zipped(P2 + b"\x83\x01\x01" + items(shell) + b"R.")
    yield "instruction-ext4", zipped(P2 + b"\x84\x01\x01\x00\x00" + items(shell) + b"R.")
    yield "build-defaults", zipped(entry(name("shutil", "rmtree") + b"}" + text("__defaults__") + items(shell) + b"sb"))
    yield "build-class", zipped(entry(name("argparse", "Namespace") + b"}" + text("__init__") + system + b"sb"))
    yield "build-list", zipped(entry(b"]}b"))
    yield "build-tensor", zipped(entry(tensor() + b"}b"))
    yield "build-twice", zipped(entry(call("my.Thing") + b"}b}b"))
    yield "items-into-name", zipped(entry(system + text("a") + b"Ns"))
    yield "items-into-tensor", zipped(entry(tensor() + number(0) + b"Ns"))
    yield "append-to-dict", zipped(entry(b"}Na"))
    yield "factory-is-record", zipped(entry(name("collections", "defaultdict") + items(call("my.Thing")) + b"R"))
    yield "type-swap", zipped(entry(call("torch._tensor._rebuild_from_type_v2", system, system, items(shell), b"N")))
    parameter = name("torch.nn.parameter", "Parameter")
    yield (
        "type-swap-parameter",
        zipped(entry(call("torch._tensor._rebuild_from_type_v2", system, parameter, items(shell), b"N"))),
    )
    yield "persistent-id-call", zipped(entry(call("os.system", shell) + b"Q"))
    yield "persistent-id-text", zipped(P2 + b"P0\n.")
    for place in range(5):
        pickles = [MAGIC, VERSION, SYSTEM, HONEST_LEGACY_TREE, pickle.dumps(["0"], 2)]
        pickles[place] = P2 + call("os.system", shell) + b"."
        prefix = "inert-" if place == 3 else ""
        tail = b"" if place == 3 else struct.pack("<q", 6) + STORAGE
        if place == 3:
            pickles[4] = pickle.dumps([], 2)
        yield f"{prefix}legacy-pickle-{place}", b"".join(pickles) + tail


def _bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would take much memory or time."""
    yield "inert-bytearray", zipped(entry(call("builtins.bytearray", number(1 << 36))))
    yield "inert-tensor-by-size", zipped(entry(call("torch.FloatTensor", number(1 << 34))))
    yield "inert-range-set", zipped(entry(call("builtins.set", call("builtins.range", number(1 << 40)))))
    yield "inert-power", zipped(entry(call("builtins.pow", number(9), number(1 << 60))))
    for size in (40, 62):
        yield f"text-of-2-to-{size}", zipped(P4 + b"\x8d" + struct.pack("<Q", 1 << size) + b"abc.")
        yield f"bytes-of-2-to-{size}", zipped(P4 + b"\x8e" + struct.pack("<Q", 1 << size) + b"abc.")
        yield f"bytearray-of-2-to-{size}", zipped(b"\x80\x05\x96" + struct.pack("<Q", 1 << size) + b"abc.")
        yield f"frame-of-2-to-{size}", zipped(P4 + b"\x95" + struct.pack("<Q", 1 << size) + b"N.")
    yield "text-of-4-gigabytes", zipped(P2 + b"X\xff\xff\xff\xffabc.")
    yield "long4", zipped(P2 + b"\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b".")
    yield "long1-of-255", zipped(P2 + b"\x8a\xff" + b"\x01" * 255 + b".")
    yield "memo-2-to-31", zipped(P2 + b"Nr\xff\xff\xff\x7f.")
    yield "memo-sparse", zipped(P2 + b"".join(b"Nr" + struct.pack("<I", 1 << k) + b"0" for k in range(2, 32)) + b"N.")
    yield "deep-marks", zipped(P2 + b"(" * 1_900_000 + b".")
    yield "deep-tuples", zipped(P2 + b"N" + b"\x85" * 1_900_000 + b".")
    yield "deep-tuples-within-limits", zipped(P2 + b"N" + b"\x85" * 250_000 + b".")
    yield "deep-lists", zipped(P2 + b"]" * 200_000 + b"a" * 199_999 + b".")
    yield "deep-dicts", zipped(P2 + b"}" + b"U\x01a}" * 200_000 + b"s" * 200_000 + b".")
    yield "deep-150", zipped(P2 + b"]" * 150 + b"a" * 149 + b".")
    thing = name("my", "Thing") + b"q\x00"
    yield "inert-deep-records", zipped(P2 + thing + b"h\x00" * 60_000 + b"N" + b"\x85R" * 60_001 + b".")
    yield "inert-deep-states", zipped(P2 + thing + b")R" + b"h\x00)R" * 90_000 + b"b" * 90_000 + b".")
    yield "many-pushes", zipped(P2 + b"N" * 2_500_000 + b".")
    yield "many-values-left", zipped(P2 + b"N" * 1_000 + b".")
    yield "many-lists", zipped(P2 + b"(" + b"]" * 1_500_000 + b"t.")
    yield "many-names", zipped(P2 + b"(" + name("a", "b") * 900_000 + b"t.")
    yield (
        "laughs",
        zipped(P2 + b"]q\x00" + b"".join(b"](" + (b"h" + bytes([k])) * 10 + b"eq" + bytes([k + 1]) for k in range(12)) + b"."),
    )
    wide = b"".join(b"(" + (b"h" + bytes([k])) * 200 + b"tq" + bytes([k + 1]) for k in range(80))
    yield "laughs-tuples", zipped(P2 + b"Nq\x00" + wide + b".")
    yield "cycle-list", zipped(P2 + b"]q\x00h\x00a.")
    yield "cycle-dict", zipped(P2 + b"}q\x00" + text("a") + b"h\x00s.")
    yield "cycle-through-tuple", zipped(P2 + b"]q\x00h\x00\x85a.")
    yield "inert-cycle-record", zipped(entry(call("my.Thing") + b"q\x00}" + text("me") + b"h\x00sb"))
    yield (
        "keys-colliding-numbers",
        zipped(P2 + b"}(" + b"".join(number(k * ((1 << 61) - 1) % (1 << 64)) + b"N" for k in range(60_000)) + b"u."),
    )
    yield "keys-many-numbers", zipped(P2 + b"}(" + b"".join(number(k << 17) + b"N" for k in range(60_000)) + b"u.")
    yield "keys-one-number-again", zipped(P2 + b"}K\x01q\x00N" + b"s" + b"h\x00Ns" * 60_000 + b".")
    yield "keys-many-tuples", zipped(P2 + b"}(" + b"".join(items(number(k), number(-k)) + b"N" for k in range(32_000)) + b"u.")
    long_text = text(b"k" * 1_000_000)
    yield "keys-long-text", zipped(P2 + b"}" + long_text + b"q\x00Ns" + long_text + b"q\x01Ns" + b"h\x01Ns" * 500_000 + b".")
    yield "keys-long-bytes", zipped(P2 + b"}B\x40\x42\x0f\x00" + b"k" * 1_000_000 + b"Ns.")
    yield "keys-huge-number", zipped(P2 + b"}" + number(1 << 200) + b"Ns.")
    yield "keys-record", zipped(P2 + b"}" + call("my.Thing") + b"Ns.")
    yield "keys-list", zipped(P2 + b"}]Ns.")
    yield "keys-tuple-of-lists", zipped(P2 + b"}" + items(b"]") + b"Ns.")
    yield "keys-tensor", zipped(P2 + b"}" + tensor() + b"Ns.")
    pairs = b"(" + items(text("k"), b"N") * 20_000 + b"tq\x00"
    yield (
        "copied-dicts",
        zipped(P2 + b"}" + pairs + b"0(" + (name("collections", "OrderedDict") + b"h\x00\x85R") * 10_000 + b"t."),
    )
    yield "copied-lists", zipped(P2 + pairs + b"0(" + (name("builtins", "list") + b"h\x00\x85R") * 50_000 + b"t.")
    encoded = (name("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R") * 10_000
    yield "copied-bytes", zipped(P2 + text(b"b" * 1_000_000) + b"q\x000(" + encoded + b"t.")
    yield "many-references", zipped(P2 + b"]q\x000(" + b"h\x00" * 1_900_000 + b"t.")
    again = tensor()[:-1] + b"q\x010q\x000"
    yield "many-tensors", zipped(P2 + again + b"(" + b"h\x00h\x01R" * 250_000 + b"t.")
    once = storage()[:-1] + b"q\x000"
    yield "many-storages", zipped(P2 + once + b"(" + b"h\x00Q" * 900_000 + b"t.")
    yield "inert-many-keys", zipped(P2 + b"}" + b"".join(b"U\x06%06dNs" % k for k in range(200_000)) + b".")
    yield "zip-many-records", archive(*(Record(f"a/{k}", b"") for k in range(60_000)))
    yield "pickle-too-large", zipped(P2 + (text(b"t" * 1_000_000) + b"0") * 34 + b"N.")
    yield "legacy-pickle-too-large", MAGIC + VERSION + SYSTEM + P2 + (text(b"t" * 1_000_000) + b"0") * 34 + b"N."
    yield "compressed", zlib_zip()


def zlib_zip() -> bytes:
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeezed.compress(bytes(1 << 24)) + squeezed.flush()
    lying = Record("archive/data/0", data, method=8, crc=zlib.crc32(bytes(1 << 24)))
    return archive(Record("archive/data.pkl", entry(tensor(storage(numel=1 << 22), 0, (1 << 22,), (1,)))), lying)


def _tensors() -> Iterator[tuple[str, bytes]]:
    """Tensors and storages that are not what they say, each in both kinds of file."""
    huge = 1 << 62
    geometries: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
        "size-beyond": (0, (7,), (1,)), "size-far-beyond": (0, (1 << 40,), (1,)), "stride-beyond": (0, (2, 3), (4, 1)),
        "offset-beyond": (1, (2, 3), (3, 1)), "offset-far": (1 << 40, (1,), (1,)), "offset-negative": (-1, (2,), (1,)),
        "stride-negative": (5, (2,), (-1,)), "size-negative": (0, (-2, -3), (3, 1)),
        "overflow-offset": (huge * 4, (1,), (1,)), "overflow-product": (0, (1 << 32, 1 << 32), (0, 0)),
        "overflow-stride": (0, (3,), (huge * 2,)), "overflow-sum": (huge * 4 - 5, (2, 3), (3, 1)),
        "expand": (0, (1 << 40,), (0,)), "expand-small": (0, (7,), (0,)), "empty-far-offset": (1 << 50, (0,), (1,)),
        "ranks-differ": (0, (2, 3), (1,)), "rank-17": (0, (1,) * 17, (1,) * 17),
        "rank-100000": (0, (1,) * 100_000, (1,) * 100_000),
    }  # fmt: skip
    for label, (offset, shape, stride) in geometries.items():
        yield f"geometry-{label}", zipped(entry(tensor(None, offset, shape, stride)))
        yield f"geometry-legacy-{label}", legacy(entry(tensor(storage(legacy=True), offset, shape, stride)))
    sources = {
        "more-than-bytes": storage(numel=7), "less-than-bytes": storage(numel=5), "2-to-40": storage(numel=1 << 40),
        "negative": storage(numel=-6), "2-to-62": storage(numel=1 << 62), "wrong-type": storage("torch.DoubleStorage"),
        "quantised": storage("torch.QInt8Storage", numel=24), "foreign-class": storage("os.system"),
        "meta": storage(place="meta"), "missing": storage(key="1"), "traversal": storage(key="../data.pkl"),
        "empty-key": storage(key=""), "long-key": storage(key="0" * 1000), "absolute": storage(key="/etc/passwd"),
    }  # fmt: skip
    for label, source in sources.items():
        yield f"storage-{label}", zipped(entry(tensor(source, 0, (5,), (1,))))
    pid = (text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"))
    odd_ids = {
        "size-text": (*pid, text("6")), "size-bool": (*pid, b"\x88"), "size-float": (*pid, b"G" + struct.pack(">d", 6)),
        "short": pid, "view": (*pid, number(6), items(text("v"), number(0), number(6))),
        "word": (text("module"), *pid[1:], number(6)), "key-number": (*pid[:2], number(0), pid[3], number(6)),
        "class-text": (pid[0], text("torch.FloatStorage"), *pid[2:], number(6)),
    }  # fmt: skip
    for label, fields in odd_ids.items():
        yield f"storage-id-{label}", zipped(entry(tensor(items(*fields) + b"Q")))
    two = tensor() + tensor(storage("torch.IntStorage"))
    yield "storage-two-types", zipped(entry(items(two)))
    yield "storage-two-sizes", zipped(entry(items(storage(), storage(numel=3))))
    for label, numel in (("more", 7), ("less", 5), ("negative", -6), ("huge", 1 << 36), ("2-to-62", 1 << 62)):
        lying = entry(tensor(storage(numel=numel, legacy=True)))
        yield f"legacy-structure-{label}", legacy(lying)
        yield f"legacy-count-{label}", legacy(HONEST_LEGACY_TREE, numel=numel)
        yield f"legacy-both-{label}", legacy(lying, numel=numel)
    base = (
        storage(),
        number(0),
        items(number(2), number(3)),
        items(number(3), number(1)),
        b"\x89",
        call("collections.OrderedDict"),
    )
    rebuild = "torch._utils._rebuild_"
    flagged = [call(rebuild + "tensor_v2", *base, b"}" + text(flag) + b"\x88s") for flag in ("conj", "neg", "other")]
    odd = {
        "sparse": call(rebuild + "sparse_tensor", name("torch", "sparse_coo"), items(tensor(), tensor(), items(number(9)))),
        "sparse-csr": call(rebuild + "sparse_csr_tensor", name("torch", "sparse_csr"), items(tensor(), tensor())),
        "quantised": call(rebuild + "qtensor", *base[:4], items(name("torch", "per_tensor_affine"), number(1)), *base[4:]),
        "nested": call(rebuild + "nested_tensor", tensor(), tensor(), tensor(), tensor()),
        "wrapper": call(rebuild + "wrapper_subclass", name("my", "Tensor"), name("torch", "float32"), items(number(9))),
        "meta": call(rebuild + "meta_tensor_no_storage", name("torch", "float32"), items(number(9)), items(number(1)), b"\x89"),
        "from-numpy": call(rebuild + "device_tensor_from_numpy", b"N", name("torch", "float32"), text("xla"), b"\x89"),
        "conjugate": flagged[0], "negative": flagged[1], "flagged": flagged[2],
        "v3-type-text": call(rebuild + "tensor_v3", *base, text("float32")),
        "v3-type-os": call(rebuild + "tensor_v3", *base, name("os", "x")),
        "v3-float8": call(rebuild + "tensor_v3", *base, name("torch", "float8_e4m3fn")),
        "v3-reinterpret": call(rebuild + "tensor_v3", *base, name("torch", "int32")),
        "shape-list": call(rebuild + "tensor_v2", *base[:2], b"]K\x02a", *base[3:]),
        "shape-bool": call(rebuild + "tensor_v2", *base[:2], items(b"\x88", b"\x88"), *base[3:]),
        "shape-float": call(rebuild + "tensor_v2", *base[:2], items(b"G" + struct.pack(">d", 2), number(1)), *base[3:]),
        "offset-text": call(rebuild + "tensor_v2", base[0], text("0"), *base[2:]),
        "too-few": call(rebuild + "tensor_v2", *base[:3]), "too-many": call(rebuild + "tensor_v2", *base, b"N", b"N", b"N"),
        "no-storage": call(rebuild + "tensor_v2", b"N", *base[1:]),
        "record-as-storage": call(rebuild + "tensor_v2", call("my.Thing"), *base[1:]),
        "parameter-of-none": call(rebuild + "parameter", b"N", b"\x88", b"N"),
    }  # fmt: skip
    for label, value in odd.items():
        yield f"tensor-{label}", zipped(entry(value))
    untyped = (storage("torch.storage.UntypedStorage", numel=24), *base[1:2], items(number(3)), items(number(1)), *base[4:])
    both = [call(rebuild + "tensor_v3", *untyped, name("torch", kind)) for kind in ("uint16", "uint32")]
    yield "tensor-v3-two-types", zipped(entry(items(*both)))
    boolean = entry(tensor(storage("torch.BoolStorage", numel=24), 0, (24,), (1,)))
    yield "tensor-bool-bytes", zipped(boolean, b"\xff" * 24)


def _pickles() -> Iterator[tuple[str, bytes]]:
    """Pickles that are malformed, or use instructions that no checkpoint needs."""
    for code in b"ILFSVgpld\x97\x98\x00\x7f\xff":
        yield f"instruction-{code:02x}", zipped(P2 + bytes([code]) + b"0\n0\n.")
    cases = {
        "underflow-pop": P2 + b"0N.", "underflow-tuple": P2 + b"N\x87.", "underflow-reduce": P2 + b"R.",
        "underflow-build": P2 + b"Nb.", "underflow-append": P2 + b"a.", "underflow-setitem": P2 + b"}Ns.",
        "underflow-setitems": P2 + b"(u.", "underflow-memo": P2 + b"q\x00.", "underflow-dup": P2 + b"2.",
        "underflow-persistent": P2 + b"Q.", "no-mark": P2 + b"Nt.", "mark-left": P2 + b"N(.", "before-mark": P2 + b"N(0t.",
        "missing-memo": P2 + b"h\x07.", "missing-memo-long": P2 + b"j\xff\xff\xff\xff.", "no-stop": P2 + b"N",
        "only-protocol": P2, "empty": b"", "nothing": P2 + b".", "two-values": P2 + b"NN.", "after-stop": P2 + b"N.N",
        "after-stop-pickle": P2 + b"N." + P2 + b"N.", "odd-items": P2 + b"}(Nu.", "bad-utf8": P2 + text(b"\xff\xfe") + b".",
        "lone-surrogate": P2 + text(b"\xed\xa0\x80") + b".", "name-bad-utf8": P2 + name(b"\xff", b"\xfe") + b".",
        "name-no-newline": P2 + b"cos", "name-long": P2 + name(b"a" * 100_000, b"b") + b".",
        "name-empty": P2 + name(b"", b"") + b".", "stack-name-of-numbers": P4 + b"K\x01K\x02\x93.", "protocol-0": b"(dp0\n.",
        "protocol-1": b"}q\x00.", "protocol-6": b"\x80\x06N.", "protocol-255": b"\x80\xffN.", "cut-float": P2 + b"G\x00",
        "cut-text": P2 + b"X\x05\x00\x00\x00ab", "cut-number": P2 + b"J\x01", "cut-frame": P4 + b"\x95\x01",
        "dict-of-text": entry(call("collections.OrderedDict", text("ab"))),
        "dict-of-triples": entry(call("collections.OrderedDict", b"]" + items(b"N", b"N", b"N") + b"a")),
        "list-of-text": entry(call("builtins.list", text("ab"))),
        "encode-number": entry(call("_codecs.encode", number(7), text("latin1"))),
        "encode-rot13": entry(call("_codecs.encode", text("a"), text("rot13"))),
        "encode-beyond": entry(call("_codecs.encode", text("\u20ac"), text("latin1"))),
        "dict-arguments": entry(call("collections.OrderedDict", b"]", b"]")),
    }  # fmt: skip
    for label, content in cases.items():
        yield f"pickle-{label}", zipped(content)


def _zips() -> Iterator[tuple[str, bytes]]:
    """Archives that are damaged, ambiguous, or not what torch.save writes."""
    honest = zipped(HONEST_TREE)
    for label, end in (
        ("half", len(honest) // 2),
        ("last-byte", -1),
        ("head", 30),
        ("four-bytes", 4),
        ("no-end", -22),
        ("mid-directory", -60),
    ):
        yield f"zip-cut-{label}", honest[:end]
    yield "zip-prefix", b"junk" + honest
    yield "zip-prefix-pickle", P2 + b"N." + honest
    yield "zip-suffix", honest + b"\x00"
    yield "zip-comment", archive(*parts(HONEST_TREE), comment=b"hello")
    yield "zip-comment-announced", honest[:-2] + b"\x05\x00"
    yield "zip-two-archives", honest + honest
    yield "zip-prefix-aligned", archive(*parts(HONEST_TREE), prefix=b"PK\x03\x04" + bytes(60))
    yield "zip-directory-shifted", archive(*parts(HONEST_TREE), shift=-1)
    yield "zip-directory-far", archive(*parts(HONEST_TREE), shift=1 << 20)
    for count in (0, 2, 4, 60_000):
        yield f"zip-count-{count}", archive(*parts(HONEST_TREE), count=count)
    yield "zip-empty", archive()
    first, second, third = parts(HONEST_TREE)
    yield "zip-flip-storage", archive(*parts(HONEST_TREE, b"\x01" + STORAGE[1:], crc=zlib.crc32(STORAGE)))
    yield "zip-flip-pickle", archive(replace(first, crc=1), second, third)
    yield "zip-size-more", archive(*parts(entry(tensor(storage(numel=12), 0, (12,), (1,))), size=48))
    yield "zip-size-huge", archive(*parts(entry(tensor(storage(numel=1 << 28), 0, (1,), (1,))), size=1 << 30))
    yield "zip-size-less", archive(*parts(entry(tensor(storage(numel=3), 0, (3,), (1,))), size=12))
    for label, offset in (("itself", 0), ("middle", 10), ("end", 1 << 20), ("huge", 0xFFFFFFF0), ("unset", 0xFFFFFFFF)):
        yield f"zip-offset-{label}", archive(*parts(HONEST_TREE, offset=offset))
    yield "zip-overlap-unused", archive(first, second, Record("archive/more", b"x", size=50), third)
    yield "zip-overlap-shifted", archive(*parts(HONEST_TREE, local_extra=40, crc=0))
    yield "zip-local-name", archive(*parts(HONEST_TREE, local_name="archive/data/1"))
    yield "zip-local-name-pickle", archive(replace(first, local_name="archive/data.pk1"), second, third)
    yield "zip-local-longer", archive(*parts(HONEST_TREE, local_name="archive/data/0" + "x" * 40_000))
    yield "zip-duplicate-storage", archive(first, second, replace(second, data=bytes(24)), third)
    yield "zip-duplicate-pickle", archive(first, replace(first, data=entry(b"N")), second, third)
    yield "zip-encrypted", archive(*parts(HONEST_TREE, flags=0x0801))
    yield "zip-odd-flags", archive(*parts(HONEST_TREE, flags=0x2800))
    for method in (1, 8, 12, 14, 99):
        yield f"zip-method-{method}", archive(*parts(HONEST_TREE, method=method))
    names = {
        "parent": "archive/../evil", "absolute": "/etc/cron.d/evil", "backslash": "archive\\..\\evil",
        "empty": "archive//evil", "dot": "archive/./evil", "no-folder": "evil", "newline": "archive/a\nb",
        "other-root": "other/evil", "folder": "archive/x/",
    }  # fmt: skip
    for label, odd in names.items():
        yield f"zip-name-{label}", archive(first, second, Record(odd, b"x"), third)
    yield "zip-no-pickle", archive(second, third)
    yield "zip-torchscript", archive(first, second, Record("archive/constants.pkl", P2 + b")."), third)
    yield "zip-torchscript-code", archive(first, second, Record("archive/code/model.py", b"import os"), third)
    yield "zip-big-endian", archive(first, second, Record("archive/byteorder", b"big"), third)
    yield "zip-byteorder-long", archive(first, second, Record("archive/byteorder", bytes(1 << 16)), third)
    yield "zip-extra-cut", archive(*parts(HONEST_TREE, size=0xFFFFFFFF, extra=b"\x01\x00"))
    yield "zip-extra-lies", archive(*parts(HONEST_TREE, size=0xFFFFFFFF, extra=struct.pack("<2H2Q", 1, 16, 1 << 60, 1 << 60)))
    yield "zip-two-sizes", archive(*parts(HONEST_TREE, size=0xFFFFFFFF, extra=struct.pack("<2H2Q", 1, 16, 24, 25)))
    end = honest.index(b"PK\x05\x06")
    for label, position in (("nowhere", 1 << 50), ("start", 0), ("directory", end - 60)):
        yield f"zip-end64-{label}", honest[:end] + struct.pack("<4sIQI", b"PK\x06\x07", 0, position, 1) + honest[end:]
    wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, 3, 3, 1 << 40, 1 << 40)
    yield "zip-end64-huge", honest[:end] + wide + struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1) + honest[end:]


def _legacies() -> Iterator[tuple[str, bytes]]:
    """Files in the format from before torch 1.6 that are damaged, or disagree with themselves."""
    honest = legacy(HONEST_LEGACY_TREE)
    for label, end in (
        ("half", len(honest) // 2),
        ("last-byte", -1),
        ("header", len(MAGIC)),
        ("no-numbers", -32),
        ("no-keys", -50),
        ("two", 2),
    ):
        yield f"legacy-cut-{label}", honest[:end]
    lists = {
        "none": [],
        "more": ["0", "1"],
        "other": ["1"],
        "twice": ["0", "0"],
        "number": [0],
        "tuple": ("0",),
        "dict": {"0": 0},
        "text": "0",
    }
    for label, keys in lists.items():
        yield f"legacy-keys-{label}", legacy(HONEST_LEGACY_TREE, pickle.dumps(keys, 2))
    yield "legacy-keys-bomb", legacy(HONEST_LEGACY_TREE, P2 + b"N" * 1_900_000 + b".")
    yield "legacy-keys-nested", legacy(HONEST_LEGACY_TREE, P2 + b"](" + items(text("0")) + b"e.")
    odd_key = entry(tensor(storage(key="../x", legacy=True)))
    yield "legacy-odd-key", legacy(odd_key, pickle.dumps(["../x"], 2))
    yield "legacy-tail", legacy(HONEST_LEGACY_TREE, tail=b"\x00")
    yield "legacy-tail-pickle", legacy(HONEST_LEGACY_TREE, tail=P2 + b"N.")
    yield "legacy-storage-in-header", storage_in_header()
    for label, system in (
        ("big-endian", {"little_endian": False}),
        ("none", None),
        ("empty", {}),
        ("word", {"little_endian": "yes"}),
    ):
        yield f"legacy-system-{label}", MAGIC + VERSION + pickle.dumps(system, 2) + honest[len(MAGIC + VERSION + SYSTEM) :]
    yield "legacy-magic", pickle.dumps(0x1950A86A20F9469CFC6D, 2) + honest[len(MAGIC) :]
    yield "legacy-version", MAGIC + pickle.dumps(1002, 2) + honest[len(MAGIC + VERSION) :]
    yield (
        "legacy-two-types",
        legacy(entry(items(tensor(storage(legacy=True)), tensor(storage("torch.IntStorage", legacy=True))))),
    )
    yield "legacy-short-id", legacy(HONEST_TREE)
    yield "legacy-plain-pickle", pickle.dumps({"model": {}}, 2)


def storage_in_header() -> bytes:
    return MAGIC + VERSION + P2 + storage(legacy=True) + b"." + legacy(HONEST_LEGACY_TREE)[len(MAGIC + VERSION + SYSTEM) :]


def _others() -> Iterator[tuple[str, bytes]]:
    """Files of some other kind."""
    folder = BytesIO()
    with tarfile.open(fileobj=folder, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), BytesIO())
    yield "other-tar", folder.getvalue()
    yield "other-empty", b""
    yield "other-zeros", bytes(10_000)
    yield "other-html", b"<!DOCTYPE html><html><body>Sign in</body></html>"
    yield "other-lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "other-gzip", b"\x1f\x8b\x08" + bytes(40)
    yield "other-random", bytes((k * 197 + 89) % 251 for k in range(5_000))
    yield "other-text", b"ordinary words\n"
    yield "other-numpy", b"\x93NUMPY\x01\x00" + bytes(100)
    yield "other-safetensors", struct.pack("<Q", 2) + b"{}"
    yield "other-pickle-5-buffers", pickle.dumps(pickle.PickleBuffer(b"x" * 100), 5, buffer_callback=lambda _: False)
