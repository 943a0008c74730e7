"""Every family of this repository has conformance tests, `tests/plugins/<package>/test_conformance.py`."""

from __future__ import annotations

from hubcore.registry.names import current_registry
from tests.conformance.families import registered
from tests.paths import REPOSITORY


def test_every_family_is_held_to_the_contract() -> None:
    families = [entry.family for entry in current_registry().entries if entry.family]
    packages = {family.target.partition(".")[0] for family in families if family.distribution == "hubcore"}
    tested = {path.parent.name for path in (REPOSITORY / "tests/plugins").glob("*/test_conformance.py")}
    assert packages == tested == {path.name for path in (REPOSITORY / "plugins").glob("hubcore_*")}
    assert len(registered("fbank")) == 6 and registered("wav2vec2") and registered("ofa_wav2vec2")
