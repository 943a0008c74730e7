"""`hubcore pretrain` and `hubcore plot RUN` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hubcore.pretrain.curves import read_curves
from hubcore.pretrain.metrics import describe_row, run_figures
from hubcore_ofa_wav2vec2.pretrain.objective import FIGURES
from tests.hubcore.pretrain.conftest import Lab
from tests.running import command

pytestmark = pytest.mark.slow

run = command


def test_a_run_from_the_command_line(lab: Lab) -> None:
    result = run(*lab.arguments("optimization.max_updates=4"))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{lab.folder}/run: 4 updates done. hub.load(NAME, checkpoint='{lab.folder}/run') loads it.\n"
    lines = result.stderr.splitlines()
    assert "hubcore: 1 process on cpu, precision fp32" in lines
    shown = [line for line in lines if line.startswith("update 4 of 4: loss ")]
    assert len(shown) == 1 and "perplexity" in shown[0] and "x real time" in shown[0] and "left" in shown[0]
    again = run(*lab.arguments("optimization.max_updates=4"))
    assert again.exit_code == 0 and "resumed at update 4 of 4" in again.stderr


def test_the_resolved_recipe_goes_on_with_the_run(lab: Lab) -> None:
    assert run(*lab.arguments("optimization.max_updates=4")).exit_code == 0
    out = str(lab.folder / "run")
    result = run("pretrain", f"{out}/recipe.yaml", "optimization.max_updates=6", "--out", out)
    assert result.exit_code == 0 and "resumed at update 4 of 6" in result.stderr, result.output


def test_a_collapse_is_exit_code_1(lab: Lab) -> None:
    limits = ("monitor.patience=1", "monitor.grace_updates=0", "monitor.min_perplexity=4", "objective.constant_perplexity=1.0")
    result = run(*lab.arguments(*limits))
    assert result.exit_code == 1 and "hubcore: stopped: code_perplexity is 1 at update 1" in result.stderr
    as_json = run(*lab.arguments(*limits, out="json"), "--json")
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["status"] == "stopped"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimization.lrr=1"], "optimization has no key 'lrr'"),
        (["upstream=fbank"], "no objective is called 'fbank'"),
        (["data.train=nowhere.tsv"], "nowhere.tsv cannot be read"),
    ],
)
def test_bad_input_is_exit_code_2_and_leaves_nothing(lab: Lab, overrides: list[str], said: str) -> None:
    result = run(*lab.arguments(*overrides))
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.output
    assert not (lab.folder / "run").exists()


def test_a_dry_run_prints_the_plan_and_trains_nothing(lab: Lab) -> None:
    result = run(*lab.arguments("optimization.warmup_updates=100"), "--dry-run")
    assert result.exit_code == 0, result.output
    plan, _, recipe = result.stdout.partition("\nname: ")
    figures = dict(line.rsplit("  ", 1) for line in plan.splitlines() if "  " in line)
    figures = {key.strip(): value.strip() for key, value in figures.items()}
    assert figures["utterances"] == "20" and figures["micro batches an update"] == "2" and figures["updates"] == "12"
    assert "never reaches optimization.lr" in plan and figures["highest lr"] == "0.0006"
    assert yaml.safe_load("name: " + recipe)["optimization"]["warmup_updates"] == 100
    assert not (lab.folder / "run").exists()
    as_json = json.loads(run(*lab.arguments(), "--dry-run", "--json").stdout)
    samples = sum(int(line.split("\t")[1]) for line in lab.train.read_text().splitlines()[1:])
    assert as_json["hours"] == pytest.approx(samples / 16000 / 3600, abs=1e-3)
    assert as_json["highest_lr"] == 5e-3 and as_json["recipe"]["upstream"] == "toy"


def test_a_plan_without_a_warm_up_has_its_highest_rate(lab: Lab) -> None:
    planned = run(*lab.arguments("optimization.warmup_updates=0"), "--dry-run", "--json")
    assert json.loads(planned.stdout)["highest_lr"] == 5e-3


@pytest.mark.slow
def test_what_a_dry_run_says_of_a_checkpoint_is_true(lab: Lab) -> None:
    promised = json.loads(run(*lab.arguments(), "--dry-run", "--json").stdout)["checkpoint_bytes"]
    assert run(*lab.arguments()).exit_code == 0
    folder = lab.folder / "run/checkpoints/update_00000012"
    there = sum((folder / name).stat().st_size for name in ("model.safetensors", "optimizer.safetensors"))
    assert promised < there < promised + 16000, "but for the names, which are most of a model as small as this"


def test_the_live_line_shows_what_there_is() -> None:
    row = {"loss": 2.5, "code_perplexity": 80.25, "accuracy": 0.5, "alpha_mean": 0.25, "frame_period_ms": 41.0, "lr": 5e-4}
    text = ", ".join(describe_row(row, run_figures(FIGURES)))
    assert text == "loss 2.500, accuracy 0.500, perplexity 80.2, alpha 0.250, 41.0 ms a frame, lr 5.00e-04"


@pytest.mark.slow
def test_a_dry_run_refuses_what_the_start_refuses(lab: Lab) -> None:
    result = run(*lab.arguments(), "--init", "no/such.pt", "--dry-run")
    assert result.exit_code == 2 and "no/such.pt does not exist" in result.output
    assert run(*lab.arguments(out="run")).exit_code == 0
    started = run(*lab.arguments("optimization.lr=1e-9", out="run"))
    dry = run(*lab.arguments("optimization.lr=1e-9", out="run"), "--dry-run")
    assert dry.exit_code == started.exit_code == 2 and dry.output == started.output


@pytest.mark.slow
def test_the_curves_of_a_run_and_of_several(lab: Lab) -> None:
    for out in ("one", "two"):
        assert run(*lab.arguments(out=out)).exit_code == 0
    picture = lab.folder / "curves.png"
    result = run("plot", str(lab.folder / "one"), "-o", str(picture))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{picture}: {lab.folder / 'one'}, up to update 12\n"
    first = picture.read_bytes()
    assert first[:4] == b"\x89PNG" and run("plot", str(lab.folder / "one"), "-o", str(picture)).exit_code == 0
    assert picture.read_bytes() == first
    assert run("plot", str(lab.folder / "one"), str(lab.folder / "two"), "-o", str(picture)).exit_code == 0
    assert picture.read_bytes() != first


@pytest.mark.slow
def test_curves_are_the_rows(lab: Lab) -> None:
    from hubcore.pretrain.curves import draw_curves

    assert run(*lab.arguments(out="one")).exit_code == 0
    curves = read_curves(lab.folder / "one")
    rows = [json.loads(line) for line in (lab.folder / "one/metrics.jsonl").read_text().splitlines()]
    updates, losses = curves.series["loss"]
    assert list(zip(updates, losses, strict=True)) == [(row["update"], row["loss"]) for row in rows if "loss" in row]
    figure = draw_curves([curves, curves])
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.lines}
    assert set(panels) == {
        "loss of a target (nats)",
        "weighted loss terms",
        "accuracy",
        "perplexity",
        "norm of the gradient",
        "learning rate",
    }
    drawn = panels["loss of a target (nats)"].lines
    assert len(drawn) == 6, "training and two variants of validation, of two runs"
    assert drawn[0].get_ydata().tolist() == losses


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{folder}"], "is not a run: it has no metrics.jsonl"),
        (["{folder}/one", "-u", "fbank"], "are for a recording"),
        (["a.wav", "b.wav", "-u", "fbank"], "2 recordings were given"),
        (["{folder}/empty"], "has no figures yet"),
    ],
)
def test_what_has_no_curves_is_exit_code_2(lab: Lab, arguments: list[str], said: str) -> None:
    (lab.folder / "one").mkdir()
    (lab.folder / "empty").mkdir()
    Path(lab.folder / "empty/metrics.jsonl").touch()
    given = [argument.format(folder=lab.folder) for argument in arguments]
    result = run("plot", *given, "-o", str(lab.folder / "a.png"))
    assert result.exit_code == 2 and said in result.output
    assert not (lab.folder / "a.png").exists()
