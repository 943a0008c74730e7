"""`hubcore verify`: what it compares, what it reports, and that nothing it finds stops it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from hubcore import hub
from hubcore.card import Card, Source
from hubcore.findings import Finding
from hubcore.protocol import UpstreamOutput
from hubcore.registry.names import Entry, Registry, current_registry
from hubcore.sources import resolve as sources
from hubcore.sources import stamps
from hubcore.tools.verify import compare_features, fixed_clip, verify_entry, why_dead
from tests.conftest import CardWriter
from tests.faults.http_server import Answer
from tests.faults.lab import Lab, a_lab
from tests.faults.test_hugging_face import HubLab, a_hub_lab
from tests.running import command

pytestmark = pytest.mark.slow

TINY = "wav2vec2_tiny_prompts"
BODY = sources.resolve(TINY).read_bytes()
SHA256 = hashlib.sha256(BODY).hexdigest()
FIXED = [-0.0094458712, -0.0014915928, -0.0060462067, -0.0156947598]
FIXED_RMS = 0.030565813


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    with a_lab(tmp_path, monkeypatch, caplog) as made:
        yield made


call = partial(command, "verify")


def entry(*given: Source, name: str = "a_card", config: str | None = "tiny", **options: Any) -> Entry:
    family = current_registry().find(TINY).family
    return Entry(name, "user", Card(name, "wav2vec2", "MIT", config=config, sources=given, options=options), family)


def use(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    monkeypatch.setattr("hubcore.registry.names.current_registry", lambda: Registry(entries=list(entries)))


def write_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **records: str) -> None:
    lines = "".join(f"  {name}: {{upstream: wav2vec2, license: MIT, {rest}}}\n" for name, rest in records.items())
    (tmp_path / "cards.yaml").write_text(f"version: 1\nupstreams:\n{lines}")
    (tmp_path / "tiny.safetensors").write_bytes(BODY)
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "cards.yaml"))


# What is fine ---------------------------------------------------------------------------------------------------------


def test_the_bundled_names_are_what_their_cards_say() -> None:
    result = call("fbank", TINY, "ofa_wav2vec2_tiny_prompts")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "name", "source", "bytes", "sha256", "checksum", "config", "layers", "weights", "batch-mates", "seconds", "verdict"
    ]  # fmt: skip
    fbank, tiny, ofa = (line.split() for line in lines[2:5])
    assert fbank[:7] == ["fbank", "-", "-", "-", "-", "fbank", "1"] and fbank[-1] == "ok"
    package = f"package://hubcore_wav2vec2/bundled/{TINY}.safetensors"
    assert tiny[:11] == [TINY, package, str(len(BODY)), SHA256[:12], "published", "tiny", "5", "82", "used,", "8", "ignored"]
    assert float(tiny[-3]) <= 2e-5 and tiny[-1] == ofa[-1] == "ok"
    assert lines[-1] == "3 ok, 0 failed, 0 not verified; 0 of 0 links dead"
    assert result.stderr.splitlines() == [
        "1 of 3: fbank: ok", f"2 of 3: {TINY}: ok", "3 of 3: ofa_wav2vec2_tiny_prompts: ok"
    ]  # fmt: skip


HEADS = [
    "mask_embedding",
    *(f"{module}.{part}" for module in ("project_predictions", "project_targets") for part in ("bias", "weight")),
    "quantizer.codebook",
    *(f"quantizer.logits.{part}" for part in ("bias", "weight")),
]


def test_json_has_every_value() -> None:
    result = call(TINY, "--json")
    data = json.loads(result.stdout)
    (row,) = data["results"]
    assert data["dead_links"] == [] and row["problems"] == []
    assert (row["sha256"], row["bytes"], row["frames"], row["ignored"]) == (SHA256, len(BODY), 149, HEADS)
    assert row["links"][0]["cached"] is True and row["links"][0]["reachable"] is None
    assert row["class_path"] == "hubcore_wav2vec2.upstream:Wav2Vec2Upstream"


def test_the_fixed_clip_never_changes() -> None:
    # Features that somebody publishes one day are those of these samples.
    wav = fixed_clip(16000)
    assert wav.shape == (48000,) and wav.dtype == torch.float32
    samples = [wav[i].item() for i in (0, 100, 24000, 47999)]
    assert samples == pytest.approx(FIXED, abs=1e-6)
    assert float(wav.double().square().mean().sqrt()) == pytest.approx(FIXED_RMS, abs=1e-6)


# What is not ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("config: base, sources: [{uri: tiny.safetensors}]", "is not of the config that was asked for: "),
        ("sources: [{uri: tiny.safetensors, sha256: " + "a" * 64 + "}]", "must have aaaaaa"),
        ("sources: [{uri: tiny.safetensors, size: 7}]", f"has {len(BODY)} bytes, but"),
        ("sources: [{uri: absent.safetensors}]", "absent.safetensors does not exist"),
        ("sources: [{uri: cards.yaml}]", "cards.yaml"),
    ],
)
def test_a_wrong_card_fails_and_the_others_go_on(
    card: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path, monkeypatch, wrong=card, right="config: tiny, sources: [{uri: tiny.safetensors}]")
    result = call("wrong", "right")
    assert result.exit_code == 1, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.startswith(("wrong ", "right "))}
    assert rows["wrong"][-1] == "failed" and rows["right"][-1] == "ok" and rows["right"][4] == "none"
    assert "- wrong: " in result.stdout and problem in result.stdout
    assert "1 ok, 1 failed, 0 not verified" in result.stdout


def test_options_of_the_card_may_change_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{upstream: fbank, config: fbank, license: none needed, options: {num_mel_bins: 40}}"
    (tmp_path / "cards.yaml").write_text(f"version: 1\nupstreams:\n  fbank40: {text}\n")
    monkeypatch.setenv("HUBCORE_REGISTRY", str(tmp_path / "cards.yaml"))
    assert call("fbank40").exit_code == 0
    found = current_registry().find("fbank40")
    assert found.card is not None
    monkeypatch.setattr("hubcore.tools.verify.build_upstream", lambda *_: hub.load("fbank"))
    result = verify_entry(found)
    assert result.verdict == "failed" and "its config is not 'fbank' as its card says" in result.problems[0]


def test_another_class_than_the_families_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.tools.verify.build_upstream", lambda *_: hub.load("fbank"))
    assert "it is a FbankUpstream, but must be a hubcore_wav2vec2" in " ".join(
        verify_entry(current_registry().find(TINY)).problems
    )


def test_every_byte_is_read_whatever_the_stamp_says(lab: Lab) -> None:
    source = Source(lab.server.answers(Answer(BODY)), SHA256, len(BODY))
    assert verify_entry(entry(source)).verdict == "ok"
    stored = lab.cache / "files" / f"sha256-{SHA256}"
    stored.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    stamps.write_stamp(stored, source.uri, SHA256)
    found = verify_entry(entry(source))
    assert found.verdict == "failed" and found.sha256 != SHA256
    assert f"must have {SHA256} (published): it was changed on this disk" in found.problems[0]


@pytest.mark.slow
def test_whose_checksum_it_was(lab: Lab) -> None:
    url = lab.server.answers(Answer(BODY))
    first, second = verify_entry(entry(Source(url))), verify_entry(entry(Source(url)))
    assert (first.checksum, first.links[0].cached, second.checksum, second.links[0].cached) == ("none", False, "pinned", True)
    assert first.verdict == second.verdict == "ok" and first.sha256 == second.sha256 == SHA256 and second.source == url


def test_a_broken_plugin_fails_alone(install: Any) -> None:
    code = (
        "class Broken:\n    @classmethod\n    def from_config(cls, config=None):\n        raise SystemError('no such luck')\n"
    )
    install("acme-broken", entry_points="[hubcore.upstreams]\nbroken = acme_broken:Broken\n", files={"acme_broken.py": code})
    result = call("broken", "fbank")
    assert result.exit_code == 1
    assert "- broken: SystemError: no such luck" in result.stdout and "1 ok, 1 failed" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--all", "fbank"], ["fbnk"], ["fbank", "no_such_name"]])
def test_bad_usage(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and not result.stdout


# Links ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dead_link_is_reported_although_a_mirror_works(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, good = lab.server.url("/dead"), lab.server.answers(Answer(BODY), path="/good")
    use(monkeypatch, entry(Source(dead, SHA256), Source(good, SHA256, len(BODY))))
    result = call("--all")
    assert result.exit_code == 1
    assert (
        result.stdout.splitlines()[2].split()[:2] == ["a_card", good]
        and "1 ok, 0 failed, 0 not verified; 1 of 2 links dead" in result.stdout
    )
    assert f"dead links:\n- a_card: {dead} answered 404" in result.stdout
    (link,) = json.loads(call("--all", "--json").stdout)["dead_links"]
    assert (link["name"], link["uri"]) == ("a_card", dead) and "answered 404" in link["problem"]
    lab.server.answers(Answer(BODY), path="/dead")
    assert call("--all").exit_code == 0


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(status=404), "answered 404"),
        (Answer(status=403), "answered 403"),
        (Answer(status=500), "failed 5 times, last because the server answered 500"),
        (Answer(b"<!DOCTYPE html><title>Sign in</title>" + b" " * 200), "gave an HTML page"),
        (Answer(b"<html>gone</html>"), "gave an HTML page"),
        (Answer(BODY[:1000]), f"announces 1000 bytes, but its card says {len(BODY)}"),
        (Answer(status=302, headers={"Location": "ftp://example.org/a"}), "which is not followed"),
    ],
)
def test_why_a_link_is_dead(answer: Answer, problem: str, lab: Lab) -> None:
    size = None if "page" in problem else len(BODY)
    reason = why_dead(Source(lab.server.answers(answer), SHA256, size))
    assert reason is not None and problem in reason
    assert not any(path.name.startswith(".probe") for path in lab.cache.iterdir())


def test_a_link_is_asked_for_its_first_bytes_only(lab: Lab) -> None:
    source = Source(lab.server.answers(Answer(endless=True)), SHA256)
    assert why_dead(source) is None and len(lab.server.log) == 1
    assert lab.files() == [] and not any(path.name.startswith(".probe") for path in lab.cache.iterdir())
    assert "is not encrypted" in str(why_dead(Source("http://example.org/model.pt")))


def test_a_cache_that_cannot_be_written_says_nothing_about_a_link(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.cache.parent / "file").touch()
    monkeypatch.setenv("HUBCORE_CACHE", str(lab.cache.parent / "file"))
    assert why_dead(Source(lab.server.answers(Answer(BODY)), SHA256)) is None


def test_links_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_hub_lab(tmp_path, monkeypatch, caplog) as hub_lab:
        assert isinstance(hub_lab, HubLab)
        hub_lab.hub.add("org/tiny", {"tiny.safetensors": BODY, "config.json": b"{}"}, ("tiny.safetensors",))
        uri = "hf://org/tiny@main/tiny.safetensors"
        found = verify_entry(entry(Source(uri, SHA256, len(BODY)), Source("hf://org/tiny@main/absent.pt")))
        assert found.verdict == "ok" and found.source == uri and found.checksum == "published"
        assert [link.reachable for link in found.links] == [True, False]
        assert "has no such file" in str(found.dead_links[0].problem)
        assert why_dead(Source("hf://org/tiny")) is None
        assert "must have " + "0" * 64 in str(why_dead(Source(uri, "0" * 64)))
        assert "must have 7" in str(why_dead(Source(uri, None, 7)))
        assert "no such repository" in str(why_dead(Source("hf://org/nothing/a.pt")))
        assert "is not of the form" in str(why_dead(Source("hf://nonsense")))
        hub_lab.hub.faults = [(503, {}), (503, {})]
        assert why_dead(Source(uri)) is None
        hub_lab.hub.always = (503, {})
        assert "the hub answered 503" in str(why_dead(Source(uri)))


# Offline --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a socket was used")

    monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_sockets")
def test_offline_a_name_is_verified_or_not_here() -> None:
    result = call("wav2vec2_base_960", TINY)
    assert result.exit_code == 1
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()[-1:] in (["ok"], ["here"])}
    assert rows[TINY][-1] == "ok" and rows["wav2vec2_base_960"][-2:] == ["not", "here"]
    assert "1 ok, 0 failed, 1 not verified; 0 of 0 links dead" in result.stdout
    assert "`hubcore fetch wav2vec2_base_960`" in result.stdout


@pytest.mark.usefixtures("no_sockets")
def test_offline_all_is_no_failure(cards: CardWriter) -> None:
    cards("far: {upstream: faraway, license: x, sources: [{uri: 'hf://org/far'}]}")
    result = call("--all", "--json")
    assert result.exit_code == 0, result.stderr
    verdicts = {row["name"]: row["verdict"] for row in json.loads(result.stdout)["results"]}
    assert set(verdicts) == {entry.name for entry in current_registry().entries if entry.card}
    assert verdicts["far"] == verdicts["wav2vec2_custom"] == "unavailable"
    assert verdicts["xlsr_53"] == "not here"
    assert {name for name, verdict in verdicts.items() if verdict == "ok"} >= {TINY, "fbank", "ofa_wav2vec2_tiny_prompts"}
    assert "failed" not in verdicts.values()
    assert call("far").exit_code == 1


def test_all_spells_out_contested_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = entry(Source(f"package://hubcore_wav2vec2/bundled/{TINY}.safetensors", SHA256))
    both = [ours, dataclasses.replace(ours, owner="acme")]
    registry = Registry(entries=both, problems=[Finding("cards.yaml is broken.", "Fix it.", owner="user")])
    monkeypatch.setattr("hubcore.registry.names.current_registry", lambda: registry)
    result = call("--all", "--json")
    assert result.exit_code == 0, result.stderr
    assert [row["name"] for row in json.loads(result.stdout)["results"]] == ["user:a_card", "acme:a_card"]
    assert "1 problem in the registry itself; `hubcore doctor`" in result.stderr


# The features ---------------------------------------------------------------------------------------------------------


class Broken:
    """A loaded upstream whose outputs are changed on their way out."""

    def __init__(self, change: Callable[[UpstreamOutput], UpstreamOutput]) -> None:
        self._upstream, self._change = hub.load(TINY), change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream, name)

    def __call__(self, *given: Any, **options: Any) -> UpstreamOutput:
        return self._change(self._upstream(*given, **options))


def spoilt(value: float) -> Callable[[UpstreamOutput], UpstreamOutput]:
    """Changes one value of block 3, of the second utterance of a batch."""

    def change(out: UpstreamOutput) -> UpstreamOutput:
        if len(out.lengths) > 1:
            out.hidden_states[3][1, 10, 5] += value * out.hidden_states[3][1].abs().max()
        return out

    return change


def without_a_layer(out: UpstreamOutput) -> UpstreamOutput:
    return dataclasses.replace(out, hidden_states=out.hidden_states[:-1], layer_names=out.layer_names[:-1])


def infinite(out: UpstreamOutput) -> UpstreamOutput:
    out.hidden_states[2][0, 3, 4] = float("inf")
    return out


@pytest.mark.parametrize(
    ("change", "gap", "wrong"),
    [
        (spoilt(0.0), 0.0, None),
        (spoilt(1e-3), 1e-3, "in a batch, compared with alone: utterance 1 (149 frames), layer 3 (block_3) differs by"),
        (spoilt(float("nan")), float("inf"), "layer 3 (block_3) has values that are not finite, first at frame 10"),
        (without_a_layer, 0.0, "4 hidden states came back, but layer_names has 5"),
        (infinite, float("inf"), "the fixed clip: layer 2 (block_2) is not finite in 1 value"),
    ],
)
def test_features_that_break_the_contract_are_noticed(change: Any, gap: float, wrong: str | None) -> None:
    upstream: Any = Broken(change)
    alone, worst, found = compare_features(upstream)
    assert int(alone.lengths[0]) == 149 and worst == pytest.approx(gap, rel=0.05, abs=2e-5)
    assert (wrong is None and not found) or (wrong is not None and wrong in found[0])
