"""The kit itself: exemptions, ids, what is built when, the report, and what its import needs."""

from __future__ import annotations

import functools
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hubcore import Card
from hubcore.errors import OptionError
from hubcore.testing import CHECKS, check_upstream, parametrize_with_checks, speech_like
from hubcore.testing.exemptions import Exemptions
from tests.conformance.broken_batches import PaddedMoments
from tests.conformance.broken_modules import MultipliedByZero, UnusedWeight
from tests.conformance.broken_outputs import FillsPadding
from tests.paths import REPOSITORY
from tests.running import python
from tests.toys import Energies, ToyUpstream

PAGE = (REPOSITORY / "docs/conformance.md").read_text(encoding="utf-8")


def parameters(decorated: Any) -> list[Any]:
    """The pytest parameter sets that the decorator gave a test."""
    (mark,) = decorated.pytestmark
    assert mark.args[0] == ("upstream", "check")
    return list(mark.args[1])


def contract(upstream: Any, check: Any) -> Any:
    check(upstream)
    return upstream


@parametrize_with_checks([ToyUpstream, functools.partial(Energies)])
def test_decorated_test_receives_upstream_and_check(upstream: Any, check: Any, tmp_path: Path) -> None:
    assert tmp_path.is_dir()
    assert isinstance(upstream, ToyUpstream | Energies)
    check(upstream)


class TestMethods:
    @parametrize_with_checks([Energies()])
    def test_decorated_method(self, upstream: Any, check: Any) -> None:
        assert isinstance(self, TestMethods)
        check(upstream)


def test_ids_name_the_upstream_and_the_check() -> None:
    with_card = ToyUpstream()
    with_card.card = Card(name="toy_960", upstream="toy", license="none needed")
    sources = ["fbank", ToyUpstream, with_card, ToyUpstream(), lambda: ToyUpstream(), functools.partial(ToyUpstream)]
    titles = ["fbank", "ToyUpstream", "toy_960", "ToyUpstream_2", "factory", "ToyUpstream_3"]
    ids = [parameter.id for parameter in parameters(parametrize_with_checks(sources)(contract))]
    assert ids == [f"{title}-{check}" for title in titles for check in CHECKS]


FEW = {
    name: CHECKS[name]
    for name in ("attributes", "lengths", "padding_is_zero", "determinism", "gradients_nonzero", "featurizer")
}


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a report says does not depend on how many checks it has."""
    monkeypatch.setattr("hubcore.testing.report.CHECKS", FEW)


def test_upstreams_are_built_once_when_the_first_test_runs() -> None:
    built: list[ToyUpstream] = []

    def factory() -> ToyUpstream:
        built.append(ToyUpstream())
        return built[-1]

    decorated: Any = parametrize_with_checks([factory])(contract)
    sources = [parameter.values for parameter in parameters(decorated)]
    assert not built
    results = [decorated(upstream=source, check=check) for source, check in sources[:3]]
    assert len(built) == 1
    assert all(result is built[0] for result in results)


def test_a_red_check_turns_the_test_red() -> None:
    decorated: Any = parametrize_with_checks([FillsPadding])(contract)
    (failing,) = [parameter for parameter in parameters(decorated) if parameter.id == "FillsPadding-padding_is_zero"]
    with pytest.raises(AssertionError, match="beyond its 13 frames"):
        decorated(upstream=failing.values[0], check=failing.values[1])


def test_exempt_check_is_an_expected_failure_with_the_reason() -> None:
    decorated = parametrize_with_checks([FillsPadding], exempt={"padding_is_zero": "filled on purpose"})(contract)
    marks = {parameter.id: parameter.marks for parameter in parameters(decorated)}
    (mark,) = marks["FillsPadding-padding_is_zero"]
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "filled on purpose", "strict": False})
    assert not marks["FillsPadding-lengths"]


@pytest.mark.parametrize(
    ("exempt", "words"),
    [
        ({"determinsm": "reason"}, r"there is none\. The nearest are determinism"),
        ({"zzz": "reason"}, r"There are attributes, bad_layers"),
        ({"determinism": ""}, r"'' as the reason for 'determinism'.*Write one sentence"),
        ({"determinism": "  "}, r"An exemption without a reason cannot be judged"),
        ({"determinism": None}, r"None as the reason"),
        ({"gradients_nonzero:*.gate": " "}, r"' ' as the reason for 'gradients_nonzero:\*\.gate'"),
        ({"determinism:*.gate": "reason"}, r"Only gradients_arrive, gradients_nonzero can.*Write 'determinism'"),
        ({"gradients_nonzero:": "reason"}, r"Write 'gradients_nonzero' to exempt the whole check"),
    ],
)
def test_exemptions_need_a_known_check_and_a_reason(exempt: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parametrize_with_checks([ToyUpstream], exempt=exempt)
    with pytest.raises(OptionError, match=words):
        check_upstream(ToyUpstream(), exempt)


@pytest.mark.parametrize(("check", "broken"), [("gradients_nonzero", MultipliedByZero), ("gradients_arrive", UnusedWeight)])
@pytest.mark.slow
def test_exempt_parameters_are_left_out(check: str, broken: Any) -> None:
    def outcome(exempt: dict[str, str]) -> str:
        report = check_upstream(broken(), exempt)
        return next(result.outcome for result in report.results if result.name == check)

    assert outcome({}) == "failed"
    assert outcome({f"{check}:mor*": "starts at zero"}) == "passed"
    assert outcome({f"{check}:conv.bias": "starts at zero"}) == "failed"


@pytest.mark.usefixtures("few_checks")
def test_exemption_of_no_parameter_is_out_of_date() -> None:
    report = check_upstream(ToyUpstream(), {"gradients_nonzero:*.gate": "starts at zero"})
    assert [failure.detail for failure in report.failures] == [
        "the exemption gradients_nonzero:*.gate matches no parameter; it is out of date."
    ]


class CountsThreads(ToyUpstream):
    threads: set[int]

    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        self.threads = getattr(self, "threads", set()) | {torch.get_num_threads()}
        return super().forward(wavs, lengths, layers=layers)


@pytest.mark.usefixtures("few_checks")
def test_checks_run_with_one_thread_and_give_the_others_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        reported, tested = CountsThreads(), CountsThreads()
        check_upstream(reported)
        decorated: Any = parametrize_with_checks([tested])(contract)
        source, check = parameters(decorated)[1].values
        decorated(upstream=source, check=check)
        assert (reported.threads, tested.threads, torch.get_num_threads()) == ({1}, {1}, 3)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("upstreams", ["fbank", ToyUpstream(), 3])
def test_upstreams_must_be_a_list(upstreams: Any) -> None:
    with pytest.raises(OptionError, match=r"Write \[upstream\] for a single one"):
        parametrize_with_checks(upstreams)


def test_item_of_another_kind_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"upstreams has a int\. Each item must be"):
        parametrize_with_checks([3])  # type: ignore[list-item]


def test_report_of_a_good_upstream() -> None:
    report = check_upstream(ToyUpstream())
    assert report.ok
    assert [result.name for result in report.results] == list(CHECKS)
    assert str(report).splitlines()[0] == f"ToyUpstream: {len(CHECKS)} passed, 0 failed, 0 exempt"
    report.raise_failures()


@pytest.mark.usefixtures("few_checks")
def test_report_of_a_broken_upstream_names_every_failure() -> None:
    report = check_upstream(FillsPadding(), {"determinism": "never called twice"})
    assert [failure.name for failure in report.failures] == ["padding_is_zero", "featurizer"]
    text = str(report)
    assert text.startswith("FillsPadding: 3 passed, 2 failed, 1 exempt")
    assert re.search(r"^  failed  padding_is_zero: layer 0 \(input\), utterance 0: values up to 1e-30", text, re.M)
    assert re.search(r"^  exempt  determinism: never called twice \(passes now, so the exemption may go\)", text, re.M)
    with pytest.raises(AssertionError) as caught:
        report.raise_failures()
    assert str(caught.value) == text


@pytest.mark.usefixtures("few_checks")
def test_report_of_an_exempt_failure_says_what_fails() -> None:
    report = check_upstream(FillsPadding(), {"padding_is_zero": "filled on purpose", "featurizer": "likewise"})
    assert report.ok
    assert re.search(r"exempt  padding_is_zero: filled on purpose \(fails: layer 0", str(report))


class Crashing(ToyUpstream):
    def forward(self, wavs: Any, lengths: Any = None, *, layers: Any = None) -> Any:
        raise ZeroDivisionError("oops")


@pytest.mark.usefixtures("few_checks")
def test_report_survives_an_upstream_that_raises() -> None:
    report = check_upstream(Crashing())
    details = {result.name: result.detail for result in report.results}
    assert details["lengths"] == "raised ZeroDivisionError: oops"
    assert details["attributes"] == ""
    assert len(report.results) == len(FEW)


@pytest.mark.usefixtures("few_checks")
def test_report_names_the_card() -> None:
    toy = ToyUpstream()
    toy.card = Card(name="toy_960", upstream="toy", license="none needed")
    assert check_upstream(toy).upstream == "ToyUpstream (toy_960)"


def test_checks_are_read_only() -> None:
    with pytest.raises(TypeError):
        CHECKS["mine"] = lambda upstream: None  # type: ignore[index]


def test_speech_like_is_repeatable_quiet_and_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    wav = speech_like(8000, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(wav, Tensor)
    assert wav.dtype == torch.float32
    assert float(wav.abs().max()) == pytest.approx(0.1)
    assert torch.equal(wav, speech_like(8000, seed=1))
    assert not torch.equal(wav, speech_like(8000, seed=2))
    assert speech_like(0).shape == (0,)


WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = None
from hubcore.errors import HubcoreError
from hubcore.testing import CHECKS, parametrize_with_checks
try:
    parametrize_with_checks([])
except HubcoreError as error:
    print(len(CHECKS), error)
"""


@pytest.mark.slow
def test_only_the_decorator_needs_pytest() -> None:
    assert re.match(
        rf"{len(CHECKS)} pytest is not installed\..*pip install pytest", python("-W", "error", "-c", WITHOUT_PYTEST).stdout
    )


def test_docs_table_matches_the_checks() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.M))
    proofs = {name: (check.__doc__ or "").split("\n")[0] for name, check in CHECKS.items()}
    assert rows == proofs
    assert list(rows) == list(CHECKS)


def test_docs_snippets_run(monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    # Classes can be pickled only from a module that can be imported.
    module: Any = types.ModuleType("conformance_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for snippet in snippets:
        exec(compile(snippet, "docs/conformance.md", "exec"), module.__dict__)
    assert module.report.ok, str(module.report)
    assert len(parameters(module.test_contract)) == 3 * len(CHECKS)
    marks = {parameter.id: parameter.marks for parameter in parameters(module.test_contract_with_dither)}
    assert [name for name, mark in marks.items() if mark] == ["fbank-determinism"]
    assert Exemptions.parse(module.exempt).patterns


def test_docs_show_a_message_that_the_kit_gives() -> None:
    page = " ".join(PAGE.split())
    with pytest.raises(AssertionError) as caught:
        CHECKS["batch_equals_alone"](PaddedMoments())
    shown = str(caught.value).split(" 2 more layers")[0]
    assert re.sub(r"[\d.e-]+", "#", shown) in re.sub(r"[\d.e-]+", "#", page), shown
