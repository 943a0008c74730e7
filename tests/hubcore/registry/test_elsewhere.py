"""Names of s3prl and of the Hugging Face Hub lead to what does the same here."""

from __future__ import annotations

import pytest

from hubcore import hub
from hubcore.card import Card, Source
from hubcore.errors import DownloadError, OptionError, UnknownUpstreamError
from hubcore.registry.elsewhere import ABSENT, lead_from, repository_of
from hubcore.registry.names import current_registry

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("family", "names"), ABSENT.items())
def test_a_name_that_only_s3prl_has_is_named_as_such(family: str, names: str) -> None:
    for name in names.split():
        with pytest.raises(UnknownUpstreamError, match=f"its family there, {family}, is not part of hubcore") as caught:
            hub.load(name)
        assert "nearest" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("facebook/wav2vec2-base", "hub.load('wav2vec2_base_960_hf') loads hf://facebook/wav2vec2-base."),
        ("facebook/hubert-large-ll60k", "hub.load('hubert_large_ll60k_hf') loads hf://facebook/hubert-large-ll60k."),
        ("facebook/hubert-large-somewhere", "Use hub.load('hubert', checkpoint='hf://facebook/hubert-large-somewhere')."),
        ("me/wav2vec2-large-xlsr-53-english", "Use hub.load('wav2vec2', checkpoint='hf://me/wav2vec2-large-xlsr-53-english')."),
        ("me/mHuBERT-147-base-3rd-iter", "Use hub.load('hubert', checkpoint='hf://me/mHuBERT-147-base-3rd-iter')."),
        ("me/bert-large", "Use hub.load(FAMILY, checkpoint='hf://me/bert-large')"),
    ],
)
def test_a_repository_leads_to_its_card_or_its_family(name: str, advice: str) -> None:
    with pytest.raises(OptionError) as caught:
        hub.load(name)
    assert advice in str(caught.value)


@pytest.mark.parametrize("name", ["hubert-base-ls960", "HuBERT-base-LS960"])
def test_a_repositorys_name_without_its_owner_leads_to_its_card(name: str) -> None:
    with pytest.raises(UnknownUpstreamError, match=r"hub\.load\('hubert_base_hf'\) loads hf://facebook/hubert-base-ls960\."):
        hub.load(name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("hf://facebook/hubert-base-ls960", r"hub\.load\('hubert_base_hf'\) loads hf://facebook/hubert-base-ls960\.$"),
        ("hf://facebook/hubert-base-ls960@main", r"hub\.load\('hubert_base_hf'\) loads hf://facebook/hubert-base-ls960\.$"),
        ("hf://me/my-hubert@v2", r"Use hub\.load\('hubert', checkpoint='hf://me/my-hubert@v2'\)\.$"),
    ],
)
def test_an_address_in_place_of_a_name_leads_to_its_card_or_its_family(name: str, advice: str) -> None:
    with pytest.raises(UnknownUpstreamError, match=advice):
        hub.load(name)


@pytest.mark.parametrize(("name", "near"), [("WavLM", "wavlm"), ("HuBERT", "hubert"), ("FBANK", "fbank")])
def test_a_name_in_capitals_is_near_to_the_name(name: str, near: str) -> None:
    with pytest.raises(UnknownUpstreamError) as caught:
        hub.load(name)
    assert caught.value.nearest[0] == near


@pytest.mark.parametrize("name", ["wavlm_local", "hubert_url", "whisper_custom"])
def test_s3prls_names_for_files_of_ones_own_lead_to_the_family(name: str) -> None:
    family = name.partition("_")[0]
    with pytest.raises(UnknownUpstreamError, match=f"file of your own: hub.load\\('{family}', checkpoint="):
        hub.load(name)


@pytest.mark.parametrize("rest", ["", "/", "/tree/main", "?library=transformers"])
def test_the_page_of_a_model_is_no_checkpoint(rest: str) -> None:
    page = f"https://huggingface.co/facebook/hubert-base-ls960{rest}"
    with pytest.raises(DownloadError, match=r"is the page of a model, not a file\. .*hf://facebook/hubert-base-ls960\.$"):
        hub.load("hubert", checkpoint=page)
    with pytest.raises(UnknownUpstreamError, match=r"hub\.load\('hubert_base_hf'\) loads hf://facebook/hubert-base-ls960"):
        hub.load(page)
    assert repository_of("https://huggingface.co/a/b/resolve/main/c.pt") is repository_of("https://h.org/a/b") is None


def test_other_names_lead_nowhere() -> None:
    cards = [Card("mine", "acme", "MIT", sources=(Source("hf://org/Mine@main/a.pt"), Source("https://host/org/Yours")))]
    assert lead_from("org/Mine", cards) == "hub.load('mine') loads hf://org/Mine."
    assert lead_from("org/Yours", cards) is lead_from("yours", cards) is lead_from("wav2vec2_bas", cards) is None
    with pytest.raises(UnknownUpstreamError, match="The nearest names are wav2vec2_base_960"):
        hub.load("wav2vec2_bas_960")


def test_what_is_here_is_not_said_to_be_absent() -> None:
    absent = {name for names in ABSENT.values() for name in names.split()}
    assert absent.isdisjoint(hub.list()) and absent.isdisjoint(current_registry().families)
