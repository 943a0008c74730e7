"""Ways in which an installed plugin is broken: each a distribution, what `hub.load` says, and what `hubcore doctor` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hubcore.errors import (
    DuplicateUpstreamError,
    HubcoreError,
    OptionError,
    PluginError,
    UnavailableUpstreamError,
    UnknownUpstreamError,
)
from tests.packaging.broken_plugins.distribution import Distribution

UPSTREAMS, REGISTRIES, HOOKS = "hubcore.upstreams", "hubcore.registries", "hubcore"
OBJECTIVES = "hubcore.objectives"
GOOD = "from hubcore_fbank import FbankUpstream\n\n\nclass X(FbankUpstream):\n    pass\n"
HOOK = "from hubcore import hookimpl\n\n\n@hookimpl\n"
UNAVAILABLE = "unavailable"
"""Instead of a finding: doctor's list of what is known and cannot run."""


@dataclass(frozen=True)
class Case:
    """One broken distribution."""

    distribution: Distribution
    says: str
    """Expected in one of the doctor's findings."""
    file: str = ""
    """How the file of that finding must end, with its line."""
    traceback: str = ""
    """Expected in its traceback."""
    loads: tuple[str, type[HubcoreError], str] | None = None
    """A name, and the error of loading it; None where loading it is not possible, or works."""
    warning: bool = False
    spoil: Callable[[Path], None] | None = None
    """What happens to its `.dist-info` after pip has installed it."""
    stops_torch: bool = False
    """Whether torch itself cannot be imported while it is there, unless it is told not to look for backends."""


CASES: dict[str, Case] = {}


def package_of(name: str) -> str:
    return f"broken_{name}"


def add(
    name: str,
    points: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str | bytes],
    says: str,
    *,
    requires: tuple[str, ...] = (),
    extras: Mapping[str, tuple[str, ...]] | None = None,
    **expected: object,
) -> None:
    package = package_of(name)
    all_files = {f"{package}/__init__.py": "", **{f"{package}/{path}": data for path, data in files.items()}}
    distribution = Distribution(f"broken-{name.replace('_', '-')}", all_files, points, requires, extras or {})
    CASES[name] = Case(distribution, says, **expected)  # type: ignore[arg-type]


def family(name: str, code: str, says: str, load: tuple[type[HubcoreError], str] | None = None, **more: object) -> None:
    """A family of the case's name whose module holds `code`, with the class `X`."""
    target = f"{package_of(name)}.upstream:X"
    loads = (name, *load) if load else None
    add(name, {UPSTREAMS: {name: target}}, {"upstream.py": code}, says, loads=loads, **more)  # type: ignore[arg-type]


def cards(name: str, text: str | bytes, says: str, **more: object) -> None:
    """A registry file."""
    add(name, {REGISTRIES: {name: f"{package_of(name)}:cards.yaml"}}, {"cards.yaml": text}, says, **more)  # type: ignore[arg-type]


def hooks(name: str, code: str, says: str, **more: object) -> None:
    """A module of hooks."""
    add(name, {HOOKS: {name: f"{package_of(name)}.hooked"}}, {"hooked.py": code}, says, **more)  # type: ignore[arg-type]


def card(name: str, fields: str) -> str:
    return f"version: 1\nupstreams:\n  {name}: {{license: MIT, {fields}}}\n"


# The module cannot be imported, or should not be ----------------------------------------------------------------------

family(
    "import_error",
    "import os\n\nimport nothing_of_this_name\n",
    "broken_import_error.upstream cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'",
    (PluginError, r"nothing_of_this_name.*It belongs to broken-import-error 1\.0"),
    file="broken_import_error/upstream.py, line 3",
    traceback="import nothing_of_this_name",
)
add(
    "deep_error",
    {UPSTREAMS: {"deep_error": "broken_deep_error.upstream:X"}},
    {
        "upstream.py": "from broken_deep_error import below\n",
        "below.py": "import json\n\n\ndef convert():\n    try:\n        json.loads('{')\n    except ValueError as error:\n"
        "        raise ValueError('from json: 3') from error\n\n\nconvert()\n",
    },
    "cannot be imported: ValueError: from json: 3",
    file="broken_deep_error/below.py, line 8",
    traceback="The above exception was the direct cause of the following exception:",
    loads=("deep_error", PluginError, "from json: 3"),
)
family(
    "syntax_error",
    "def f(:\n    pass\n",
    "cannot be imported: SyntaxError",
    (PluginError, "SyntaxError"),
    file="broken_syntax_error/upstream.py, line 1",
    traceback="def f(:",
)
family(
    "system_exit",
    "import sys\n\nsys.exit('no licence found')\n",
    "cannot be imported: SystemExit: no licence found",
    (PluginError, "SystemExit: no licence found"),
    file="broken_system_exit/upstream.py, line 3",
    traceback="sys.exit('no licence found')",
)
family(
    "unprintable_error",
    "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n\n\nraise Odd\n",
    "cannot be imported: Odd: its text cannot be shown",
    (PluginError, "cannot be imported: Odd"),
    file="broken_unprintable_error/upstream.py, line 6",
    traceback="raise Odd",
)
family(
    "hangs",
    "import time\n\ntime.sleep(30)\n" + GOOD,
    "importing broken_hangs.upstream takes longer than 6 s, and was ended",
    file="broken_hangs/upstream.py, line 3",
    traceback="time.sleep(30)",
)
family(
    "slow",
    "import time\n\ntime.sleep(2)\n" + GOOD,
    "importing broken_slow.upstream takes ",
    file="broken_slow/upstream.py",
    warning=True,
)
family(
    "exits",
    "import os\n\nos._exit(3)\n",
    "importing broken_exits.upstream ends the whole process (exit status 3), which nothing can catch",
    file="broken_exits/upstream.py, line 3",
    traceback="os._exit(3)",
)
family(
    "crashes",
    "import ctypes\n\nctypes.string_at(0)\n",
    "importing broken_crashes.upstream ends the whole process (signal SIGSEGV)",
    file="broken_crashes/upstream.py, line 3",
    traceback="ctypes.string_at(0)",
)
family(
    "prints",
    "print('loading the great model')\n" + GOOD,
    "importing broken_prints.upstream prints 'loading the great model'",
    file="broken_prints/upstream.py",
    warning=True,
)
family(
    "changes_torch",
    "import torch\n\ntorch.set_default_dtype(torch.float64)\ntorch.manual_seed(3)\n" + GOOD,
    "changes torch's default dtype from torch.float32 to torch.float64; torch's seed from ",
    file="broken_changes_torch/upstream.py",
    warning=True,
)
family(
    "changes_process",
    "import os\nimport sys\n\nos.environ['CUDA_VISIBLE_DEVICES'] = ''\nsys.path.insert(0, '/nowhere')\n" + GOOD,
    "changes sys.path; the environment variable CUDA_VISIBLE_DEVICES",
    file="broken_changes_process/upstream.py",
    warning=True,
)
family(
    "missing_dependency",
    "import speech_thing_that_is_not_there\n",
    "it requires speech-thing-that-is-not-there>=2, which is not installed. Install it with: pip install 'speech-thing-that",
    (PluginError, "speech_thing_that_is_not_there"),
    requires=("speech-thing-that-is-not-there>=2",),
)

# The entry point is wrong ---------------------------------------------------------------------------------------------

add(
    "missing_package",
    {UPSTREAMS: {"missing_package": "a_package_that_was_forgotten.upstream:X"}},
    {},
    "its package 'a_package_that_was_forgotten' is missing. Put it back with: pip install --force-reinstall broken-missing-",
    file=UNAVAILABLE,
    loads=("missing_package", UnavailableUpstreamError, "pip install --force-reinstall broken-missing-package"),
)
add(
    "missing_extra",
    {UPSTREAMS: {"missing_extra": "broken_missing_extra.upstream:X [gpu]"}},
    {"upstream.py": GOOD},
    "speech-thing-that-is-not-there is not installed. Install it with: pip install 'broken-missing-extra[gpu]'",
    extras={"gpu": ("speech-thing-that-is-not-there>=2",)},
    file=UNAVAILABLE,
    loads=("missing_extra", UnavailableUpstreamError, r"pip install 'broken-missing-extra\[gpu\]'"),
)
add(
    "missing_module",
    {UPSTREAMS: {"missing_module": "broken_missing_module.upstraem:X"}},
    {"upstream.py": GOOD},
    "ModuleNotFoundError: No module named 'broken_missing_module.upstraem'",
    file="broken_missing_module-1.0.dist-info/entry_points.txt, line 2",
    loads=("missing_module", PluginError, "upstraem"),
)
family(
    "missing_attribute",
    GOOD.replace("class X", "class Y"),
    "broken_missing_attribute.upstream:X is not there",
    (PluginError, "has no attribute 'X'"),
    file="broken_missing_attribute/upstream.py",
)
family(
    "not_a_class",
    "def X():\n    return 3\n",
    "broken_not_a_class.upstream:X is a function, not a class",
    (PluginError, "is a function, not a class"),
    file="broken_not_a_class/upstream.py",
)
add(
    "malformed_value",
    {UPSTREAMS: {"malformed_value": "broken_malformed_value.upstream"}},
    {"upstream.py": GOOD},
    "entry point 'malformed_value' = 'broken_malformed_value.upstream' must be name = module:Class",
    file="broken_malformed_value-1.0.dist-info/entry_points.txt",
    loads=("malformed_value", UnknownUpstreamError, "no upstream is called"),
)
add(
    "illegal_name",
    {UPSTREAMS: {"../Upper Case": "broken_illegal_name.upstream:X"}},
    {"upstream.py": GOOD},
    "entry point '../Upper Case' = 'broken_illegal_name.upstream:X' must be name = module:Class",
    file="broken_illegal_name-1.0.dist-info/entry_points.txt",
)

# The class is no upstream ---------------------------------------------------------------------------------------------

family(
    "no_forward",
    "class X:\n    sample_rate = 16000\n",
    "broken_no_forward.upstream:X has no forward. So it is no upstream",
    file="broken_no_forward/upstream.py, line 1",
)
family(
    "lacks_attributes",
    "class X:\n    sample_rate = 16000\n\n    def forward(self, wavs): ...\n",
    "broken_lacks_attributes.upstream:X lacks num_layers, layer_names, hidden_sizes, frame_stride,",
    file="broken_lacks_attributes/upstream.py, line 1",
)
family(
    "wrong_attributes",
    GOOD + "    def __init__(self, config):\n        super().__init__(config)\n        self.sample_rate = '16k'\n"
    "        self.hidden_sizes = (1, 2, 3)\n",
    "'wrong_attributes' fails the check attributes: sample_rate is '16k', expected an int of at least 1.",
    file="broken_wrong_attributes/upstream.py, line 4",
)
family(
    "constructor_raises",
    "class X:\n    def __init__(self):\n        raise RuntimeError('no session')\n\n    def forward(self, wavs): ...\n",
    "broken_constructor_raises.upstream:X could not be built: RuntimeError: no session",
    (PluginError, r"could not be built: RuntimeError: no session\. It belongs to broken-constructor-raises 1\.0"),
    file="broken_constructor_raises/upstream.py, line 3",
    traceback="raise RuntimeError('no session')",
)
add(
    "unknown_config",
    {UPSTREAMS: {"unknown_config": "broken_unknown_config.upstream:X"}, REGISTRIES: {"a": "broken_unknown_config:cards.yaml"}},
    {"upstream.py": GOOD, "cards.yaml": card("small_unknown_config", "upstream: unknown_config, config: smal")},
    "the card 'small_unknown_config' names the config 'smal', which broken_unknown_config.upstream:X does not have",
    file="broken_unknown_config/cards.yaml, line 3",
    loads=("small_unknown_config", OptionError, "smal"),
)

# The registry file is wrong -------------------------------------------------------------------------------------------

cards(
    "yaml_syntax",
    "version: 1\nupstreams: {a: [\n",
    "it is not valid YAML",
    file="broken_yaml_syntax/cards.yaml, line 3",
    loads=("yaml_syntax", UnknownUpstreamError, "no upstream is called"),
)
cards(
    "yaml_field",
    card("misspelt_card", "upstream: fbank, lisense: MIT"),
    "has the unknown field 'lisense'. Did you mean 'license'?",
    file="broken_yaml_field/cards.yaml, line 3",
)
cards("yaml_bytes", b"version: 1\nupstreams:\n  x: {upstream: \xff, license: MIT}\n", "It must be a UTF-8 text file")
cards(
    "yaml_tag",
    card("tagged_card", "upstream: !!python/name:os.system fbank"),
    "tags such as tag:yaml.org,2002:python/name:os.system are not allowed",
    file="broken_yaml_tag/cards.yaml, line 3",
)
cards("yaml_anchor", card("anchored_card", "upstream: &a fbank, config: *a"), "anchors and aliases are not allowed")
add(
    "yaml_missing",
    {REGISTRIES: {"yaml_missing": "broken_yaml_missing:cards.yaml"}},
    {"crads.yaml": card("lost_card", "upstream: fbank")},
    "names 'broken_yaml_missing:cards.yaml', which is not there. It must be package:file",
    file="broken_yaml_missing-1.0.dist-info/entry_points.txt",
    loads=("lost_card", UnknownUpstreamError, "no upstream is called"),
)
cards(
    "unknown_family",
    card("orphan_card", "upstream: wav2vec3"),
    "provides the family 'wav2vec3'. Install the plugin that does. Did you mean the family 'wav2vec2'?",
    loads=("orphan_card", UnavailableUpstreamError, "wav2vec3"),
)

# A name is taken ------------------------------------------------------------------------------------------------------

add(
    "taken_name",
    {UPSTREAMS: {"fbank": "broken_taken_name.upstream:X"}},
    {"upstream.py": GOOD},
    "fbank is claimed by broken-taken-name and hubcore. Use broken-taken-name:fbank or hubcore:fbank",
    traceback="broken-taken-name 1.0: entry point fbank = broken_taken_name.upstream:X",
    loads=("fbank", DuplicateUpstreamError, "broken-taken-name and by hubcore"),
)
for rival in ("rival_one", "rival_two"):
    add(
        rival,
        {UPSTREAMS: {"contested": f"broken_{rival}.upstream:X"}},
        {"upstream.py": GOOD},
        "contested is claimed by broken-rival-one and broken-rival-two. Use broken-rival-one:contested or broken-rival-two:",
        traceback=f"broken-{rival.replace('_', '-')} 1.0: entry point contested = broken_{rival}.upstream:X",
    )

# Hooks ----------------------------------------------------------------------------------------------------------------

hooks(
    "hook_import",
    "raise OSError('no driver')\n",
    "broken_hook_import.hooked cannot be imported: OSError: no driver",
    file="broken_hook_import/hooked.py, line 1",
    traceback="raise OSError('no driver')",
)
hooks(
    "hook_misspelt",
    HOOK + "def hubcore_fecth(uri):\n    return None\n",
    "has hubcore_fecth, which is no hook. The hooks are hubcore_commands, hubcore_feature_writers, hubcore_fetch, "
    "hubcore_upstream_loaded. Did you mean hubcore_fetch?",
    file="broken_hook_misspelt/hooked.py, line 4",
)
hooks(
    "hook_unmarked",
    "def hubcore_commands(cli):\n    cli.add_command(None)\n",
    "has hubcore_commands without @hookimpl, so it is never called. Put @hookimpl above it.",
    file="broken_hook_unmarked/hooked.py, line 1",
)
hooks(
    "hook_arguments",
    HOOK + "def hubcore_fetch(url, folder):\n    return None\n",
    "takes url, folder, which the hook does not have. It may take uri, cache_dir, offline, expected",
    file="broken_hook_arguments/hooked.py, line 4",
)
hooks(
    "hook_wrapper",
    HOOK.replace("@hookimpl", "@hookimpl(wrapper=True)") + "def hubcore_fetch(uri):\n    return (yield)\n",
    "has hubcore_fetch as a wrapper, so it is never called",
    file="broken_hook_wrapper/hooked.py, line 4",
)
hooks(
    "fetch_raises",
    HOOK + "def hubcore_fetch(uri):\n    raise KeyError(uri[:6])\n",
    "hubcore_fetch failed for 'hubcore-doctor://nothing/file': KeyError: 'hubcor'",
    file="broken_fetch_raises/hooked.py, line 6",
    traceback="raise KeyError(uri[:6])",
)
hooks(
    "fetch_takes_all",
    HOOK + "def hubcore_fetch(uri, cache_dir):\n    return cache_dir if 'hubcore-doctor' in uri else None\n",
    "its hubcore_fetch takes 'hubcore-doctor://nothing/file' for its own, and so everybody's addresses",
)
hooks(
    "observer_raises",
    HOOK + "def hubcore_upstream_loaded(upstream):\n    upstream.no_such_method()\n",
    "hubcore_upstream_loaded failed: AttributeError",
    file="broken_observer_raises/hooked.py, line 6",
    traceback="upstream.no_such_method()",
)
hooks(
    "writer_lacks",
    HOOK + "def hubcore_feature_writers():\n    return {'broken_format': dict}\n",
    "the format 'broken_format' cannot be used. It lacks write, holds, close.",
)
hooks(
    "command_raises",
    HOOK + "def hubcore_commands(cli):\n    raise RuntimeError('no terminal')\n",
    "hubcore_commands failed: RuntimeError: no terminal",
    file="broken_command_raises/hooked.py, line 6",
    traceback="raise RuntimeError('no terminal')",
)
hooks(
    "command_exits",
    "import os\n\n" + HOOK + "def hubcore_commands(cli):\n    os._exit(0)\n",
    "calling hubcore_commands ends the whole process (exit status 0)",
    file="broken_command_exits/hooked.py, line 8",
    traceback="in hubcore_commands",
)

# The installation itself is damaged -----------------------------------------------------------------------------------


def damaged(name: str, says: str, spoil: Callable[[Path], None], **more: object) -> None:
    family(
        name,
        GOOD,
        says,
        (UnknownUpstreamError, "no upstream is called"),
        spoil=spoil,
        file=f"broken_{name}-1.0.dist-info",
        **more,
    )


damaged("no_metadata", "its metadata cannot be read", lambda info: (info / "METADATA").unlink())
damaged(
    "no_version",
    "its metadata cannot be read (ValueError('it states no name or no version'))",
    lambda info: (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-no-version\n") and None,
)
damaged(
    "garbled_points",
    "its metadata cannot be read (UnicodeDecodeError",
    lambda info: (info / "entry_points.txt").write_bytes(b"\xff\xfe[hubcore.upstreams]\n") and None,
    stops_torch=True,
)

add(
    "objective_gone",
    {OBJECTIVES: {"objective_gone": "broken_objective_gone.pretrain:Gone"}},
    {"pretrain.py": ""},
    "the objective broken_objective_gone.pretrain:Gone cannot be imported: AttributeError",
    file="pretrain.py",
)
add(
    "objective_incomplete",
    {OBJECTIVES: {"objective_incomplete": "broken_objective_incomplete.pretrain:X"}},
    {"pretrain.py": "class X:\n    upstream = 'x'\n"},
    "the objective broken_objective_incomplete.pretrain:X lacks model_configs, config_class, forward",
    file="pretrain.py",
)

HEALTHY = Distribution(
    "healthy-plugin",
    {
        "healthy_plugin/__init__.py": "",
        "healthy_plugin/upstream.py": GOOD.replace("class X", "class HealthyUpstream"),
        "healthy_plugin/cards.yaml": card("healthy_mfcc", "upstream: healthy, config: mfcc"),
        "healthy_plugin/hooked.py": HOOK + "def hubcore_fetch(uri):\n    return None\n",
    },
    {
        UPSTREAMS: {"healthy": "healthy_plugin.upstream:HealthyUpstream"},
        REGISTRIES: {"healthy": "healthy_plugin:cards.yaml"},
        HOOKS: {"healthy": "healthy_plugin.hooked"},
    },
)
"""What stands beside every broken one and must go on working."""
