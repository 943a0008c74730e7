"""The loop in one process: what an update does, what a run writes, how it ends, what its checkpoint is good for."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from hubcore import hub
from hubcore.errors import CheckpointError, OptionError
from hubcore.pretrain import Outcome, Status, pretrain, read_recipe
from hubcore.pretrain.data import read_ahead
from hubcore.pretrain.metrics import RowFile, read_rows
from hubcore.pretrain.prepare import prepare
from hubcore.pretrain.processes import Processes
from hubcore.pretrain.seeds import derive_seed
from hubcore.pretrain.steps import Stepper
from hubcore.pretrain.tensorboard import EventWriter
from hubcore.registry.reading import read_registry
from hubcore_wav2vec2 import Wav2Vec2Upstream
from tests.hubcore.pretrain.conftest import Lab

pytestmark = pytest.mark.slow


def go(lab: Lab, *overrides: str, out: str = "run", **options: Any) -> Outcome:
    return pretrain(read_recipe(str(lab.recipe()), overrides), lab.folder / out, **options)


def rows(lab: Lab, out: str = "run") -> list[dict[str, Any]]:
    return read_rows(lab.folder / out / "metrics.jsonl")


def trained(lab: Lab, out: str = "run") -> list[dict[str, Any]]:
    return [row for row in rows(lab, out) if "lr" in row]


def test_a_run_writes_what_it_promises(lab: Lab) -> None:
    seen: list[Status] = []
    outcome = go(lab, report=seen.append)
    assert outcome == Outcome("finished", 12)
    run = lab.folder / "run"
    assert [row["update"] for row in trained(lab)] == list(range(1, 13)) == [status.update for status in seen]
    assert trained(lab)[-1]["loss"] < 0.95 * trained(lab)[0]["loss"]
    first = trained(lab)[0]
    assert first["loss"] == pytest.approx(first["weighted/error"] + first["weighted/spread"], rel=1e-5)
    assert first["weighted/spread"] == pytest.approx(0.1 * first["spread"], rel=1e-5)
    assert first["error"] == first["weighted/error"], "a sum over targets is shown for one of them"
    assert first["lr"] == pytest.approx(5e-3 / 4)
    valid = [row for row in rows(lab) if "lr" not in row]
    assert [row["update"] for row in valid] == [4, 8, 12]
    assert {name.rpartition("/")[0] for name in valid[0] if name != "update"} == {"valid/plain", "valid/loud"}
    assert valid[0]["valid/plain/error"] != valid[0]["valid/loud/error"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"update_{n:08}" for n in (4, 8, 12)]
    timing = read_rows(run / "timing.jsonl")
    assert len(timing) == len(rows(lab)) and all(set(row) == {"update", "time", "seconds"} for row in timing)
    made = yaml.safe_load((run / "recipe.yaml").read_text())["made_with"]
    assert made["torch"] == torch.__version__ and set(made) >= {"hubcore", "accelerate", "code_revision", "data_revision"}


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(lab: Lab) -> None:
    go(lab, out="a")
    torch.rand(1000)  # what the global generator did before is of no account
    go(lab, "run.log_every=1", "data.workers=2", out="b")
    go(lab, "run.seed=4", out="c")
    a, b, c = ((lab.folder / out / "metrics.jsonl").read_bytes() for out in "abc")
    assert a == b != c
    weights = [(lab.folder / out / "checkpoints/update_00000012/model.safetensors").read_bytes() for out in "ab"]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_row_sums_up_its_updates(lab: Lab) -> None:
    go(lab, "run.log_every=5", "run.save_every=12", out="a")
    each = trained(lab, "a")
    assert [row["update"] for row in each] == [5, 10, 12]
    go(lab, out="c")
    single = trained(lab, "c")[:5]
    sizes = [row["sample_size"] for row in single]
    assert each[0]["sample_size"] == sum(sizes)
    mean = sum(row["loss"] * size for row, size in zip(single, sizes, strict=True)) / sum(sizes)
    assert each[0]["loss"] == pytest.approx(mean, rel=1e-5)
    assert each[0]["grad_norm"] == pytest.approx(sum(row["grad_norm"] for row in single) / 5, rel=1e-5)


def test_an_update_is_adamw_on_the_gradient_of_a_target(lab: Lab) -> None:
    """Against the same update written out by hand."""
    recipe = read_recipe(str(lab.recipe()), ["optimization.clip_norm=0.5"])
    prepared = prepare(recipe)
    stepper = Stepper(prepared.build(), recipe, Processes("cpu"))
    by_hand = prepared.build()
    assert all(torch.equal(a, b) for a, b in zip(by_hand.parameters(), stepper.objective.parameters(), strict=True))
    batches = [prepared.train.reader.load(*each) for each in prepared.train.epochs.take(prepared_start(), 2)]
    total, size = 0.0, 0
    for place, loaded in enumerate(batches):
        seed = derive_seed(recipe.run.seed, "micro-batch", 0, place)
        torch.manual_seed(seed)
        losses = by_hand(loaded.batch, update=0, seed=seed)
        losses.total.backward()
        total, size = total + float(losses.total.detach()), size + losses.sample_size
    gradients = {name: parameter.grad / size for name, parameter in by_hand.named_parameters()}
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    done = stepper.update(0, iter(batches))
    assert (done.sample_size, done.lr) == (size, recipe.optimization.learning_rate(0))
    assert done.loss == pytest.approx(total / size) and done.grad_norm == pytest.approx(norm, rel=1e-4)
    for name, parameter in stepper.objective.named_parameters():
        old = dict(by_hand.named_parameters())[name].detach()
        gradient = gradients[name] * min(1.0, 0.5 / norm)
        # The first step of Adam is the gradient's sign, but for eps; the decay is apart from it.
        step = gradient / (gradient.abs() + recipe.optimization.eps)
        wanted = old - done.lr * (step + recipe.optimization.weight_decay * old)
        assert float((parameter.detach() - wanted).abs().max()) < 2e-6, name


def test_eps_in_fairseq_s_form_is_fairseq_s_adam(lab: Lab) -> None:
    """Against its formula by hand; parameters that layer drop leaves out have made fewer steps."""
    options = ["objective.skip=true", "optimization.eps=0.01", "optimization.eps_form=fairseq"]
    recipe = read_recipe(str(lab.recipe()), options)
    prepared, now = prepare(recipe), recipe.optimization
    stepper = Stepper(prepared.build(), recipe, Processes("cpu"))
    moments: dict[str, tuple[Any, Any, int]] = {}
    batches = read_ahead(prepared.train.reader, iter(prepared.train.epochs.take(prepared_start(), 12)), workers=0)
    for update in range(6):
        before = {name: value.detach().clone() for name, value in stepper.objective.named_parameters()}
        lr = stepper.update(update, batches).lr
        for name, value in stepper.objective.named_parameters():
            if value.grad is None:
                continue
            first, second, step = moments.get(name, (0.0, 0.0, 0))
            first = now.betas[0] * first + (1 - now.betas[0]) * value.grad
            second = now.betas[1] * second + (1 - now.betas[1]) * value.grad**2
            moments[name] = first, second, (step := step + 1)
            rate = lr * math.sqrt(1 - now.betas[1] ** step) / (1 - now.betas[0] ** step)
            wanted = before[name] * (1 - lr * now.weight_decay) - rate * first / (second.sqrt() + now.eps)
            assert float((value.detach() - wanted).abs().max()) < 1e-7, name
    assert len({step for _, _, step in moments.values()}) > 1


def prepared_start() -> Any:
    from hubcore.pretrain.data import Place

    return Place(0, 0)


def test_an_update_without_targets_changes_nothing_and_is_counted(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    outcome = go(lab, "objective.no_targets_at=[0, 1]", "optimization.max_updates=3", "run.save_every=1")
    assert outcome.status == "finished"
    assert "update 2 has no targets" in caplog.text
    assert [row["without_targets"] for row in trained(lab)] == [1, 1, 0]
    assert "loss" not in trained(lab)[0]
    folder = lab.folder / "run/checkpoints"
    one, two, three = ((folder / f"update_{n:08}/model.safetensors").read_bytes() for n in (1, 2, 3))
    assert one == two != three


def test_every_micro_batch_of_every_update_has_its_own_seed(lab: Lab) -> None:
    recipe = read_recipe(str(lab.recipe()))
    stepper = Stepper(prepare(recipe).build(), recipe, Processes("cpu"))
    assert len({stepper.seed_for(update, place) for update in range(30) for place in range(8)}) == 240


def test_parameters_without_a_gradient_stay_as_they_are(lab: Lab) -> None:
    recipe = read_recipe(str(lab.recipe()), ["objective.skip=true"])
    prepared = prepare(recipe)
    stepper = Stepper(prepared.build(), recipe, Processes("cpu"))
    batches = read_ahead(prepared.train.reader, iter(prepared.train.epochs.take(prepared_start(), 40)), workers=0)
    before = stepper.objective.extra.weight.detach().clone()  # type: ignore[union-attr, operator]
    kept = 0
    for update in range(12):
        stepper.update(update, batches)
        now = stepper.objective.extra.weight.detach().clone()  # type: ignore[union-attr, operator]
        used = stepper.objective.extra.weight.grad is not None  # type: ignore[union-attr]
        assert torch.equal(before, now) != used
        kept += not used
        before = now
    assert 2 <= kept <= 10


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.slow
def test_half_precisions_are_real_and_resume(lab: Lab, precision: str) -> None:
    common = (f"optimization.precision={precision}", "run.save_every=3")
    go(lab, *common, out="whole")
    go(lab, *common, "optimization.max_updates=6", out="halves")
    go(lab, *common, out="halves")
    go(lab, out="fp32")
    losses = [[row["loss"] for row in trained(lab, out)] for out in ("whole", "fp32")]
    assert losses[0][0] != losses[1][0] and losses[0][0] == pytest.approx(losses[1][0], rel=0.01)
    names = [name for row in trained(lab, "halves") for name in row]
    assert ("loss_scale" in names) == (precision == "fp16")
    # The rate depends on max_updates, so the halves are compared where that has no say: they go on, and stay finite.
    assert len(trained(lab, "halves")) == 12 and all(math.isfinite(row["loss"]) for row in trained(lab, "halves"))
    with open(lab.folder / "whole/checkpoints/update_00000012/state.json") as file:
        assert bool(json.load(file)["scaler"]) == (precision == "fp16")


@pytest.mark.slow
def test_fp16_that_overflows_skips_and_halves_its_scale(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.pretrain.steps._FIRST_SCALE", 2.0**16)
    outcome = go(lab, "optimization.precision=fp16", "optimization.max_updates=40", "run.save_every=100", "data.valid=[]")
    assert outcome.status == "finished"
    over = [row["overflows"] for row in trained(lab)]
    assert over[0] == 1 and sum(over) >= 5 and over[-1] == 0
    scales = [row["loss_scale"] for row in trained(lab)]
    assert scales[0] == 2.0**15 and scales[-1] == 2.0 ** (16 - sum(over))
    assert trained(lab)[-1]["loss"] < trained(lab)[0]["loss"]


def test_fp16_that_never_fits_stops(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubcore.pretrain.steps._FIRST_SCALE", 4e-4)
    outcome = go(lab, "optimization.precision=fp16", "objective.spread_weight=1e30")
    assert outcome.status == "stopped" and "fp16 overflows at update 1 even with a loss scale of 0.0001" in outcome.message


def test_a_loss_that_is_no_number_stops_before_it_does_harm(lab: Lab) -> None:
    outcome = go(lab, "objective.nan_at=6", "monitor.max_skipped=0")
    assert (outcome.status, outcome.update) == ("stopped", 6)
    assert "the loss is nan at update 6" in outcome.message and ".wav" in outcome.message
    assert "Skipped updates: 1; monitor.max_skipped is 0" in outcome.message
    assert "The checkpoint of update 4 is kept" in outcome.message
    assert [row["update"] for row in trained(lab)] == [1, 2, 3, 4, 5, 6]
    weights = hub.load("wav2vec2", checkpoint=lab.folder / "run").state_dict()  # type: ignore[attr-defined]
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_update_that_is_no_number_is_left_out_and_counted(
    lab: Lab, precision: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubcore.pretrain.steps._FIRST_SCALE", 2.0**-5)
    options = ("objective.nan_at=2", "optimization.max_updates=4", "data.valid=[]", "run.save_every=1", "run.keep_last=9")
    assert go(lab, *options, f"optimization.precision={precision}").status == "finished"
    left_out = "overflows" if precision == "fp16" else "skipped"
    assert [row[left_out] for row in trained(lab)] == [0, 0, 1, 0]
    assert ("the loss is nan at update 2" in caplog.text) == (precision != "fp16")
    folder = lab.folder / "run/checkpoints"
    before, at, after = ((folder / f"update_{n:08}/model.safetensors").read_bytes() for n in (2, 3, 4))
    assert before == at != after


def poison(lab: Lab, name: str = "05.wav") -> str:
    """Makes the samples of a file so large that its features are NaN."""
    samples = soundfile.info(lab.folder / "train" / name).frames
    soundfile.write(lab.folder / "train" / name, np.full(samples, 1e30, np.float32), 16000, subtype="FLOAT")
    return name


@pytest.mark.slow
def test_a_run_that_one_file_stops_goes_on_without_it(lab: Lab) -> None:
    name = poison(lab)
    common = ("data.valid=[]", "optimization.max_updates=24", "monitor.max_skipped=1")
    stopped = go(lab, *common)
    assert stopped.status == "stopped" and "Skipped updates: 2" in stopped.message
    _, _, named = stopped.message.partition("Its utterances: ")
    assert name in named and 2 <= named.count(".wav") <= 6, "all of its micro-batch, and no other"
    assert go(lab, *common, f"data.exclude=[{name}]").status == "finished"
    assert sum(row["skipped"] for row in trained(lab)) == 1 and {row["unreadable"] for row in trained(lab)} == {0}


def test_updates_that_were_left_out_are_counted_over_a_resume(lab: Lab) -> None:
    poison(lab)
    common = ("data.valid=[]", "monitor.max_skipped=1")
    whole = go(lab, *common, "optimization.max_updates=60", out="whole")
    first = next(row["update"] for row in trained(lab, "whole") if row["skipped"])
    assert go(lab, *common, f"optimization.max_updates={first}").status == "finished"
    parts = go(lab, *common, "optimization.max_updates=60")
    assert (parts.status, parts.update) == (whole.status, whole.update) == ("stopped", whole.update)


def test_an_excluded_file_must_be_one_and_some_must_be_left(lab: Lab) -> None:
    with pytest.raises(OptionError, match=r"data.exclude names 0f.wav, which no manifest lists.*"):
        go(lab, "data.exclude=[0f.wav]")
    with pytest.raises(OptionError, match="leaves no utterance"):
        go(lab, f"data.exclude=[{', '.join(f'{n:02}.wav' for n in range(4))}]")


def test_a_collapse_stops_with_what_was_seen(lab: Lab) -> None:
    limits = ("monitor.patience=3", "monitor.grace_updates=2", "monitor.min_perplexity=4.0")
    outcome = go(lab, *limits, "objective.constant_perplexity=1.5")
    assert (outcome.status, outcome.update) == ("stopped", 5)
    assert "code_perplexity is 1.5 at update 5 and was below its limit of 4 in 3 rows" in outcome.message
    assert "3 rows in a row. The toy has collapsed. Play less. The checkpoint" in outcome.message


def test_files_that_cannot_be_read_are_left_out_up_to_a_limit(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2, 3):
        (lab.folder / f"train/{number:02}.wav").write_bytes(b"RIFF")
    outcome = go(lab)
    assert outcome.status == "finished" and trained(lab)[-1]["unreadable"] == 3
    assert caplog.text.count("left out: ") == 3, "each is told once, however often it is met"
    stopped = go(lab, "data.max_unreadable=2", out="strict")
    assert stopped.status == "stopped" and "3 files could not be used" in stopped.message
    for path in (lab.folder / "train").glob("*.wav"):
        path.unlink()
    nothing = go(lab, out="nothing")
    assert nothing.status == "stopped", "a run that has nothing to learn from must not end well"
    assert "20 files could not be used" in nothing.message and "the manifests list 20" in nothing.message
    assert all(row["sample_size"] == 0 for row in trained(lab, "nothing"))


def test_short_utterances_are_listed_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        prepare(read_recipe(str(lab.recipe()), ["data.min_samples=4000"]))
    assert caplog.text.count("have fewer than 4000 samples (data.min_samples) and are left out: ") == 1


def test_guidance_is_opened_and_handed_on(lab: Lab) -> None:
    lines = [line.split("\t")[0] for line in lab.train.read_text().splitlines()[1:]]
    segments = lab.folder / "segments.tsv"
    segments.write_text("".join(f"{key}\tguide\n" for key in lines))
    assert go(lab, "objective.needs=true", f"data.segments={segments}", "data.valid=[]").status == "finished"
    with pytest.raises(OptionError, match="no guidance"):
        go(lab, "objective.needs=true", out="without")


def test_the_result_loads_with_its_card(lab: Lab) -> None:
    go(lab)
    run = lab.folder / "run"
    loaded = hub.load("wav2vec2", checkpoint=run)
    direct = Wav2Vec2Upstream.from_checkpoint(run)
    newest = Wav2Vec2Upstream.from_checkpoint(run / "checkpoints/update_00000012")
    for upstream in (loaded, direct):
        assert upstream.card is not None and upstream.card.upstream == "wav2vec2" and upstream.card.name == "run"
        note = str(upstream.card.note)
        assert "12 updates" in note and "recipe toy_recipe" in note and "seed 3" in note and "fresh weights" in note
        assert upstream.card.training_data == f"train.tsv, {hours(lab):.2f} h" and upstream.card.license == "unknown"
    wav = [torch.randn(4000)]
    assert torch.equal(loaded(wav).last_hidden_state, newest(wav).last_hidden_state)
    assert direct.load_report is not None and "head.weight" in direct.load_report.ignored
    older = Wav2Vec2Upstream.from_checkpoint(run / "checkpoints/update_00000004")
    assert not torch.equal(older(wav).last_hidden_state, newest(wav).last_hidden_state)


def hours(lab: Lab) -> float:
    return sum(int(line.split("\t")[1]) for line in lab.train.read_text().splitlines()[1:]) / 16000 / 3600


def test_the_card_is_a_registry_that_the_hub_can_use(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    go(lab, "run.license=CC-BY-4.0")
    path = lab.folder / "run/card.yaml"
    [card], broken = read_registry(path)
    assert not broken and card.license == "CC-BY-4.0"
    monkeypatch.setenv("HUBCORE_REGISTRY", str(path))
    upstream = hub.load("run")
    assert torch.equal(
        upstream([torch.ones(4000)]).last_hidden_state,
        hub.load("wav2vec2", checkpoint=lab.folder / "run")([torch.ones(4000)]).last_hidden_state,
    )


@pytest.mark.slow
def test_init_takes_weights_and_starts_at_zero(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    go(lab, out="first")
    with caplog.at_level(logging.INFO, logger="hubcore.pretrain"):
        go(lab, "optimization.lr=0.0", "optimization.weight_decay=0.0", out="second", init=str(lab.folder / "first"))
    assert "fresh: extra.bias, extra.weight, head.bias, head.weight" in caplog.text
    old, new = (Wav2Vec2Upstream.from_checkpoint(lab.folder / out) for out in ("first", "second"))
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    assert trained(lab, "second")[0]["update"] == 1
    assert new.card is not None and f"from the weights of {lab.folder / 'first'}" in str(new.card.note)


@pytest.mark.parametrize("killed", ["after a checkpoint", "before any"])
def test_a_run_goes_on_with_the_weights_that_it_began_with(lab: Lab, killed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = str(lab.folder / "first")
    go(lab, "optimization.max_updates=1", "data.valid=[]", out="first")
    go(lab, "optimization.max_updates=3", "data.valid=[]", out="whole", init=first)
    if killed == "before any":
        (lab.folder / "run").mkdir()
        (lab.folder / "run/recipe.yaml").write_bytes((lab.folder / "whole/recipe.yaml").read_bytes())
    else:
        go(lab, "optimization.max_updates=1", "data.valid=[]", init=first)
    with pytest.raises(OptionError, match=r"a run that began with --init .*first, and now --init is nowhere.pt"):
        go(lab, init="nowhere.pt")
    monkeypatch.chdir(lab.folder)
    go(lab, "optimization.max_updates=2", "data.valid=[]", init="first")
    go(lab, "optimization.max_updates=3", "data.valid=[]")
    assert trained(lab)[-1]["loss"] == pytest.approx(trained(lab, "whole")[-1]["loss"], rel=0.01)
    with pytest.raises(OptionError, match="a run that began with fresh weights, and now --init is"):
        go(lab, "data.valid=[]", out="first", init="first")


def test_another_recipe_does_not_go_on_with_a_run(lab: Lab) -> None:
    go(lab, "optimization.max_updates=4")
    before = (lab.folder / "run/metrics.jsonl").read_bytes()
    with pytest.raises(OptionError, match=r"run holds a run of another recipe: optimization.lr was 0.005 and is 0.1.*--init"):
        go(lab, "optimization.lr=0.1")
    for harmful in ("run.seed=9", "objective.dropout=0.2", "model.ffn_dim=8", "data.max_samples_per_batch=20000"):
        with pytest.raises(OptionError, match=harmful.partition("=")[0]):
            go(lab, harmful)
    assert (lab.folder / "run/metrics.jsonl").read_bytes() == before
    assert go(lab, "run.save_every=3", "monitor.patience=7", "data.workers=1", "run.keep_last=1").update == 12
    assert [path.name for path in (lab.folder / "run/checkpoints").iterdir()] == ["update_00000012"]


def test_a_run_from_before_an_option_existed_has_its_default(lab: Lab) -> None:
    go(lab, "optimization.max_updates=4")
    path = lab.folder / "run/recipe.yaml"
    values = yaml.safe_load(path.read_text())
    del values["objective"]["skip"], values["model"]["dropout"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(OptionError, match=r"objective.skip was False and is True"):
        go(lab, "objective.skip=true")
    assert go(lab).status == "finished"


def test_other_data_do_not_go_on_with_a_run(lab: Lab) -> None:
    go(lab, "optimization.max_updates=4")
    lab.train.write_text("\n".join(lab.train.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(OptionError, match="the training manifests are not those"):
        go(lab)


@pytest.mark.slow
def test_a_corpus_that_moved_is_still_the_same(lab: Lab) -> None:
    go(lab, out="whole")
    go(lab, "optimization.max_updates=4")
    moved = lab.folder / "moved.tsv"
    (lab.folder / "train").rename(lab.folder / "elsewhere")
    moved.write_text("\n".join([str(lab.folder / "elsewhere"), *lab.train.read_text().splitlines()[1:]]) + "\n")
    assert go(lab, f"data.train={moved}").update == 12
    assert trained(lab) == trained(lab, "whole")


def test_a_card_that_a_kill_left_behind_is_made_up_for(lab: Lab) -> None:
    go(lab, "optimization.max_updates=4")
    card = lab.folder / "run/card.yaml"
    stale = card.read_text()
    go(lab)
    newest = card.read_text()
    assert "12 updates" in newest and "4 updates" in stale
    for left in (stale, ""):
        card.write_text(left)
        go(lab)
        assert card.read_text() == newest
    card.unlink()
    go(lab)
    assert card.read_text() == newest
    card.write_text(newest + "# as it was\n")
    go(lab)
    assert card.read_text().endswith("# as it was\n"), "one that is right is left alone: versions may have changed since"


@pytest.mark.slow
def test_a_disk_that_fills_up_between_checkpoints_is_said_and_harms_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    go(lab, out="whole")
    write = RowFile.write

    def full(self: RowFile, row: dict[str, Any]) -> None:
        if row["update"] == 6:
            raise OSError(28, "No space left on device")
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RowFile, "write", full)
        with pytest.raises(
            CheckpointError, match=r"metrics of .* cannot be written .*No space.* update 4 is kept.* it resumes"
        ):
            go(lab)
    assert go(lab).status == "finished" and rows(lab) == rows(lab, "whole")


def test_processes_that_see_different_checkpoints_do_not_start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    go(lab, "optimization.max_updates=4")
    monkeypatch.setattr(Processes, "gather", lambda self, values: [*values, -1])
    with pytest.raises(OptionError, match=r"different checkpoints .*updates \[4, -1\].*one folder on all machines"):
        go(lab)


def test_event_files_that_cannot_be_written_are_no_reason_to_stop(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def add_scalar(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

        flush = close = add_scalar

    monkeypatch.setattr(EventWriter, "open", lambda *_: EventWriter(Full()))
    assert go(lab, "run.tensorboard=true").status == "finished"
    assert caplog.text.count("no more event files are written") == 1


def test_event_files_are_written_out_with_each_checkpoint(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in memory is lost with a process that is killed, and is not written again where the run resumes."""
    done: list[str] = []

    class Slow:
        def add_scalar(self, name: str, value: float, update: int) -> None:
            if name == "loss":
                done.append(f"row {update}")

        def flush(self) -> None:
            done.append("flush")

        def close(self) -> None:
            done.append("close")

    monkeypatch.setattr(EventWriter, "open", lambda *_: EventWriter(Slow()))
    go(lab, "run.tensorboard=true", "optimization.max_updates=8", "run.log_every=4", "data.valid=[]")
    assert done == ["row 4", "flush", "row 8", "flush", "close"]


def test_a_folder_in_use_is_not_used_twice(lab: Lab) -> None:
    from hubcore.pretrain.checkpoints import hold_run

    with hold_run(lab.folder / "run"), pytest.raises(CheckpointError, match="is in use by another run"):
        go(lab)


def test_event_files_have_the_figures(lab: Lab) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    go(lab, "run.tensorboard=true", "optimization.max_updates=3", "data.valid=[]")
    events = accumulator.EventAccumulator(str(lab.folder / "run/tensorboard"))
    events.Reload()
    assert "loss" in events.Tags()["scalars"]
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(row["update"], pytest.approx(row["loss"], rel=1e-6)) for row in trained(lab)]


def test_without_accelerate_the_command_that_installs_it_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from hubcore.errors import HubcoreError

    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(HubcoreError, match=r"pip install 'hubcore\[train\]'"):
        go(lab)


@pytest.mark.slow
def test_validation_leaves_training_as_it_is(lab: Lab) -> None:
    go(lab, "run.validate_every=1", out="a")
    go(lab, "data.valid=[]", out="b")
    assert trained(lab, "a") == trained(lab, "b")


def test_a_stand_in_counts_nothing(lab: Lab) -> None:
    go(lab, "optimization.max_updates=1", out="whole")
    recipe = read_recipe(str(lab.recipe()), ["optimization.max_updates=1"])
    first = prepare(recipe).train.epochs.epoch(0)[0]
    for index in first:
        (lab.folder / f"train/{index:02}.wav").unlink()
    go(lab, "optimization.max_updates=1", out="half")
    half, whole = trained(lab, "half")[0], trained(lab, "whole")[0]
    assert 0 < half["sample_size"] < whole["sample_size"] and half["unreadable"] == len(first)
    assert Path(lab.folder / "half/checkpoints/update_00000001").is_dir()
