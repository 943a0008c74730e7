"""`hubcore convert`: every layout comes out equal, the right family is found, and nothing is left where it is not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubcore import UpstreamBase, hub
from hubcore.checkpoints import open_checkpoint
from hubcore.registry.names import current_registry
from hubcore.tools import convert as module
from hubcore_ofa_wav2vec2 import OfaWav2Vec2Upstream
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.conftest import CardWriter
from tests.gold import WAV2VEC2_FILES, gold_wavs
from tests.hugging_face import transformers
from tests.paths import GOLD
from tests.running import command

pytestmark = pytest.mark.slow

TINY = "wav2vec2_tiny_prompts"


call = partial(command, "convert")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "mine.safetensors"


def left(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


def same_features(one: UpstreamBase, other: UpstreamBase) -> bool:
    with torch.no_grad():
        pairs = zip(one(gold_wavs()).hidden_states, other(gold_wavs()).hidden_states, strict=True)
        return all(torch.equal(a, b) for a, b in pairs)


# Layouts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(WAV2VEC2_FILES))
@pytest.mark.slow
def test_every_layout_of_fairseq_and_s3prl(name: str, out: Path) -> None:
    result = call(GOLD / name, out)
    assert result.exit_code == 0, result.output
    with open_checkpoint(out) as checkpoint:
        assert checkpoint.layout == "hubcore safetensors"
    wanted, got = Wav2Vec2Upstream.from_checkpoint(GOLD / name), Wav2Vec2Upstream.from_checkpoint(out)
    assert got.config == wanted.config and same_features(wanted, got)
    assert left(out) == ["mine.safetensors"]
    assert "upstream  wav2vec2, hubcore_wav2vec2.upstream:Wav2Vec2Upstream" in result.stdout


def test_the_report_and_the_digest_are_printed(out: Path) -> None:
    source = GOLD / "fairseq_tiny_w2v2_ctc.pt"
    lines = call(source, out).stdout.splitlines()
    assert lines[:3] == [f"loaded    {source}", "layout    fairseq, cfg", "used      66 tensors"]
    assert lines[3].startswith("ignored   w2v_encoder.proj.bias, w2v_encoder.proj.weight")
    assert lines[-3] == "equal     66 weights and 4 hidden states of a clip, every bit of them"
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert lines[-1] == f"sha256    {digest}"
    made = json.loads(call(source, out, "--force", "--json").stdout)
    assert (made["sha256"], made["bytes"], made["path"]) == (digest, out.stat().st_size, str(out))  # the same bytes again
    assert made["report"]["layout"] == "fairseq, cfg"


@pytest.mark.slow
def test_a_file_with_a_cif_module_is_ofas(out: Path) -> None:
    result = call(GOLD / "ofa_tiny.pt", out)
    assert result.exit_code == 0 and "upstream  ofa_wav2vec2, " in result.stdout
    assert same_features(OfaWav2Vec2Upstream.from_checkpoint(GOLD / "ofa_tiny.pt"), OfaWav2Vec2Upstream.from_checkpoint(out))
    assert "upstream  ofa_wav2vec2, " in call(out, out.with_name("again.safetensors")).stdout
    encoder = call(GOLD / "ofa_tiny.pt", out, "--upstream", "wav2vec2", "--force")
    assert encoder.exit_code == 2 and "have no place in wav2vec 2.0: cif_subsampler" in encoder.stderr


@pytest.mark.slow
def test_a_folder_of_transformers(out: Path) -> None:
    torch.manual_seed(1)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.Wav2Vec2Config(**small, conv_dim=[16] * 7, num_conv_pos_embedding_groups=4)
    folder = out.parent / "model"
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    result = call(folder, out)
    assert result.exit_code == 0, result.output
    assert "layout    Hugging Face" in result.stdout
    assert same_features(Wav2Vec2Upstream.from_checkpoint(folder), Wav2Vec2Upstream.from_checkpoint(out))


@pytest.mark.slow
def test_bare_weights_need_a_config(out: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    model = hub.load(TINY)
    assert isinstance(model, Wav2Vec2Upstream)
    save_file(model.state_dict(), bare)
    result = call(bare, out)
    assert result.exit_code == 2 and left(out) == []
    assert f"no installed family reads {bare}:" in result.output and result.output.count("weights without a config") == 1
    assert re.search(r"^ +w2v_bert, .*, whisper: it is none of theirs, as it has ", result.output, re.MULTILINE)
    assert "--upstream" in result.output and "--config" in result.output
    result = call(bare, out, "--config", "tiny")  # HuBERT's tiny has the same tensors
    assert result.exit_code == 2 and "hubert" in result.output and "wav2vec2" in result.output and left(out) == []
    result = call(bare, out, "--upstream", "wav2vec2", "--config", "tiny")
    assert result.exit_code == 0 and "upstream  wav2vec2, " in result.stdout
    assert same_features(model, Wav2Vec2Upstream.from_checkpoint(out))
    assert "no config called 'huge'" in call(bare, out, "--force", "--config", "huge").output


@pytest.mark.slow
def test_a_name_and_an_address(out: Path) -> None:
    result = call(TINY, out)
    assert result.exit_code == 0 and "used      82 tensors" in result.stdout
    uri = f"package://hubcore_wav2vec2/bundled/{TINY}.safetensors"
    again = out.with_name("again.safetensors")
    assert call(uri, again).exit_code == 0
    assert out.read_bytes() == again.read_bytes()


# What is refused ------------------------------------------------------------------------------------------------------


def test_an_existing_file_is_kept_without_force(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.write_bytes(b"precious")
    result = call(TINY, out)
    assert result.exit_code == 2 and "exists already. Nothing was changed." in result.output
    assert out.read_bytes() == b"precious" and left(out) == ["mine.safetensors"]
    assert call(TINY, out, "--force").exit_code == 0
    assert out.stat().st_size > 1_000_000 and left(out) == ["mine.safetensors"]


def test_a_file_that_appears_meanwhile_is_kept_too(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = module.check_equal

    def slow(*given: Any) -> tuple[int, int]:
        out.write_bytes(b"precious")
        return check(*given)

    monkeypatch.setattr(module, "check_equal", slow)
    result = call(TINY, out)
    assert result.exit_code == 2 and "exists already" in result.output
    assert out.read_bytes() == b"precious" and left(out) == ["mine.safetensors"]


@pytest.mark.slow
def test_without_links_the_file_is_renamed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert call(TINY, out).exit_code == 0
    assert left(out) == ["mine.safetensors"] and out.stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda model: one_bit(model.model.projection.weight), "the weight model.projection.weight differs"),
        (lambda model: setattr(model, "config", other_config(model)), "the features of the fixed clip differ in input"),
    ],
)
def test_a_copy_that_is_not_equal_does_not_appear(
    damage: Any, problem: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Wav2Vec2Upstream.save_checkpoint

    def damaged(self: Wav2Vec2Upstream, path: Path) -> None:
        other = Wav2Vec2Upstream.from_checkpoint(TINY)
        damage(other)
        save(other, path)

    monkeypatch.setattr(Wav2Vec2Upstream, "save_checkpoint", damaged)
    out.write_bytes(b"precious")
    result = call(TINY, out, "--force")
    assert result.exit_code == 2 and f"was not converted: read back, {problem}" in result.output
    assert out.read_bytes() == b"precious" and left(out) == ["mine.safetensors"]


def one_bit(weight: torch.Tensor) -> None:
    """Flips the last bit of a weight's first value."""
    weight.data.view(-1).view(torch.int32)[0] ^= 1


def other_config(model: Wav2Vec2Upstream) -> Any:
    """A config of the same shapes that computes something else."""
    return type(model.config)(**{**vars(model.config), "normalize": not model.config.normalize})


def test_a_damaged_file_is_no_matter_of_families(out: Path, tmp_path: Path) -> None:
    whole = (GOLD / "fairseq_tiny_w2v2_groupnorm.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    result = call(tmp_path / "cut.pt", out)
    assert result.exit_code == 2 and "cut.pt" in result.output and "no installed family" not in result.output
    assert left(out) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([TINY, "out/mine.pt"], "does not end in .safetensors"),
        ([TINY, "nowhere/mine.safetensors"], "there is no folder nowhere"),
        ([TINY, "folder.safetensors"], "it is a folder"),
        (["absent.pt", "mine.safetensors"], "absent.pt does not exist"),
        (["no_such_name", "mine.safetensors"], "no upstream is called 'no_such_name'"),
        ([TINY, "mine.safetensors", "--upstream", "nothing"], "no upstream is called 'nothing'"),
        ([TINY, "mine.safetensors", "--upstream", "fbank"], "computes its features without weights"),
        ([TINY, "mine.safetensors", "--config", "base"], "is not of the config that was asked for"),
        (["fbank", "mine.safetensors"], "needs no checkpoint"),
    ],
)
def test_what_cannot_be_done(arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    result = call(*arguments)
    assert result.exit_code == 2 and problem in result.output
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_family_that_is_not_installed_cannot_convert(
    cards: CardWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards("far: {upstream: faraway, license: x, sources: [{uri: 'hf://org/far'}]}")
    monkeypatch.chdir(tmp_path)
    result = call(TINY, "mine.safetensors", "--upstream", "far")
    assert result.exit_code == 2 and "cannot run here" in result.output and not Path("mine.safetensors").exists()


# Families -------------------------------------------------------------------------------------------------------------


def test_two_families_that_read_a_file_alike_must_be_told_apart(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = current_registry().find("wav2vec2").family
    assert ours is not None
    twin = dataclasses.replace(ours, name="twin")
    monkeypatch.setattr(module, "_readers", lambda: [ours, twin])
    result = call(GOLD / "fairseq_tiny_w2v2_groupnorm.pt", out)
    assert result.exit_code == 2 and "can be read as wav2vec2 and twin" in result.output
    assert left(out) == []


def test_a_broken_plugin_does_not_keep_the_others_from_being_tried(out: Path, install: Any) -> None:
    code = (
        "class Raises:\n    def save_checkpoint(self, path): ...\n    def state_dict(self): ...\n"
        "    @classmethod\n    def from_checkpoint(cls, source):\n        raise RuntimeError('no such luck')\n"
        "class Reads:\n    @classmethod\n    def from_checkpoint(cls, source): ...\n"
    )
    points = "[hubcore.upstreams]\nabsent = acme:Absent\nraises = acme:Raises\nreads = acme:Reads\n"
    install("acme", entry_points=points, files={"acme.py": code})
    assert call(GOLD / "fairseq_tiny_w2v2_groupnorm.pt", out).exit_code == 0
    torch.save({"weight": torch.zeros(3)}, out.parent / "other.pt")
    result = call(out.parent / "other.pt", out, "--force")
    assert result.exit_code == 2 and "raises: RuntimeError: no such luck" in result.output
    assert "reads: acme:Reads of acme has no save_checkpoint and no state_dict, so it cannot convert a file" in result.output


def test_bits_are_compared_not_values() -> None:
    zero, nan = torch.zeros(2), torch.full((2,), float("nan"))
    assert module._same_bits(nan, nan.clone()) and not module._same_bits(zero, -zero)
    assert not module._same_bits(zero, zero.double()) and not module._same_bits(zero, torch.zeros(3))
    assert module._same_bits(torch.tensor(1.0), torch.tensor(1.0))


def test_an_option_of_the_family_is_typed_by_its_class(out: Path) -> None:
    result = call(GOLD / "fairseq_tiny_w2v2_ctc.pt", out, "-O", "dropout=0.25")
    assert result.exit_code == 0, result.output
    assert Wav2Vec2Upstream.from_checkpoint(out).config.dropout == 0.25
    result = call(GOLD / "fairseq_tiny_w2v2_ctc.pt", out, "--force", "-u", "wav2vec2", "-O", "dropuot=0.25")
    assert result.exit_code == 2 and "no option called 'dropuot'. The nearest are dropout" in result.output
