"""Whether an installed distribution is a plugin that works: `check_plugin` and the report that it gives. Imports no torch."""

from __future__ import annotations

from hubcore.doctor.distribution import check_plugin
from hubcore.doctor.process import check_in_process
from hubcore.doctor.report import Finding, PluginReport, Step

__all__ = ["Finding", "PluginReport", "Step", "check_in_process", "check_plugin"]
