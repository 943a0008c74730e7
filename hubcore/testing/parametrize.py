"""`parametrize_with_checks`: one pytest test for each pair of upstream and check. pytest is imported when it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeGuard, TypeVar, cast

from torch import nn

from hubcore.errors import HubcoreError, OptionError
from hubcore.protocol import Upstream
from hubcore.testing.checks import CHECKS
from hubcore.testing.compare import one_thread
from hubcore.testing.exemptions import Exemptions

UpstreamSource: TypeAlias = Upstream | Callable[[], Upstream] | str
"""An upstream, a function (or class) that makes one, or a registered name."""
Test = TypeVar("Test", bound=Callable[..., Any])


def parametrize_with_checks(
    upstreams: Iterable[UpstreamSource], exempt: Mapping[str, str] | None = None
) -> Callable[[Test], Test]:
    """A pytest decorator: the test runs once for each upstream and check, as `upstream` and `check`.

    Upstreams are made when their first test runs, not at collection; one at a time is kept.

    Args:
        upstreams: instances, zero-argument factories or classes, registered names.
        exempt: check to the reason why it need not pass; these tests are marked as expected failures. For the gradient
            checks also `"check:pattern of parameter names"`. It holds for all of `upstreams`.

    Raises:
        OptionError: an exemption names no check or gives no reason, or an item is none of the three kinds.
        HubcoreError: pytest is not installed.

    Example:
        >>> from hubcore.testing import parametrize_with_checks
        >>> @parametrize_with_checks(["fbank"])
        ... def test_contract(upstream, check):
        ...     check(upstream)
    """
    try:
        import pytest
    except ImportError as error:
        raise HubcoreError(
            "pytest is not installed. parametrize_with_checks makes pytest tests. Install it (pip install pytest), or use "
            "hubcore.testing.check_upstream, which needs none."
        ) from error
    exemptions = Exemptions.parse(exempt)
    parameters = []
    for source, title in _titled(upstreams):
        for name in CHECKS:
            reason = exemptions.checks.get(name)
            marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=False),)
            parameters.append(pytest.param(source, exemptions.bind(name), id=f"{title}-{name}", marks=marks))

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def with_upstream(*args: Any, upstream: _Source, **kwargs: Any) -> Any:
            with one_thread():
                return test(*args, upstream=upstream.make(), **kwargs)

        return cast("Test", pytest.mark.parametrize(("upstream", "check"), parameters)(with_upstream))

    return decorate


class _Source:
    """An item of `upstreams`, made into an upstream when it is needed."""

    _kept: tuple[_Source, Upstream] | None = None

    def __init__(self, item: UpstreamSource) -> None:
        self.item = item

    def make(self) -> Upstream:
        """The upstream. The last one made anywhere is kept, so that checks in a row share it and memory holds one."""
        if _Source._kept is None or _Source._kept[0] is not self:
            _Source._kept = None
            _Source._kept = (self, self._made())
        return _Source._kept[1]

    def _made(self) -> Upstream:
        if isinstance(self.item, str):
            from hubcore import hub

            return hub.load(self.item)
        if _is_upstream(self.item):
            return self.item
        return cast("Callable[[], Upstream]", self.item)()


def _is_upstream(item: object) -> TypeGuard[Upstream]:
    # A broken upstream must reach the checks as an upstream, so one method is enough to be taken for one.
    return not isinstance(item, type) and (isinstance(item, nn.Module) or hasattr(item, "forward"))


def _titled(upstreams: Iterable[UpstreamSource]) -> list[tuple[_Source, str]]:
    if isinstance(upstreams, str) or _is_upstream(upstreams) or not isinstance(upstreams, Iterable):
        raise OptionError(
            f"upstreams is a {type(upstreams).__name__}. It must be a list of upstreams, factories or names. "
            "Write [upstream] for a single one."
        )
    titled: list[tuple[_Source, str]] = []
    taken: dict[str, int] = {}
    for item in upstreams:
        title = _title(item)
        taken[title] = taken.get(title, 0) + 1
        titled.append((_Source(item), title if taken[title] == 1 else f"{title}_{taken[title]}"))
    return titled


def _title(item: object) -> str:
    if isinstance(item, str):
        return item
    if _is_upstream(item):
        name = getattr(getattr(item, "card", None), "name", None)
        return str(name) if name else type(item).__name__
    if isinstance(item, functools.partial):
        return _title(item.func)
    if callable(item):
        name = str(getattr(item, "__name__", type(item).__name__))
        return "factory" if name == "<lambda>" else name
    raise OptionError(
        f"upstreams has a {type(item).__name__}. Each item must be an upstream, a function that makes one without "
        "arguments, or a registered name."
    )
