"""The 191 names of s3prl's hub (0.4.18), by the folder of each. The three of spec_augment are not in its hub."""

from __future__ import annotations

NAMES = {
    "apc": "apc_local apc_url apc apc_360hr apc_960hr",
    "ast": "ast",
    "audio_albert": (
        "audio_albert_local audio_albert_url audio_albert audio_albert_960hr "
        "audio_albert_logMelBase_T_share_AdamW_b32_1m_960hr_drop1"
    ),
    "baseline": "baseline_local baseline spectrogram fbank fbank_no_cmvn mfcc mel linear",
    "byol_a": "byol_a_2048 byol_a_1024 byol_a_512",
    "byol_s": "byol_s_default byol_s_cvt byol_s_resnetish34",
    "cpc": "cpc_local cpc_url modified_cpc",
    "data2vec": "data2vec_custom data2vec_local data2vec_url data2vec data2vec_base_960 data2vec_large_ll60k",
    "decoar": "decoar_custom decoar_local decoar_url decoar",
    "decoar2": "decoar2_custom decoar2_local decoar2_url decoar2",
    "decoar_layers": "decoar_layers_custom decoar_layers_local decoar_layers_url decoar_layers",
    "distiller": "distiller_local distiller_url distilhubert distilhubert_base",
    "espnet_hubert": (
        "espnet_hubert_custom espnet_hubert_local cvhubert wavlablm_ek_40k wavlablm_ms_40k wavlablm_mk_40k "
        "espnet_hubert_base_iter1 espnet_hubert_base_iter0 espnet_hubert_large_gs_ll60k"
    ),
    "example": "customized_upstream",
    "hf_hubert": "hf_hubert_custom",
    "hf_wav2vec2": "hf_wav2vec2_custom",
    "hubert": (
        "hubert_custom hubert_local hubert_url hubert hubert_base hubert_large_ll60k hubert_base_robust_mgr "
        "mhubert_base_vp_en_es_fr_it3 contentvec contentvec_km100 contentvec_km500 ms_hubert"
    ),
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
    "unispeech_sat": (
        "unispeech_sat_local unispeech_sat_url unispeech_sat unispeech_sat_base unispeech_sat_base_plus unispeech_sat_large"
    ),
    "vggish": "vggish",
    "vq_apc": "vq_apc vq_apc_360hr vq_apc_960hr",
    "vq_wav2vec": "vq_wav2vec_custom vq_wav2vec vq_wav2vec_gumbel vq_wav2vec_kmeans",
    "wav2vec": "wav2vec_custom wav2vec_local wav2vec_url wav2vec wav2vec_large",
    "wav2vec2": (
        "wav2vec2_custom wav2vec2 wav2vec2_base_960 wav2vec2_large_960 wav2vec2_large_ll60k "
        "wav2vec2_large_lv60_cv_swbd_fsh xlsr_53 xls_r_300m xls_r_1b xls_r_2b wav2vec2_conformer_relpos "
        "wav2vec2_conformer_rope wav2vec2_large_voxpopuli_100k wav2vec2_base_s2st_es_voxpopuli "
        "wav2vec2_conformer_large_s2st_es_voxpopuli wav2vec2_base_s2st_en_librilight "
        "wav2vec2_conformer_large_s2st_en_librilight wav2vec2_local wav2vec2_url"
    ),
    "wavlm": "wavlm_local wavlm_url wavlm wavlm_base wavlm_base_plus wavlm_large",
}
