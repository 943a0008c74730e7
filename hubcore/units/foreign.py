r"""Centroids of other programs, read as data: `read_centroids`, and `import_codebook`, a codebook with them.

fairseq, textless and others keep a k-means as scikit-learn's object in a file of joblib (`.bin`, `.pkl`, `.km`), as a file of
`torch.save` (`.pt`, `.bin`) or as a `.npy`. No code of such a file runs. Shapes: `K` centroids, `D` dim.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubcore.checkpoints.formats.file_bytes import CheckpointBytes, naming
from hubcore.checkpoints.formats.joblib_file import COMPRESSED, MAX_BYTES, read_joblib
from hubcore.checkpoints.formats.numpy_array import numpy_array
from hubcore.checkpoints.formats.records import Opaque
from hubcore.checkpoints.formats.tensor_ref import TensorRef, damaged, unsafe
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import CheckpointError, CheckpointLayoutError
from hubcore.protocol import Upstream
from hubcore.text import listed, printable
from hubcore.units.codebook import Codebook, final_norm_in, record_of

NAMES = ("cluster_centers_", "cluster_centers", "centroids", "centers", "codebook")
"""Attributes and keys that hold centroids, `cluster_centers_` being scikit-learn's."""
_PICKLE, _NPY = b"\x80", b"\x93NUMPY"
_TORCH_BEFORE_1_6 = 0x8A  # its third byte: the pickle of a long number; joblib's pickles begin otherwise
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def import_codebook(
    path: str | os.PathLike[str],
    upstream: Upstream,
    layer: int | str,
    *,
    name: str | None = None,
    call_options: Mapping[str, Any] = _NO_OPTIONS,
) -> Codebook:
    """A codebook with the centroids of another program. That they are of this layer, only their width can tell.

    Args:
        path: see `read_centroids`.
        upstream: the one that they were made with.
        layer: its index, as in `layer_names`, or its name.
        name: of the upstream; its card's, or its class's, if None.
        call_options: keywords of its calls.

    Raises:
        CheckpointError: see `read_centroids`; or the layer has another width.
        OptionError: no such layer.

    Example:
        >>> import tempfile
        >>> from hubcore import hub
        >>> path = os.path.join(tempfile.mkdtemp(), "centroids.npy")
        >>> np.save(path, np.ones((50, 96), np.float32))
        >>> import_codebook(path, hub.load("wav2vec2_tiny_prompts"), 3)
        Codebook(50 centroids of block_3 of wav2vec2_tiny_prompts)
    """
    centroids = read_centroids(path)
    record = record_of(upstream, layer, call_options, name)
    index = int(record.settings["layers"][0])
    width = upstream.hidden_sizes[index]
    if centroids.shape[1] != width:
        what = f"{printable(path)} has centroids of width {centroids.shape[1]}, and {record.layer_names[0]} has width {width}."
        raise CheckpointError(what, fix="Name the upstream and the layer that they were made with.")
    origin = {"imported": os.path.basename(os.fspath(path)), "clusters": len(centroids)}
    return Codebook(centroids, record, final_norm=final_norm_in(upstream, index), fitted=origin)


def read_centroids(path: str | os.PathLike[str]) -> Tensor:
    """The centroids `(K, D)` in a file of another program, in float32.

    Args:
        path: a k-means of scikit-learn by `joblib.dump` (also compressed by zlib or gzip) or `pickle.dump`; a tensor, or a dict
            with one, of `torch.save`; an array of `numpy.save`.

    Raises:
        UnsafeCheckpointError: the file asks for more than plain data.
        CheckpointLayoutError: it has no centroids.
        CheckpointError: it is missing, damaged or of another kind.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "kmeans.pt")
        >>> torch.save({"cluster_centers_": torch.ones(100, 768)}, path)
        >>> read_centroids(path).shape
        torch.Size([100, 768])
    """
    with CheckpointBytes(path) as file:
        head = file.read_at(0, min(file.size, 8))
    if head.startswith(_NPY):
        found = _read_npy(path)
    elif head.startswith(COMPRESSED) or (head.startswith(_PICKLE) and head[2:3] != bytes([_TORCH_BEFORE_1_6])):
        found = _find(path, read_joblib(path))
    else:
        with TorchFile(path) as torch_file:
            found = _find(path, torch_file.tree)
            found = torch_file.read(found) if isinstance(found, TensorRef) else found
    return _checked(path, found)


def _find(path: str | os.PathLike[str], tree: Any) -> Any:
    """The array or the tensor that holds the centroids."""
    if _is_numbers(tree):
        return _array(path, tree)
    inside = _attributes(tree)
    for holder in (inside, *map(_attributes, inside.values())):
        for name in NAMES:
            if _is_numbers(holder.get(name)):
                return _array(path, holder[name])
    what = f"{printable(path)} has no centroids. It is {_spell(tree)} with {listed(map(_spell, inside), most=10)}."
    raise CheckpointLayoutError(f"{what} Centroids are a tensor alone, or called {', '.join(NAMES)}.")


def _attributes(node: Any) -> dict[Any, Any]:
    """Values by name of a dict, or of the record of an object."""
    if isinstance(node, Opaque):
        node = node.state
    return node if isinstance(node, dict) else {}


def _is_numbers(node: Any) -> bool:
    """True for a tensor, an array, or the record of one."""
    if isinstance(node, TensorRef | np.ndarray):
        return True
    return isinstance(node, Opaque) and node.name in ("_reconstruct", "_frombuffer")


def _array(path: str | os.PathLike[str], node: Any) -> Any:
    with naming(os.fspath(path)):
        found = numpy_array(node) if isinstance(node, Opaque) else node
        if found is None:
            raise damaged("its centroids are no array that numpy writes")
        return found


def _spell(node: Any) -> str:
    return printable(node)[:80] if isinstance(node, str) else repr(node) if isinstance(node, Opaque) else type(node).__name__


def _read_npy(path: str | os.PathLike[str]) -> Any:
    with CheckpointBytes(path) as file, naming(file.path):
        if file.size > MAX_BYTES:
            raise unsafe(f"it has {file.size} bytes, more than {MAX_BYTES}")
        try:
            return np.load(BytesIO(file.read_at(0, file.size)), allow_pickle=False)
        except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
            raise damaged(f"it is no whole .npy file ({error})") from error


def _checked(path: str | os.PathLike[str], found: Any) -> Tensor:
    floating = found.is_floating_point() if isinstance(found, Tensor) else found.dtype.kind == "f"
    if found.ndim != 2 or not floating or 0 in found.shape:
        what = f"{printable(path)} has centroids of shape {list(found.shape)} and type {found.dtype}."
        raise CheckpointLayoutError(f"{what} They are floating-point numbers of shape (K, D), a row for each centroid.")
    if isinstance(found, np.ndarray):
        with np.errstate(over="ignore"):
            found = torch.from_numpy(found.astype("<f4"))
    centroids: Tensor = found.to(torch.float32).contiguous()
    if not centroids.isfinite().all():
        raise CheckpointError(f"{printable(path)} has centroids that are not finite. Fetch it again, or make it again.")
    return centroids
