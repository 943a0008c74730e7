"""`install` puts the interface under the name `s3prl`, and a frontend that calls s3prl as ESPnet does runs on it unchanged."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubcore
from hubcore.compat import s3prl as compat
from hubcore.errors import OptionError, PluginError
from tests.gold import gold_file
from tests.paths import REPOSITORY
from tests.running import python

pytestmark = pytest.mark.slow

TINY, OFA = "wav2vec2_tiny_prompts", "ofa_wav2vec2_tiny_prompts"
GOLD = {"upstream": "wav2vec2", "path_or_url": str(gold_file("fairseq_tiny_w2v2_groupnorm.pt"))}
HUBERT = {"upstream": "hubert_local", "path_or_url": str(gold_file("upstreams/hubert_tiny.s3prl.pt"))}
WAVLM = {"upstream": "wavlm_local", "path_or_url": str(gold_file("upstreams/wavlm_tiny_large_style.pt"))}
RUN = """\
from hubcore.compat.s3prl import install
install()
import runpy
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture(autouse=True)
def _not_installed() -> Iterator[None]:
    compat.uninstall()
    yield
    compat.uninstall()
    assert not [name for name in sys.modules if name.partition(".")[0] == "s3prl"]


def run_frontends(settings: list[dict[str, object]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the frontend's file, unmodified, in a fresh interpreter in which only `install()` was called."""
    script = RUN.format(script=str(Path(__file__).with_name("espnet_frontend.py")))
    return python("-W", "error", "-c", script, json.dumps(settings), cwd=folder, code=None)


@pytest.mark.slow
def test_a_frontend_that_calls_s3prl_as_espnet_does(tmp_path: Path) -> None:
    ofa = {"upstream": OFA, "extra_conf": {"frame_period_ms": 40}}
    nominal = {"upstream": TINY, "extra_conf": {"frames": "s3prl"}}
    cases: list[tuple[dict[str, object], dict[str, object]]] = [
        ({"frontend_conf": GOLD, "multilayer_feature": True}, {"shape": [2, 49, 48], "lengths": [49, 28], "hop_length": 320}),
        ({"frontend_conf": {"upstream": TINY}, "multilayer_feature": True}, {"shape": [2, 49, 96], "lengths": [49, 28]}),
        ({"frontend_conf": {"upstream": TINY}}, {"shape": [2, 49, 96], "lengths": [49, 28], "hop_length": 320}),
        ({"frontend_conf": {"upstream": TINY, "normalize": True}, "layer": 2}, {"shape": [2, 49, 96], "lengths": [49, 28]}),
        ({"frontend_conf": {"upstream": TINY, "tile_factor": 2}}, {"shape": [2, 98, 96], "lengths": [49, 28]}),
        ({"frontend_conf": nominal, "multilayer_feature": True}, {"shape": [2, 50, 96], "lengths": [50, 30]}),
        ({"frontend_conf": HUBERT, "multilayer_feature": True}, {"shape": [2, 49, 32], "lengths": [49, 28], "hop_length": 320}),
        ({"frontend_conf": WAVLM, "multilayer_feature": True}, {"shape": [2, 49, 32], "lengths": [49, 28], "hop_length": 320}),
        ({"frontend_conf": WAVLM, "layer": 1}, {"shape": [2, 49, 32], "lengths": [49, 28], "hop_length": 320}),
        ({"frontend_conf": ofa, "multilayer_feature": True}, {"lengths": [24, 14], "hop_length": 640}),
        ({"frontend_conf": {"upstream": "fbank"}, "multilayer_feature": True}, {"shape": [2, 98, 240], "lengths": [98, 56]}),
    ]
    for settings, _ in cases:
        settings["download_dir"] = "s3prl_hub"
    done = run_frontends([settings for settings, _ in cases], tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) == len(cases)
    for (settings, wanted), got in zip(cases, results, strict=True):
        name = settings["frontend_conf"]["upstream"]  # type: ignore[index]
        assert {key: got[key] for key in wanted} == wanted, settings
        assert got["batch_error"] <= 2e-5 and got["loss_is_finite"] and got["restored"], settings
        if "tile_factor" not in settings["frontend_conf"]:  # type: ignore[operator]
            assert got["beyond"] == 0
        assert got["weights"] == (name != "fbank")
        assert got["moved_weights"] == (bool(settings.get("multilayer_feature")) and name != "fbank"), settings
        assert (got["moved_upstream"] > 20) == (got["saved"] > 20) == (name != "fbank"), settings


@pytest.mark.slow
def test_a_variable_frame_rate_tells_espnet_what_to_set(tmp_path: Path) -> None:
    done = run_frontends([{"frontend_conf": {"upstream": OFA}}], tmp_path)
    assert done.returncode == 1
    assert "OptionError" in done.stderr and "Set a mean with an option of this upstream" in done.stderr


@pytest.mark.slow
def test_an_unknown_upstream_is_refused_by_the_frontends_own_check(tmp_path: Path) -> None:
    done = run_frontends([{"frontend_conf": {"upstream": "wav2vec3"}}], tmp_path)
    assert done.returncode == 1 and "AssertionError" in done.stderr


def test_every_module_is_a_module() -> None:
    compat.install()
    for name in (
        "s3prl",
        "s3prl.nn",
        "s3prl.nn.upstream",
        "s3prl.hub",
        "s3prl.util",
        "s3prl.util.download",
        "s3prl.upstream",
        "s3prl.upstream.interfaces",
    ):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.name == name
        module = importlib.import_module(name)
        assert module.__name__ == name and module.__spec__ is spec and not hasattr(module, "__file__")
    import s3prl
    import s3prl.hub
    from s3prl.nn import Featurizer, S3PRLUpstream
    from s3prl.upstream.interfaces import Featurizer as Older
    from s3prl.util.download import _urls_to_filepaths, get_dir, set_dir

    assert (Featurizer, S3PRLUpstream, Older) == (compat.Featurizer, compat.S3PRLUpstream, hubcore.Featurizer)
    assert s3prl.util.download.set_dir is set_dir is compat.set_dir and callable(get_dir) and callable(_urls_to_filepaths)
    assert s3prl.__version__ == f"0+hubcore.{hubcore.__version__}"
    assert type(getattr(s3prl.hub, TINY)()).__name__ == "Wav2Vec2Upstream"
    from s3prl.hub import baseline, fbank, wav2vec2_tiny_prompts

    assert type(wav2vec2_tiny_prompts()).__name__ == "Wav2Vec2Upstream" and type(fbank()) is type(baseline())
    assert set(s3prl.hub.options()) <= set(dir(s3prl.hub)) and dir(s3prl.nn)[:2] == ["Featurizer", "S3PRLUpstream"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("s3prl.downstream")
    with pytest.raises(AttributeError, match=r"'s3prl.nn' is hubcore's and has no 'BeamDecoder'. It has Featurizer, S3PRL"):
        s3prl.nn.BeamDecoder  # noqa: B018
    with pytest.raises(ImportError):
        from s3prl.nn import BeamDecoder  # noqa: F401


def test_installing_twice_and_undoing_twice_are_harmless() -> None:
    compat.install()
    module = sys.modules["s3prl"]
    compat.install()
    assert sys.modules["s3prl"] is module
    compat.uninstall()
    compat.uninstall()
    assert importlib.util.find_spec("s3prl") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("s3prl.nn")
    compat.install()
    assert importlib.import_module("s3prl.nn").S3PRLUpstream is compat.S3PRLUpstream


def test_the_real_one_is_left_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "s3prl"
    real.mkdir()
    (real / "__init__.py").write_text("__version__ = 'real'\n")
    (real / "nn.py").write_text("S3PRLUpstream = 'real'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"s3prl itself is installed, at .*__init__\.py.*force=True"):
        compat.install()
    theirs = importlib.import_module("s3prl.nn")
    assert theirs.S3PRLUpstream == "real"
    with pytest.raises(PluginError, match="s3prl itself is installed"):  # imported by now
        compat.install()
    compat.install(force=True)
    assert importlib.import_module("s3prl.nn").S3PRLUpstream is compat.S3PRLUpstream
    compat.uninstall()
    assert importlib.import_module("s3prl").__version__ == "real"
    assert importlib.import_module("s3prl.nn") is theirs
    for name in ("s3prl", "s3prl.nn"):
        del sys.modules[name]


def test_a_clone_in_the_working_folder_is_not_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s3prl" / "s3prl").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("s3prl") is not None
    compat.install()
    assert importlib.import_module("s3prl").__version__.startswith("0+hubcore")


def test_the_frontend_knows_nothing_of_hubcore() -> None:
    text = (REPOSITORY / "tests/hubcore/compat/espnet_frontend.py").read_text()
    code = text.partition('"""\n')[2].partition('"""\n')[2]
    assert "import s3prl" in code and "hubcore" not in code


# Over the real s3prl --------------------------------------------------------------------------------------------------

STANDIN = {
    "__init__.py": "__version__ = 'real'\n",
    "hub.py": "raise RuntimeError('the real hub imports every family')\n",
    "nn/__init__.py": "from s3prl.nn.upstream import Featurizer, S3PRLUpstream\nclass BeamDecoder: pass\n",
    "nn/upstream.py": "class S3PRLUpstream: pass\nclass Featurizer: pass\n",
    "upstream/__init__.py": "",
    "upstream/interfaces.py": "SAMPLE_RATE = 16000\nclass UpstreamBase: pass\nclass Featurizer: pass\n",
    "downstream/__init__.py": "",
    "downstream/runner.py": (
        "from s3prl import hub\nfrom s3prl.upstream.interfaces import SAMPLE_RATE, Featurizer\n"
        "def run(name, wavs):\n"
        "    upstream = getattr(hub, name)(ckpt=None, model_config=None, refresh=False)\n"
        "    featurizer = Featurizer(upstream=upstream, feature_selection='hidden_states', upstream_device='cpu')\n"
        "    return featurizer(wavs, upstream(wavs))\n"
    ),
    "problem/__init__.py": "from s3prl.problem.asr import SuperbASR\n",
    "problem/asr.py": (
        "from s3prl.nn import Featurizer, S3PRLUpstream\nfrom s3prl.task import Task\n"
        "class SuperbASR:\n"
        "    def build(self, name):\n"
        "        upstream = S3PRLUpstream(name)\n"
        "        return Task(upstream, Featurizer(upstream))\n"
    ),
    "task/__init__.py": "class Task:\n    def __init__(self, *parts): self.parts = parts\n",
}


@pytest.fixture
def real_s3prl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in STANDIN.items():
        (tmp_path / "s3prl" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s3prl" / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "s3prl"
    compat.uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] == "s3prl"]:
        del sys.modules[name]


def use_it_all() -> None:
    """What s3prl's own scripts do."""
    import torch

    runner, problem = importlib.import_module("s3prl.downstream.runner"), importlib.import_module("s3prl.problem")
    assert [tuple(rows.shape) for rows in runner.run(TINY, [torch.randn(16000), torch.randn(8000)])] == [(49, 96), (24, 96)]
    upstream, featurizer = problem.SuperbASR().build(TINY).parts
    assert type(upstream) is compat.S3PRLUpstream and type(featurizer) is compat.Featurizer
    assert importlib.import_module("s3prl").__version__ == "real" and importlib.import_module("s3prl.nn").BeamDecoder
    assert importlib.import_module("s3prl.hub").options is compat.hub.options
    code: dict[str, object] = {}
    exec(f"import s3prl.hub\nfrom s3prl import hub\nfrom s3prl.hub import {TINY} as one\nassert s3prl.hub is hub", code)
    assert type(code["one"]()).__name__ == "Wav2Vec2Upstream"  # type: ignore[operator]


@pytest.mark.parametrize("before", [[], ["s3prl.problem", "s3prl.downstream"], ["s3prl"]])
def test_the_rest_of_s3prl_goes_on_working_on_our_upstreams(real_s3prl: Path, before: list[str]) -> None:
    for name in before:
        importlib.import_module(name)
    compat.install(overlay=True)
    use_it_all()
    compat.install(overlay=True)
    use_it_all()
    compat.uninstall()
    theirs = importlib.import_module("s3prl.nn.upstream")
    assert theirs.S3PRLUpstream is not compat.S3PRLUpstream
    assert importlib.import_module("s3prl.problem.asr").S3PRLUpstream is importlib.import_module("s3prl.nn").S3PRLUpstream
    assert importlib.import_module("s3prl.upstream.interfaces").Featurizer is not hubcore.Featurizer
    with pytest.raises(RuntimeError, match="the real hub"):
        importlib.import_module("s3prl.hub")


def test_modules_that_hold_the_real_hub_get_ours_and_give_it_back(real_s3prl: Path) -> None:
    (real_s3prl / "hub.py").write_text("def fbank(**options): return 'real'\n")
    runner = importlib.import_module("s3prl.downstream.runner")
    theirs = runner.hub
    compat.install(overlay=True)
    use_it_all()
    assert runner.hub is sys.modules["s3prl.hub"] is not theirs
    compat.uninstall()
    assert runner.hub is sys.modules["s3prl.hub"] is sys.modules["s3prl"].hub is theirs  # type: ignore[attr-defined]


def test_what_an_older_s3prl_lacks_is_ours(real_s3prl: Path) -> None:
    for name in ("nn/__init__.py", "nn/upstream.py", "upstream/interfaces.py"):
        (real_s3prl / name).unlink()
    (real_s3prl / "nn").rmdir()
    compat.install(overlay=True)
    assert importlib.import_module("s3prl.nn").S3PRLUpstream is compat.S3PRLUpstream
    assert importlib.import_module("s3prl.upstream.interfaces").Featurizer is hubcore.Featurizer
    assert importlib.import_module("s3prl.problem").SuperbASR().build("fbank").parts


def test_an_overlay_that_fails_leaves_nothing_behind(real_s3prl: Path) -> None:
    (real_s3prl / "nn/upstream.py").write_text("import a_package_that_s3prl_needs\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_s3prl_needs"):
        compat.install(overlay=True)
    assert "s3prl.hub" not in sys.modules
    (real_s3prl / "nn/upstream.py").write_text(STANDIN["nn/upstream.py"])
    compat.install(overlay=True)
    use_it_all()


def test_an_overlay_needs_the_real_one() -> None:
    with pytest.raises(PluginError, match="overlay=True needs it"):
        compat.install(overlay=True)


def test_frames_of_every_model_are_set_by_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_S3PRL_FRAMES", "real")
    compat.install(frames="s3prl")
    from s3prl.nn import S3PRLUpstream

    assert S3PRLUpstream(TINY).frames == "s3prl"
    compat.install(frames="real")
    assert S3PRLUpstream(TINY).frames == "real"
    compat.install(frames="s3prl")
    compat.uninstall()
    assert compat.S3PRLUpstream(TINY).frames == "real" and os.environ["HUBCORE_S3PRL_FRAMES"] == "real"
    with pytest.raises(OptionError, match="'real' or 's3prl'"):
        compat.install(frames="nominal")
    assert importlib.util.find_spec("s3prl") is None
