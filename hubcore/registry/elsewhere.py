"""Names that people know from s3prl and the Hugging Face Hub, and what to use for them here. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hubcore.card import Card
from hubcore.errors import nearest_names

ABSENT: Mapping[str, str] = {
    "apc": "apc_local apc_url apc apc_360hr apc_960hr",
    "ast": "ast",
    "audio_albert": (
        "audio_albert_local audio_albert_url audio_albert audio_albert_960hr "
        "audio_albert_logMelBase_T_share_AdamW_b32_1m_960hr_drop1"
    ),
    "byol_a": "byol_a_2048 byol_a_1024 byol_a_512",
    "byol_s": "byol_s_default byol_s_cvt byol_s_resnetish34",
    "decoar": "decoar_custom decoar_local decoar_url decoar",
    "decoar2": "decoar2_custom decoar2_local decoar2_url decoar2",
    "decoar_layers": "decoar_layers_custom decoar_layers_local decoar_layers_url decoar_layers",
    "example": "customized_upstream",
    "lighthubert": "lighthubert_local lighthubert_url lighthubert lighthubert_small lighthubert_base lighthubert_stage1",
    "log_stft": "stft_mag",
    "mae_ast": "mae_ast_local mae_ast_url mae_ast_frame mae_ast_patch",
    "mockingjay": (
        "mockingjay_local mockingjay_url mockingjay mockingjay_origin mockingjay_100hr mockingjay_960hr "
        "mockingjay_logMelBase_T_AdamW_b32_200k_100hr mockingjay_logMelLinearLarge_T_AdamW_b32_500k_360hr_drop1 "
        "mockingjay_logMelBase_T_AdamW_b32_1m_960hr mockingjay_logMelBase_T_AdamW_b32_1m_960hr_drop1 "
        "mockingjay_logMelBase_T_AdamW_b32_1m_960hr_seq3k"
    ),
    "mos_prediction": (
        "mos_wav2vec2_local mos_wav2vec2_url mos_wav2vec2 mos_tera_local mos_tera_url mos_tera mos_apc_local "
        "mos_apc_url mos_apc"
    ),
    "multires_hubert": (
        "multires_hubert_custom multires_hubert_local multires_hubert_base multires_hubert_large "
        "multires_hubert_multilingual_base multires_hubert_multilingual_large400k "
        "multires_hubert_multilingual_large600k"
    ),
    "npc": "npc_local npc_url npc npc_360hr npc_960hr",
    "pase": "pase_local pase_url pase_plus",
    "passt": (
        "passt_base passt_base2level passt_base2levelmel passt_base20sec passt_base30sec passt_hop100base "
        "passt_hop100base2lvl passt_hop100base2lvlmel passt_hop160base passt_hop160base2lvl passt_hop160base2lvlmel"
    ),
    "roberta": "vq_wav2vec_kmeans_roberta discretebert",
    "ssast": "ssast_frame_base ssast_patch_base",
    "tera": (
        "tera_local tera_url tera tera_100hr tera_960hr tera_logMelBase_T_F_AdamW_b32_200k_100hr "
        "tera_logMelBase_T_F_M_AdamW_b32_200k_100hr tera_logMelBase_T_F_AdamW_b32_1m_960hr "
        "tera_logMelBase_T_F_AdamW_b32_1m_960hr_drop1 tera_logMelBase_T_F_AdamW_b32_1m_960hr_seq3k "
        "tera_logMelBase_T_F_M_AdamW_b32_1m_960hr_drop1 tera_fbankBase_T_F_AdamW_b32_200k_100hr"
    ),
    "vggish": "vggish",
    "vq_apc": "vq_apc vq_apc_360hr vq_apc_960hr",
    "vq_wav2vec": "vq_wav2vec_custom vq_wav2vec vq_wav2vec_gumbel vq_wav2vec_kmeans",
    "wav2vec": "wav2vec_custom wav2vec_local wav2vec_url wav2vec wav2vec_large",
}
"""Families of s3prl's hub that hubcore does not have -> their names there."""

_OWN_FILE = re.compile("(.+)_(local|url|custom)")
_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+?)(?:/(?:tree/[^/]+/?)?)?(?:[?#].*)?")


def lead_from(name: str, cards: Iterable[Card]) -> str | None:
    """A sentence that leads from a name used elsewhere to what does the same here; None if nothing is known of it.

    The name is one of s3prl, `org/repo` of the Hugging Face Hub, its address, or the repository's name alone.

    Example:
        >>> lead_from("tera_960hr", []).split(":")[0]
        's3prl has it; its family there, tera, is not part of hubcore'
        >>> from hubcore.card import Source
        >>> lead_from("org/Mine-Base", [Card("mine", "wav2vec2", "MIT", sources=(Source("hf://org/Mine-Base@main"),))])
        "hub.load('mine') loads hf://org/Mine-Base."
    """
    for family, names in ABSENT.items():
        if name in names.split():
            return (
                f"s3prl has it; its family there, {family}, is not part of hubcore: use s3prl for it, or write a plugin "
                "(`hubcore docs write_a_plugin`)."
            )
    cards, name = [*cards], repository_of(name) or name.removeprefix("hf://")
    own = _OWN_FILE.fullmatch(name)
    if own and own[1] in {card.upstream for card in cards}:
        return f"It is s3prl's name for a file of your own: hub.load({own[1]!r}, checkpoint=...)."
    wanted = name.partition("@")[0].lower()
    for card in cards:
        for source in card.sources:
            repository = source.uri.removeprefix("hf://").partition("@")[0]
            if source.uri.startswith("hf://") and wanted in (repository.lower(), repository.rpartition("/")[2].lower()):
                return f"hub.load({card.name!r}) loads hf://{repository}."
    if "/" not in name or "://" in name:
        return None
    words = _words(wanted)
    families = {label: card.upstream for card in cards for label in (card.name, *card.aliases) if _words(label)[0] in words}
    near = nearest_names("_".join(words), families, count=1)
    return f"Use hub.load({families[near[0]]!r}, checkpoint='hf://{name}')." if near else None


def repository_of(url: str) -> str | None:
    """`org/repo` of the web page of a model on the Hugging Face Hub; None for any other address.

    Example:
        >>> repository_of("https://huggingface.co/org/repo/tree/main"), repository_of("https://huggingface.co/a/b/resolve/c/d.pt")
        ('org/repo', None)
    """
    page = _PAGE.fullmatch(url)
    return page and page[1]


def _words(name: str) -> list[str]:
    return re.split("[-_.]", name.rpartition("/")[2].lower())
