"""s3prl's own names: which load here, and that none is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

import hubcore.hub
from hubcore.compat.s3prl import S3PRLUpstream, hub
from hubcore.errors import OptionError, UnknownUpstreamError
from hubcore.registry.elsewhere import ABSENT
from hubcore.registry.names import current_registry
from tests.gold import gold_file
from tests.hubcore.compat.s3prl_names import NAMES
from tests.paths import DATA, REPOSITORY

pytestmark = pytest.mark.slow

THEIRS = {name for names in NAMES.values() for name in names.split()}
LOADERS = {
    "wav2vec2": gold_file("s3prl_converted_tiny_w2v2_groupnorm.pt"),
    "hubert": gold_file("upstreams/hubert_tiny.s3prl.pt"),
    "espnet_hubert": gold_file("upstreams/hubert_tiny.s3prl.pt"),
    "distiller": gold_file("upstreams/distilhubert_tiny.ckpt"),
    "data2vec": gold_file("upstreams/data2vec_tiny.fairseq.pt"),
    "wavlm": gold_file("upstreams/wavlm_tiny.pt"),
    "unispeech_sat": gold_file("upstreams/unispeech_sat_tiny.pt"),
    "wav2vec2_conformer": gold_file("upstreams/wav2vec2_conformer_rope_tiny.s3prl.pt"),
    "cpc": gold_file("upstreams/modified_cpc_tiny.pt"),
}
"""Family by s3prl's name -> a checkpoint of it."""


def family_of(name: str) -> object:
    """The installed family that runs a name of `hub.options()`, None if there is none."""
    if name in hubcore.hub.list():
        return current_registry().find(name).family
    return name  # a loader, of which there is one for each installed family


def test_every_name_of_s3prl_loads_here_or_is_known_to_be_absent() -> None:
    absent = {name for names in ABSENT.values() for name in names.split()}
    assert len(THEIRS) == 191
    assert absent < THEIRS and absent.isdisjoint(hub.options())
    loading = {name for name in THEIRS & set(hub.options()) if family_of(name) is not None}
    assert loading == THEIRS - absent
    page = (REPOSITORY / "docs/migrating_from_s3prl.md").read_text(encoding="utf-8")
    assert f"Of the {len(THEIRS)} names of s3prl's hub (0.4.18), {len(loading)} load." in page
    assert {family: names.split() for family, names in ABSENT.items()} == {family: NAMES[family].split() for family in ABSENT}


def test_the_page_lists_what_is_absent_by_family() -> None:
    page = (REPOSITORY / "docs/migrating_from_s3prl.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 4]
    table = {cells[0].strip(" `"): cells for row in rows if (cells := row.strip("|").split("|"))[1].strip().isdecimal()}
    assert table.keys() == ABSENT.keys()
    for family, (_, count, names) in table.items():
        assert int(count) == len(ABSENT[family].split()), family
        for name in names.replace("`", "").replace(",", " ").split():
            assert name.rstrip("*") in ABSENT[family], (family, name)


@pytest.mark.parametrize("family", LOADERS)
@pytest.mark.parametrize("kind", ["custom", "local", "url"])
def test_a_family_has_s3prls_loaders(family: str, kind: str) -> None:
    name = f"{family}_{kind}"
    loaded = getattr(hub, name)(ckpt=str(LOADERS[family]))
    assert type(loaded).__name__ == type(S3PRLUpstream(name, path_or_url=str(LOADERS[family])).upstream).__name__
    assert loaded.get_downsample_rates("hidden_states") == loaded.frame_stride
    with pytest.raises(OptionError, match="needs a checkpoint"):
        getattr(hub, name)()


def test_espnets_settings_are_those_beside_the_checkpoint(tmp_path: Path) -> None:
    model = DATA / "gold2/espnet_hubert_base_style/valid.loss.ave.pth"
    wanted = hub.espnet_hubert_local(str(model)).config
    assert hub.espnet_hubert_custom(str(model), config=str(model.with_name("config.yaml"))).config == wanted
    with pytest.raises(OptionError, match=r"read from the config\.yaml beside the checkpoint"):
        hub.espnet_hubert_custom(str(model), config=str(tmp_path / "config.yaml"))


def test_a_name_that_only_s3prl_has_says_so() -> None:
    with pytest.raises(UnknownUpstreamError, match="s3prl has it; its family there, mockingjay, is not part of hubcore"):
        S3PRLUpstream("mockingjay_origin")
    assert not hasattr(hub, "tera") and not hasattr(hubcore.hub, "tera")
