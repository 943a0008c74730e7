"""`CHECKS`: every check of the conformance kit, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from hubcore.testing import argument_checks, batch_checks, featurizer_checks, module_checks, output_checks, training_checks

Check: TypeAlias = Callable[..., None]
"""A check: called with an upstream, it raises `AssertionError` where the upstream breaks the contract."""

_ALL: tuple[Check, ...] = (
    output_checks.check_attributes,
    output_checks.check_output_types,
    output_checks.check_mapping,
    output_checks.check_lengths,
    output_checks.check_padding_is_zero,
    output_checks.check_frame_times,
    output_checks.check_extras,
    batch_checks.check_min_samples,
    batch_checks.check_frame_counts,
    batch_checks.check_tensor_form,
    batch_checks.check_batch_equals_alone,
    batch_checks.check_batch_order,
    batch_checks.check_loud_mate,
    batch_checks.check_long_mate,
    batch_checks.check_silent_input,
    argument_checks.check_layer_selection,
    argument_checks.check_layers_stop_early,
    argument_checks.check_bad_layers,
    argument_checks.check_unknown_keyword,
    argument_checks.check_rejects_short,
    argument_checks.check_rejects_nonfinite,
    argument_checks.check_rejects_shape,
    argument_checks.check_rejects_dtype,
    argument_checks.check_rejects_lengths,
    module_checks.check_determinism,
    module_checks.check_inputs_unchanged,
    module_checks.check_strided_input,
    module_checks.check_inference_mode,
    module_checks.check_train_mode_layers,
    module_checks.check_gradients_arrive,
    module_checks.check_gradients_nonzero,
    module_checks.check_device_follows_input,
    module_checks.check_dtype_follows_input,
    module_checks.check_state_dict,
    module_checks.check_pickling,
    training_checks.check_layer_groups,
    training_checks.check_gradient_checkpointing,
    training_checks.check_frozen_extractor,
    featurizer_checks.check_featurizer,
)

CHECKS: Mapping[str, Check] = MappingProxyType({check.__name__.removeprefix("check_"): check for check in _ALL})
"""Name to check function, read-only; `hubcore docs conformance` says what each proves."""
