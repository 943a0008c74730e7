"""Recipes: what is read, what overrides do, and which mistakes are named."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import yaml

from hubcore.errors import OptionError, PluginError
from hubcore.fields import build
from hubcore.pretrain.objectives import find_objective, objective_entries
from hubcore.pretrain.prepare import prepare
from hubcore.pretrain.recipe import (
    RECIPES,
    DataSection,
    MonitorSection,
    OptimizationSection,
    RunSection,
    read_recipe,
    read_yaml,
    shipped_recipes,
)
from tests.conftest import Installer
from tests.hubcore.pretrain.conftest import Lab
from tests.paths import REPOSITORY


def test_the_shipped_recipes_are_complete_and_valid() -> None:
    hubert = ["hubert_base_it1", "hubert_base_it2", "hubert_tiny"]
    assert shipped_recipes() == [*hubert, "ofa_tiny", "ofa_wav2vec2_base_librispeech_v1", "tiny", "wav2vec2_base"]
    for name in shipped_recipes():
        recipe = read_recipe(name)
        cls = find_objective(recipe.upstream)
        named = cls.model_configs[recipe.model["config"]]
        changes = {key: value for key, value in recipe.model.items() if key != "config"}
        build(type(named), changes, prefix="model", where=recipe.source, start=named)
        config = build(cls.config_class, recipe.objective, prefix="objective", where=recipe.source)
        assert 0 < recipe.monitor.min_lead < 0.01 and recipe.monitor.min_accuracy == 0
        units = config.clusters[0] if name in hubert else config.codebook_groups * config.codebook_entries
        assert 0 < recipe.monitor.min_perplexity < units / 4


def test_the_seeds_recipe_has_the_numbers_of_the_original() -> None:
    recipe = read_recipe("ofa_wav2vec2_base_librispeech_v1")
    optimization, data, objective = recipe.optimization, recipe.data, recipe.objective
    assert (optimization.max_updates, optimization.lr, optimization.warmup_updates) == (20000, 5e-4, 32000)
    assert (optimization.betas, optimization.eps, optimization.weight_decay) == ((0.9, 0.98), 1e-6, 0.01)
    assert (optimization.precision, optimization.accumulate) == ("fp16", 64)
    assert (data.max_samples_per_batch, data.min_samples, data.max_samples) == (1_400_000, 32_000, None)
    weights = [
        objective[f"{name}_weight"] for name in ("diversity", "features_penalty", "cardinality", "segmentation", "frame")
    ]
    assert weights == [0.1, 10.0, 0.0, 0.05, 0.5]
    assert optimization.learning_rate(4999) == pytest.approx(7.8e-5, rel=0.01), "the rate of the published checkpoint"


def test_every_key_of_a_shipped_base_recipe_names_the_originals() -> None:
    for name in ("wav2vec2_base", "ofa_wav2vec2_base_librispeech_v1", "hubert_base_it1", "hubert_base_it2"):
        lines = (RECIPES / f"{name}.yaml").read_text().splitlines()
        monitor = lines.index("monitor:")
        bare = [line for line in lines[:monitor] if re.match(r"\s+\w+: ", line) and "  # " not in line]
        assert bare == []


def test_overrides_are_yaml_and_win(lab: Lab) -> None:
    path = str(lab.recipe())
    recipe = read_recipe(path, ["optimization.lr=5e-4", "data.train=a.tsv", "data.segments=[x, y]", "data.max_samples=null"])
    assert recipe.optimization.lr == 5e-4 and recipe.data.max_samples is None
    assert recipe.data.train == (str(Path.cwd() / "a.tsv"),)
    assert [Path(each).name for each in recipe.data.segments] == ["x", "y"]
    assert read_recipe(path, ["run.seed=1", "run.seed=2"]).run.seed == 2
    assert read_recipe(path, ["objective.dropout=0.5"]).objective == {"dropout": 0.5}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimization.max_updatess=3"], r"override 'optimization.max_updatess=3': .*no key 'max_updatess'.*max_updates"),
        (["optimisation.lr=3"], r"override 'optimisation.lr=3': optimisation is unknown.*nearest are optimization"),
        (
            ["optimization.lr=fast"],
            r"override 'optimization.lr=fast': optimization.lr must be a number of at least 0, but is .fast.",
        ),
        (["optimization.lr=.nan"], r"optimization.lr must be a number of at least 0, but is nan"),
        (
            ["optimization.betas=[0.9]"],
            r"optimization.betas must be a list \(2 values, each a number from 0 to below 1\), but is \[0.9\]",
        ),
        (["optimization.betas=[0.9, 1.5]"], r"each a number from 0 to below 1"),
        (["optimization.precision=fp8"], r"must be one of fp32, bf16, fp16"),
        (["optimization.accumulate=0"], r"override 'optimization.accumulate=0'.*must be a whole number of at least 1"),
        (["run.seed=1.5"], r"run.seed must be a whole number.*, but is 1.5"),
        (["run.tensorboard=1"], r"run.tensorboard must be true or false, but is 1"),
        (["data.max_samples=100"], r"data: max_samples is 100, below min_samples"),
        (["data.segments=[a, b, c]"], r"data.segments must be a list .* from 0 to 2 items"),
        (["data.train=null"], r"data.train must be a list.*, but is None"),
        (["optimization=3"], r"optimization must be keys with values, but is 3"),
        (["upstream.lr=3"], r"upstream is no section"),
        (["upstream="], r"upstream must be text, but is None"),
        (["lr"], r"'lr' is not an override"),
        (["run.seed=[1"], r"the value of 'run.seed=\[1': line 2: it is not valid YAML"),
        (["name=!!int a"], r"tags such as tag:yaml.org,2002:int are not allowed"),
        (["run.seed=1:30"], r"run.seed must be a whole number.*, but is '1:30'"),
        (["run.seed=" + "1:" * 200_000 + "1"], r"run.seed must be a whole number"),
        (["run.seed=0x10"], r"run.seed must be a whole number.*, but is '0x10'"),
        (["run.seed=1_000"], r"run.seed must be a whole number.*, but is '1_000'"),
        (["run.seed=" + "9" * 5000], r"run.seed must be a whole number"),
        (["optimization.lr=1:30.5"], r"optimization.lr must be a number.*, but is '1:30.5'"),
        (["run.tensorboard=off"], r"run.tensorboard must be true or false, but is 'off'"),
        (["model={a: &x [1], b: *x}"], r"anchors and aliases are not allowed"),
        (["model=" + "[" * 100_000], r"nested deeper than 50"),
        (["name=\x00"], r"is not valid YAML \(unacceptable character"),
        (["model={[a]: 1}"], r"is not valid YAML \(a key is no plain text"),
        ([f"run.seed={2**63}"], r"run.seed must be a whole number from 0 to below 9,223"),
    ],
)
def test_mistakes_are_named(lab: Lab, overrides: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_recipe(str(lab.recipe()), overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["objective.dropuot=0.5"], r"override 'objective.dropuot=0.5': .*no key 'dropuot'.*nearest are dropout"),
        (["objective.dropout=yes"], r"objective.dropout must be a number.*, but is 'yes'"),
        (["model.config=smal"], r"override 'model.config=smal': model.config is 'smal'. It must be one of small"),
        (["model.num_heads=3"], r"model: num_heads must be a divisor of dim=8, but is 3"),
        (["model.dimm=3"], r"model.dimm is unknown.*nearest are dim"),
        (["upstream=toyy"], r"no objective is called 'toyy'. The nearest are toy"),
        (["data.train=[]"], r"data.train is empty"),
        (["data.min_samples=1000000"], r"of 20 utterances none has 1000000 samples"),
        (["data.max_samples_per_batch=100"], r"A batch holds 100 \(data.max_samples_per_batch\)"),
        (["data.min_samples=1"], r"data.min_samples is 1. The first frame of this model needs \d+ samples"),
    ],
)
def test_mistakes_that_need_the_objective_or_the_data_are_named(lab: Lab, overrides: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        prepare(read_recipe(str(lab.recipe()), overrides))


LAUGHS = "a0: &a0 [ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
"""Ten lines of a billion laughs."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"holds None. A recipe is keys with values"),
        ("- a", r"A recipe is keys with values"),
        ("model: {config: small}", r"upstream is missing"),
        ("upstream: toy\nupstream: toy", r"the key 'upstream' stands twice"),
        (
            "upstream: toy\nrun: {seed: 1, sed: 2}",
            r"toy_recipe.yaml: run.sed is unknown; run has no key 'sed'. The nearest are seed",
        ),
        ("upstream: !!python/object:os.system x", r"tags such as tag:yaml.org,2002:python/object:os.system are not allowed"),
        (LAUGHS, r"line 1: anchors and aliases are not allowed"),
        ("upstream: toy\n<<: {name: other}", r"<< is unknown"),
        ("#" * (1 << 20) + "\nupstream: toy", r"larger than 1048576 bytes"),
        ("upstream: \x07", r"is not valid YAML"),
        ("{{a: 1}: 1}", r"a key is no plain text"),
    ],
)
def test_files_that_are_no_recipes_are_refused(lab: Lab, text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_recipe(str(lab.recipe(text)))


def test_a_name_that_is_none_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no recipe is called 'tny'. The nearest are tiny"):
        read_recipe("tny")
    with pytest.raises(OptionError, match=r"is not a file. A recipe is a YAML file, or one of hubert_base_it1"):
        read_recipe(str(tmp_path / "none.yaml"))


def test_a_resolved_recipe_is_a_recipe_and_says_everything(lab: Lab) -> None:
    recipe = prepare(read_recipe(str(lab.recipe()))).recipe
    path = lab.folder / "again.yaml"
    path.write_text(yaml.safe_dump({**recipe.plain(), "made_with": {"torch": "2"}}))
    again = read_recipe(str(path))
    assert again.plain() == recipe.plain()
    assert prepare(again).recipe.plain() == recipe.plain()
    values = read_yaml(path)
    assert values["name"] == "toy_recipe" and values["model"]["num_heads"] == 2 and values["objective"]["dropout"] == 0.1


def test_two_owners_of_an_objective_must_be_told_apart(lab: Lab, install: Installer) -> None:
    points = "[hubcore.objectives]\ntoy = nowhere:Thing\nbroken = nowhere:Thing\nodd = nowhere\n"
    install("other-toys", entry_points=points)
    with pytest.raises(OptionError, match="'other-toys:toy' or 'toy-objective:toy'"):
        find_objective("toy")
    assert find_objective("toy-objective:toy").__name__ == "ToyPretraining"
    with pytest.raises(PluginError, match=r"nowhere:Thing cannot be imported: ModuleNotFoundError.*other-toys 1.0"):
        find_objective("other-toys:toy")
    with pytest.raises(PluginError, match="'odd' is 'nowhere', which is not module:Class"):
        find_objective("odd")
    assert {"wav2vec2", "ofa_wav2vec2", "toy", "broken"} <= {entry.name for entry in objective_entries()}


def test_a_disabled_distribution_brings_no_objective(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBCORE_DISABLE_PLUGINS", "Toy_Objective")
    with pytest.raises(OptionError, match="no objective is called 'toy'"):
        find_objective("toy")


def test_what_is_no_objective_is_refused(install: Installer) -> None:
    files = {"some_things.py": "class Empty:\n    upstream = 'x'\n\ndef function():\n    pass\n"}
    install("things", entry_points="[hubcore.objectives]\nempty = some_things:Empty\n", files=files)
    with pytest.raises(PluginError, match="lacks model_configs, config_class"):
        find_objective("empty")


def test_the_rate_rises_and_falls() -> None:
    options = read_recipe("wav2vec2_base").optimization
    rates = [options.learning_rate(update) for update in range(0, options.max_updates + 1, 1000)]
    assert rates[0] > 0 and max(rates) == options.lr == rates[32]
    assert all(a < b for a, b in itertools.pairwise(rates[:33]))
    assert all(a > b for a, b in itertools.pairwise(rates[32:]))
    assert rates[-1] == 0


@pytest.mark.parametrize("text", ["010", "0x10", "0b11", "1_000", "1:30"])
def test_a_whole_number_is_decimal(text: str) -> None:
    with pytest.raises(OptionError, match=rf"run.save_every must be a whole number of at least 1, but is '{text}'"):
        read_recipe("tiny", [f"run.save_every={text}"])


def test_the_page_has_every_key() -> None:
    page = (REPOSITORY / "docs/pretrain.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `((?:data|optimization|run|monitor|objective|model)\.\w+|upstream)` \|", page, re.MULTILINE)
    sections = {"data": DataSection, "optimization": OptimizationSection, "run": RunSection, "monitor": MonitorSection}
    keys = ["upstream", "model.config"]
    keys += [f"{name}.{field.name}" for name, section in sections.items() for field in dataclasses.fields(section)]
    configs = [find_objective(name).config_class for name in ("ofa_wav2vec2", "hubert")]
    keys += sorted({f"objective.{field.name}" for config in configs for field in dataclasses.fields(config)})
    assert sorted(documented) == sorted(keys)
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (?:wav2vec|HuBERT|OFA|the published)", page, re.MULTILINE)
    assert sorted(name.strip("`") for row in rows for name in row.split(", ")) == shipped_recipes()
