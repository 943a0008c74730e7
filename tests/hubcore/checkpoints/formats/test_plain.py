"""Configurations become JSON-like values, whatever they were pickled as."""

from __future__ import annotations

import argparse
import enum
import json
import pathlib
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubcore.checkpoints.formats.pickle_reader import GlobalName, Opaque, StorageRef, TensorRef, read_pickle
from hubcore.checkpoints.formats.plain import plain
from hubcore.checkpoints.formats.torch_file import TorchFile
from hubcore.errors import UnsafeCheckpointError

GOLD = Path(__file__).parents[3] / "data" / "gold"


class Choices(enum.Enum):
    FIRST = "first"
    SECOND = 2


BY_NAME = Choices.FIRST.__reduce_ex__(2)[0] is getattr
"""Python 3.11.0 to 3.11.3 pickle a member by its name, all others by its value."""


class Thing:
    def __init__(self) -> None:
        self.symbols = ["a", "b"]
        self.inner = argparse.Namespace(depth=1)


class Words(list[str]):
    """A list with a class of its own."""


def through_pickle(value: object, protocol: int = 2) -> Any:
    return plain(read_pickle(pickle.dumps(value, protocol), persistent_load=lambda pid: pid))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": (1, [2.5, None, True])}, {"a": [1, [2.5, None, True]]}),
        (argparse.Namespace(lr=[0.1], inner=argparse.Namespace(x="y")), {"lr": [0.1], "inner": {"x": "y"}}),
        (types.SimpleNamespace(a=1), {"a": 1}),
        ({"c": Choices.FIRST, "d": Choices.SECOND}, {"c": "FIRST", "d": "SECOND"} if BY_NAME else {"c": "first", "d": 2}),
        (pathlib.PurePosixPath("/data/manifest"), "/data/manifest"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (pathlib.PureWindowsPath("C:/a/b"), "C:\\a\\b"),
        ({"x"}, ["x"]),
        (frozenset(["x"]), ["x"]),
        (np.float64(0.25), 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(-7), -7),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (b"abc", {"__bytes__": 3}),
        (dict, "__builtin__.dict"),
        ({1: "a", None: "b", 2.5: "c"}, {"1": "a", "None": "b", "2.5": "c"}),
    ],
)
def test_values(value: object, expected: object, protocol: int) -> None:
    found = through_pickle(value, protocol)
    if value is dict and protocol > 2:
        expected = "builtins.dict"
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found)


def test_objects_of_unknown_classes_keep_their_attributes() -> None:
    name = f"{__name__}.Thing"
    assert through_pickle(Thing()) == {"__class__": name, "symbols": ["a", "b"], "inner": {"depth": 1}}
    assert through_pickle(Words(["x", "y"])) == {"__class__": f"{__name__}.Words", "__elements__": ["x", "y"]}


def test_an_object_cannot_lie_about_its_class() -> None:
    assert plain(Opaque("my", "Thing", state={"__class__": "dict", "a": 1})) == {"__class__": "my.Thing", "a": 1}


def test_an_enum_written_by_name_is_its_name() -> None:
    choice = GlobalName("fairseq.dataclass.constants", "Extractor")
    assert plain(Opaque("builtins", "getattr", (choice, "layer_norm"))) == "layer_norm"
    attribute = plain(Opaque("builtins", "getattr", ("os", "system")))
    assert attribute == {"__class__": "builtins.getattr", "__args__": ["os", "system"]}


def test_a_recorded_call_does_not_pass_for_its_argument() -> None:
    assert plain(Opaque("os", "system", ("ls",))) == {"__class__": "os.system", "__args__": ["ls"]}


def test_tensors_and_names() -> None:
    storage = StorageRef("0", torch.float16, 6)
    assert plain(TensorRef(storage, 0, (2, 3), (3, 1), torch.float16)) == {"__tensor__": [2, 3], "dtype": "float16"}
    assert plain(storage) == {"__storage__": 6, "dtype": "float16"}
    assert plain(GlobalName("typing", "Any")) == "typing.Any"


def test_omegaconf_nodes() -> None:
    def node(value: object) -> Opaque:
        return Opaque("omegaconf.nodes", "AnyNode", state={"_metadata": None, "_parent": None, "_val": value})

    lists = Opaque("omegaconf.listconfig", "ListConfig", state={"_parent": None, "_content": [node(1), node("${x}")]})
    config = Opaque("omegaconf.dictconfig", "DictConfig", state={"_parent": None, "_content": {"a": node(None), "b": lists}})
    lists.state["_parent"] = config  # type: ignore[index]
    assert plain(config) == {"a": None, "b": [1, "${x}"]}
    assert plain(Opaque("omegaconf.dictconfig", "DictConfig", state={"_content": None})) is None


def test_a_dictconfig_and_a_dict_of_the_same_training_run_are_equal() -> None:
    with (
        TorchFile(GOLD / "fairseq_tiny_w2v2_groupnorm.pt") as first,
        TorchFile(GOLD / "fairseq_tiny_w2v2_groupnorm_dictconfig.pt") as second,
    ):
        assert isinstance(second.tree["cfg"], Opaque)
        assert plain(first.tree["cfg"]) == plain(second.tree["cfg"])
        assert plain(first.tree["cfg"])["model"]["_name"] == "wav2vec2"


def test_namespaces_of_the_older_layout() -> None:
    with TorchFile(GOLD / "fairseq_tiny_w2v2_ctc_oldargs.pt") as file:
        args = plain(file.tree["args"])
    assert args["arch"] == "wav2vec_ctc"
    assert isinstance(args["w2v_args"], dict)


def test_a_fairseq_dictionary() -> None:
    with TorchFile(GOLD / "fairseq_tiny_w2v2_ctc.pt") as file:
        found = plain(file.tree["task_state"])["target_dictionary"]
    assert found["__class__"] == "fairseq.data.dictionary.Dictionary"
    assert found["symbols"][:2] == ["<s>", "<pad>"]


@pytest.mark.slow
def test_circles_depth_and_size_are_bounded() -> None:
    circle = Opaque("my", "Thing", state={})
    circle.state = {"me": circle}
    with pytest.raises(UnsafeCheckpointError, match="contains itself"):
        plain(circle)
    deep: object = None
    for _ in range(100_000):
        deep = Opaque("my", "Thing", (deep,))
    with pytest.raises(UnsafeCheckpointError, match="deep"):
        plain(deep)
    laughs: object = "ha"
    for _ in range(30):
        laughs = Opaque("my", "Thing", (laughs, laughs))
    with pytest.raises(UnsafeCheckpointError, match="values"):
        plain(laughs)
    with pytest.raises(UnsafeCheckpointError, match="values"):
        plain(["x" * 100_000] * 10_000)


def test_two_keys_that_would_be_written_alike() -> None:
    with pytest.raises(UnsafeCheckpointError, match="both written '1'"):
        plain({1: "a", "1": "b"})
    with pytest.raises(UnsafeCheckpointError, match="as a key"):
        plain({(1, 2): "a"})


def test_foreign_objects_are_the_callers_mistake() -> None:
    with pytest.raises(TypeError, match="TorchFile"):
        plain(object())


@pytest.mark.parametrize(
    "args", [(), (1,), (Opaque("numpy", "dtype", ("f8",)), b"short"), (Opaque("numpy", "dtype", ("O",)), b"x" * 8)]
)
def test_malformed_numpy_scalars_stay_records(args: tuple[object, ...]) -> None:
    assert plain(Opaque("numpy.core.multiarray", "scalar", args))["__class__"] == "numpy.core.multiarray.scalar"


def test_big_endian_numpy_scalars() -> None:
    described = Opaque("numpy", "dtype", ("f8",), state=(3, ">", None, None, None, -1, -1, 0))
    assert plain(Opaque("numpy.core.multiarray", "scalar", (described, np.array(1.5, ">f8").tobytes()))) == 1.5
