"""Files of the Hugging Face Hub: the real huggingface_hub against a small hub on this machine."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcore.card import Source
from hubcore.errors import CheckpointError, ChecksumError, DownloadError, OfflineError, PluginError
from hubcore.hookspecs import Expectation
from hubcore.registry.reading import read_registry
from hubcore.sources import resolve as sources
from hubcore.sources.hub import hugging_face
from hubcore.sources.hub.cache import hf_cache_dir, orphans
from hubcore.sources.schemes import hubcore_fetch
from tests.faults.cases import Case, Cases
from tests.faults.fake_hub import COMMIT, FakeHub, git_sha1, sha256
from tests.faults.http_server import BODY, SHA256, Answer, running, wait_until
from tests.faults.lab import Lab, a_lab
from tests.paths import REPOSITORY

pytestmark = pytest.mark.slow

cases = Cases()
pytest_generate_tests = cases.generate
OTHER = BODY[::-1]
NAME = "model.safetensors"
TOKEN = "hf_thisIsTheSecretOfThisTest"


class HubLab(Lab):
    """A lab with a hub; `uri` is its one LFS file at a branch, `fixed` at a commit."""

    hub: FakeHub
    uri = f"hf://org/repo@main/{NAME}"
    fixed = f"hf://org/repo@{COMMIT}/{NAME}"

    def load(self, uri: str | None = None, digest: str | None = None, offline: bool = False) -> bytes:
        uri = uri or self.uri
        path = hubcore_fetch(uri, self.cache, offline, Expectation(digest))
        assert path is not None and path.is_relative_to(hf_cache_dir())
        return path.read_bytes()

    @property
    def folder(self) -> Path:
        return hf_cache_dir() / "models--org--repo"

    @property
    def blob(self) -> Path:
        return self.folder / "blobs" / SHA256

    def kept(self) -> list[str]:
        """Blobs and what points to them."""
        found = (path for folder in ("blobs", "snapshots") for path in (self.folder / folder).rglob("*"))
        return sorted(path.relative_to(self.folder).as_posix() for path in found if path.is_symlink() or path.is_file())

    def clear_logs(self) -> None:
        self.hub.log.clear()
        self.server.log.clear()


@contextlib.contextmanager
def a_hub_lab(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[HubLab]:
    with a_lab(folder, monkeypatch, caplog) as lab, running(FakeHub(lab.server)) as hub:
        lab.__class__ = HubLab
        assert isinstance(lab, HubLab)
        lab.hub = hub
        hub.add("org/repo", {NAME: BODY, "config.json": b"{}", "model.bin": b"x"}, (NAME,))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # huggingface_hub waits a second before it asks again.
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", _short_sleep)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
        yield lab


_sleep = time.sleep


def _short_sleep(seconds: float) -> None:
    _sleep(min(seconds, 0.02) if seconds < 10 else seconds)


def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with a_hub_lab(tmp_path, monkeypatch, caplog) as lab:
        case.run(lab)


@cases("nothing, with a token", "the right bytes; the token goes to the hub and not to the server of the bodies")
def case_plain_hub_download(lab: HubLab) -> None:
    lab.monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert lab.load() == BODY
    assert {request.method for request in lab.hub.log} == {"HEAD"} and len(lab.server.log) == 1
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in lab.hub.log)
    assert "authorization" not in lab.server.log[0].headers
    assert lab.kept() == [f"blobs/{SHA256}", f"snapshots/{COMMIT}/{NAME}"]
    assert (lab.folder / "refs/main").read_text() == COMMIT


@cases("a file of a fixed commit that is cached", "no request")
def case_cached_commit(lab: HubLab) -> None:
    assert lab.load(lab.fixed) == BODY
    lab.clear_logs()
    assert lab.load(lab.fixed) == BODY and lab.hub.log == lab.server.log == []


@cases("wrong bytes of the right length", "rejected by our own check, removed, fetched once more; then `ChecksumError`")
def case_wrong_bytes_of_the_hub(lab: HubLab) -> None:
    lab.server.answers(Answer(OTHER), Answer(), path=f"/{SHA256}")
    assert lab.load() == BODY and len(lab.server.log) == 2
    assert "removed and is fetched again" in lab.caplog.text
    lab.blob.unlink()
    lab.server.answers(Answer(OTHER), path=f"/{SHA256}")
    lab.clear_logs()
    with pytest.raises(ChecksumError, match="in two downloads"):
        lab.load()
    assert len(lab.server.log) == 2 and lab.kept() == []
    lab.hub.direct = Answer(b"{ }"[:2][::-1])
    with pytest.raises(ChecksumError, match="git hash"):
        lab.load("hf://org/repo@main/config.json")
    assert lab.kept() == []


@cases("a cached file is cut by something else", "noticed and fetched again; `ChecksumError` when offline")
def case_cached_hub_file_cut(lab: HubLab) -> None:
    for uri in (lab.uri, lab.fixed):
        assert lab.load(uri) == BODY
        os.truncate(lab.blob, 1000)
        with pytest.raises(ChecksumError, match=r"is damaged.*hubcore fetch"):
            lab.load(uri, offline=True)
        assert lab.load(uri) == BODY and lab.blob.stat().st_size == len(BODY)


@cases("a cut at 25 MB", "resumed from the last 10 MiB that were written")
def case_cut_at_the_hub(lab: HubLab) -> None:
    big = random.Random(1).randbytes(26_000_000)
    lab.hub.add("org/repo", {NAME: big}, (NAME,))
    whole = Answer(big, etag=None)
    lab.server.answers(Answer(big, cut=25_000_000, etag=None), whole, path=f"/{sha256(big)}")
    assert lab.load() == big and lab.server.ranges == [None, "bytes=20971520-"]


@cases("a cut, then the file changes", "the spliced file is rejected by its SHA-256 and fetched again")
def case_hub_file_changes(lab: HubLab) -> None:
    big = random.Random(1).randbytes(11_000_000)
    lab.hub.add("org/repo", {NAME: big}, (NAME,))
    lab.server.answers(
        Answer(big[::-1], cut=10_900_000, etag=None), Answer(big, etag=None), path=f"/{sha256(big)}"
    )  # the first 10 MiB of one version, the rest of another
    assert lab.load() == big
    assert lab.server.ranges == [None, "bytes=10485760-", None] and "removed and is fetched again" in lab.caplog.text


SCRIPT = """
import sys
from hubcore.sources import resolve as sources, stamps
print(stamps.file_sha256(sources.resolve(sys.argv[1])))
"""


@contextlib.contextmanager
def process(uri: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", SCRIPT, uri]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=hf_cache_dir().parent
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@cases("kill -9 in the middle", "fetched again from the beginning; `hubcore cache gc` removes what is left over", slow=True)
def case_killed_hub_download(lab: HubLab) -> None:
    big = random.Random(1).randbytes(12_000_000)
    lab.hub.add("org/repo", {NAME: big}, (NAME,))
    lab.server.answers(Answer(big, stall=11_000_000), Answer(big), path=f"/{sha256(big)}")
    with process(lab.uri) as child:
        wait_until(lambda: any(path.stat().st_size > 10_000_000 for path in lab.folder.glob("blobs/*.incomplete")))
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert lab.load() == big and lab.server.ranges == [None, None]
    assert orphans(hf_cache_dir()) == []  # it is not a day old
    (left,) = orphans(hf_cache_dir(), older_than=0)
    assert left.name.startswith(sha256(big)) and left.name.endswith(".incomplete")


@cases("a hub that names a blob `/abs/path` or `../../../../x`", "refused before anything is written")
def case_etag_is_a_path(lab: HubLab) -> None:
    outside = hf_cache_dir().parent
    before = sorted(outside.rglob("*"))
    for name in (str(outside / "evil"), "../../../../evil", "..", "", "a" * 63, "A" * 64):
        lab.hub.headers = {"X-Linked-Etag": f'"{name}"' if name else "", "ETag": ""}
        with pytest.raises(DownloadError, match=r"Nothing was written|not as the hub does"):
            lab.load()
    assert sorted(outside.rglob("*")) == before and lab.server.log == []


@cases("a revision `../../../x`", "refused before any request")
def case_revision_is_a_path(lab: HubLab) -> None:
    for revision in ("../../../x", "..", ".", "a/../b", "refs/../x", "refs%2F..%2Fx", "%2e%2e", "a\\b", "a b", "refs/pr/1/.."):
        with pytest.raises(DownloadError, match="not of the form"):
            lab.load(f"hf://org/repo@{revision}/{NAME}" if revision[-3:] != "/.." else f"hf://org/repo@{revision}")
    assert lab.hub.log == [] and lab.kept() == []


@cases("a commit that is a path", "refused before anything is written")
def case_commit_is_a_path(lab: HubLab) -> None:
    for commit in ("../../../evil", "main", "0" * 39, "/evil"):
        lab.hub.headers = {"X-Repo-Commit": commit}
        with pytest.raises(DownloadError, match="Nothing was written"):
            lab.load()
    assert lab.kept() == [] and not lab.folder.exists()


@cases("a file `../x` or `/etc/passwd`, a repository `../o/x`", "refused before any request")
def case_names_are_paths(lab: HubLab) -> None:
    for uri in (
        "hf://org/repo@main/../x",
        "hf://org/repo//etc/passwd",
        "hf://../o/x",
        "hf://org/../x/y",
        "hf://org/repo/a/../../x",
        "hf://org",
        "hf://org/re--po/x",
        f"hf://org/repo/{'a' * 2000}",
        f"hf://org/repo/{'a' * 256}",
        f"hf://org/{'a' * 250}/x",
    ):
        with pytest.raises(DownloadError, match="not of the form"):
            lab.load(uri)
    assert lab.hub.log == [] and not lab.folder.exists()


@cases("a login page of a hotel answers instead of the hub", "an error that says so, nothing kept")
def case_captive_portal(lab: HubLab) -> None:
    lab.hub.always = (200, {"Content-Type": "text/html", "ETag": '"abc"'})
    with pytest.raises(DownloadError, match=r"not as the hub does.*login page"):
        lab.load()
    assert lab.kept() == [] and lab.server.log == []


@cases("401 or 500, and a copy is cached", "that copy, and a warning that it may be old")
def case_cached_copy_after_an_error(lab: HubLab) -> None:
    assert lab.load() == BODY
    for status in (401, 500):
        lab.caplog.clear()
        lab.hub.always = (status, {})
        assert lab.load() == BODY
        assert "may be old" in lab.caplog.text and str(status) in lab.caplog.text
    assert lab.waits == []


@cases("the hub cannot be reached", "a cached file at once; a missing one is an error within half a minute")
def case_hub_is_dead(lab: HubLab) -> None:
    assert lab.load() == BODY
    lab.monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert lab.load() == BODY and lab.waits == []
    with pytest.raises(DownloadError, match=r"cannot be fetched.*Check the network"):
        lab.load("hf://org/repo@main/config.json")
    assert sum(lab.waits) < 30


@cases("a revision `refs/pr/1`", "understood")
def case_pull_request(lab: HubLab) -> None:
    lab.hub.repositories["org/repo"].revisions = ("main", "refs/pr/1")
    for revision in ("refs/pr/1", "refs%2Fpr%2F1"):
        assert lab.load(f"hf://org/repo@{revision}/{NAME}") == BODY
    assert all("/resolve/refs%2Fpr%2F1/" in line for line in lab.hub.asked)
    lab.monkeypatch.setenv("HUBCORE_OFFLINE", "1")
    assert sources.resolve(f"hf://org/repo@refs/pr/1/{NAME}").read_bytes() == BODY


@cases("four processes want one file", "one body is sent", slow=True)
def case_four_processes_at_the_hub(lab: HubLab) -> None:
    lab.server.answers(Answer(rate=600_000), path=f"/{SHA256}")
    lab.folder.parent.mkdir()
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process(lab.uri)) for _ in range(4)]
        outputs = [child.communicate(timeout=30) for child in children]
    assert [out.strip() for out, _ in outputs] == [SHA256] * 4, outputs
    assert len(lab.server.log) == 1 and lab.kept() == [f"blobs/{SHA256}", f"snapshots/{COMMIT}/{NAME}"]


@cases("a gated or private repository", "the page where to accept the terms, or how to log in; no token is ever shown")
def case_gated(lab: HubLab) -> None:
    said = []
    logger = logging.getLogger("huggingface_hub")
    lab.monkeypatch.setattr(logger, "propagate", True)
    lab.monkeypatch.setattr(logger, "level", logging.DEBUG)
    lab.caplog.set_level(logging.DEBUG)
    for token, facts, message in (
        (None, {"gated": True}, f"is gated.*{lab.hub.url}/org/repo"),
        (TOKEN, {"gated": True}, f"is gated.*{lab.hub.url}/org/repo"),
        (None, {"private": True}, "no such repository, or it is private.*hf auth login"),
    ):
        lab.hub.add("org/repo", {NAME: BODY}, (NAME,), **facts)
        if token:
            lab.monkeypatch.setenv("HF_TOKEN", token)
        else:
            lab.monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(DownloadError, match=message) as caught:
            lab.load()
        said.append(str(caught.value))
    lab.monkeypatch.setenv("HF_TOKEN", TOKEN)
    lab.hub.add("org/repo", {NAME: BODY}, (NAME,))
    lab.hub.faults = [(401, {"X-Error-Message": f"bad {TOKEN}"})]
    with pytest.raises(DownloadError, match=r"log in|log in \\(401\\)|auth login") as caught:
        lab.load()
    said.append(str(caught.value))
    with pytest.raises(DownloadError, match="no revision 'none'"):
        lab.load(f"hf://org/repo@none/{NAME}")
    assert lab.load() == BODY
    logged = [record.getMessage() for record in lab.caplog.records if record.name.startswith(("hubcore", "huggingface_hub"))]
    assert len(logged) > 10 and TOKEN not in "".join(said + logged)
    assert hugging_face._without_token(f"a {TOKEN} b") == "a *** b"


@cases(
    "a whole model, loaded by transformers from the folder that hubcore fetched", "the same output to the last bit", slow=True
)
def case_whole_model_for_transformers(lab: HubLab) -> None:
    import torch
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,), conv_kernel=(10,),
        conv_stride=(5,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Wav2Vec2Model(config).eval()
    folder = hf_cache_dir().parent / "original"
    model.save_pretrained(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    lab.hub.add("org/tiny", files, (NAME,))
    copy = transformers.AutoModel.from_pretrained(sources.resolve("hf://org/tiny")).eval()
    with torch.inference_mode():
        wav = torch.sin(torch.arange(400.0))[None]
        assert torch.equal(copy(wav).last_hidden_state, model(wav).last_hidden_state)


@cases("a card promises safetensors, and the hub has none", "an error; another file is never taken silently")
def case_no_safetensors_at_the_hub(lab: HubLab) -> None:
    lab.hub.add("org/repo", {"pytorch_model.bin": BODY, "config.json": b"{}"})
    with pytest.raises(DownloadError, match="has no such file"):
        lab.fetch(Source(lab.uri))
    assert not any("pytorch_model" in line for line in lab.hub.asked) and lab.kept() == []


@cases("a body that comes a byte now and then", "given up after two minutes below 1 KiB a second")
def case_dripping_hub(lab: HubLab) -> None:
    lab.monkeypatch.setattr(hugging_face, "STALLED_AFTER", 0.3)
    lab.server.answers(Answer(BODY, drip=0.02), path=f"/{SHA256}")
    with pytest.raises(DownloadError, match=r"only \d+ bytes were received from the hub"):
        lab.load()


@cases("an index of 100,000 shards", "refused before any is asked for")
def case_endless_shards(lab: HubLab) -> None:
    index = {"weight_map": {f"w{number}": f"{number}.safetensors" for number in range(100_000)}}
    lab.hub.add("org/many", {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()})
    with pytest.raises(DownloadError, match="names 100000 shards"):
        sources.fetch_source(Source("hf://org/many"))
    assert not any(".safetensors" in line and "index" not in line and "model" not in line for line in lab.hub.asked)


@cases("429 with a huge `Retry-After` for the body", "given up after two minutes without a byte")
def case_retry_after_of_the_hub(lab: HubLab) -> None:
    lab.monkeypatch.setattr(hugging_face, "STALLED_AFTER", 0.3)
    lab.server.answers(Answer(status=429, headers={"Retry-After": "99999"}), path=f"/{SHA256}")
    began = time.monotonic()
    with pytest.raises(DownloadError, match="only 0 bytes were received from the hub"):
        lab.load()
    assert time.monotonic() - began < 10 and lab.kept()[:1] != [f"blobs/{SHA256}"]


@cases("a gzip body that unfolds to 300 MB", "stopped at the announced size, nothing kept")
def case_gzip_body_of_the_hub(lab: HubLab) -> None:
    lab.hub.direct = Answer(gzip.compress(bytes(300_000_000), 9), headers={"Content-Encoding": "gzip"})
    written: list[int] = []
    real = hugging_face._Watch.count

    def count(self: object, number: float | None) -> None:
        written.extend(path.stat().st_size for path in lab.folder.glob("blobs/*.incomplete"))
        real(self, number)  # type: ignore[arg-type]

    lab.monkeypatch.setattr(hugging_face._Watch, "count", count)
    with pytest.raises(DownloadError, match="more than the 2 bytes"):
        lab.load("hf://org/repo@main/config.json")
    assert written and max(written) < 30_000_000 and lab.kept() == []


@cases("a card names a branch such as `main`", "allowed, as published cards do; pinned at the first fetch, a change is refused")
def case_branch_in_a_card(lab: HubLab) -> None:
    assert lab.fetch(Source(lab.uri)).read_bytes() == BODY
    lab.clear_logs()
    assert lab.fetch(Source(lab.uri)).read_bytes() == BODY and lab.hub.log == []
    lab.hub.add("org/repo", {NAME: OTHER}, (NAME,), commit="d" * 40)
    assert lab.fetch(Source(lab.uri)).read_bytes() == BODY
    (lab.folder / "snapshots" / COMMIT / NAME).unlink()
    with pytest.raises(ChecksumError, match=r"at its first download here(.|\n)*hubcore cache rm"):
        lab.fetch(Source(lab.uri))
    assert lab.server.log == []
    card = f"version: 1\nupstreams:\n  a:\n    upstream: wav2vec2\n    license: MIT\n    sources: [{{uri: '{lab.uri}'}}]\n"
    (lab.cache.parent / "cards.yaml").write_text(card)
    assert len(read_registry(lab.cache.parent / "cards.yaml")[0]) == 1


@cases("`HF_ENDPOINT` is plain http on another machine", "refused, no request")
def case_endpoint_elsewhere(lab: HubLab) -> None:
    for endpoint in ("http://example.org", "ftp://127.0.0.1", "https://user:word@example.org"):
        lab.monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(DownloadError, match="HF_ENDPOINT is not acceptable"):
            lab.load()
    assert lab.hub.log == []


@cases("503 twice", "asked again, the right bytes")
def case_hub_unavailable(lab: HubLab) -> None:
    lab.hub.faults = [(503, {}), (503, {})]
    assert lab.load() == BODY and len(lab.waits) == 2


# What no case names ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[HubLab]:
    with a_hub_lab(tmp_path, monkeypatch, caplog) as made:
        yield made


def test_a_wrong_digest_on_the_hub_is_refused_before_it_is_fetched(lab: HubLab) -> None:
    with pytest.raises(ChecksumError, match="Nothing was fetched"):
        lab.load(digest="0" * 64)
    assert lab.server.log == []


def test_a_card_takes_the_copy_of_its_digest_from_any_commit(lab: HubLab) -> None:
    assert lab.load() == BODY
    lab.hub.add("org/repo", {NAME: OTHER}, (NAME,), commit="d" * 40)
    assert lab.load() == OTHER
    lab.clear_logs()
    assert lab.load(digest=SHA256) == BODY and lab.hub.log == []


def test_shards_are_fetched_and_their_names_checked(lab: HubLab) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()}
    lab.hub.add("org/repo", {**files, "model-1.safetensors": b"one", "model-2.safetensors": b"two"})
    folder = sources.resolve("hf://org/repo")
    assert sorted(path.name for path in folder.glob("model-*")) == ["model-1.safetensors", "model-2.safetensors"]
    index["weight_map"]["b"] = "../../x.bin"
    lab.hub.add("org/bad", {**files, "model.safetensors.index.json": json.dumps(index).encode()})
    with pytest.raises(DownloadError, match="not a file beside it"):
        sources.resolve("hf://org/bad")
    texts = ("[" * 100_000, '{"weight_map": {"a": "%s.safetensors"}}' % ("x" * 5000), '{"weight_map": {"a": [1], "b": 2}}', "{")
    for number, text in enumerate(texts):
        lab.hub.add(f"org/odd{number}", {**files, "model.safetensors.index.json": text.encode()})
        with pytest.raises(DownloadError, match=r"model\.safetensors\.index\.json (names the shard|is not an index)") as caught:
            sources.resolve(f"hf://org/odd{number}")
        assert not isinstance(caught.value, PluginError) and len(str(caught.value)) < 1000
    lab.hub.add("org/none", {"config.json": b"{}"})
    with pytest.raises(DownloadError, match=r"none of model\.safetensors"):
        sources.resolve("hf://org/none")


def test_the_hub_file_of_git_has_gits_hash(lab: HubLab) -> None:
    assert lab.load("hf://org/repo@main/config.json") == b"{}"
    assert (lab.folder / "blobs" / git_sha1(b"{}")).exists()


def test_offline_names_the_file_and_the_command(lab: HubLab) -> None:
    with pytest.raises(OfflineError, match=f"{lab.uri} is not in the cache .*`hubcore fetch {lab.uri}`"):
        lab.load(offline=True)
    with pytest.raises(CheckpointError, match="needs no checkpoint"):
        sources.resolve("fbank")
    assert lab.hub.log == []


def test_a_blob_in_the_store_that_repositories_share_is_checked_by_its_own_name(lab: HubLab) -> None:
    assert lab.load() == BODY
    shared = hf_cache_dir() / "blobs" / "0f" / ("0f" * 32)
    shared.parent.mkdir(parents=True)
    lab.blob.rename(shared)
    lab.blob.symlink_to(os.path.relpath(shared, lab.blob.parent))
    assert lab.load(offline=True) == BODY
    shared.write_bytes(OTHER)
    with pytest.raises(ChecksumError, match="the hub says"):
        lab.load(offline=True)
    assert lab.load() == BODY and not shared.exists()


def test_another_version_in_the_hubs_cache_is_neither_used_nor_removed(lab: HubLab) -> None:
    lab.hub.add("org/repo", {NAME: OTHER}, (NAME,))
    assert lab.load() == OTHER
    before = lab.kept()
    with pytest.raises(ChecksumError, match="another version of the file"):
        lab.load(digest=SHA256, offline=True)
    with pytest.raises(ChecksumError, match="Nothing was fetched"):
        lab.load(digest=SHA256)
    assert lab.kept() == before
