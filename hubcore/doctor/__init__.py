"""Checks of the installation: `diagnose` checks everything, `check_plugin` one plugin in detail. Imports no torch.

Metadata and cards are read here (`installed`). A plugin's code runs in a process of its own (`process` starts it,
`examination` is what runs there), so that nothing that it does can reach this one.
"""

from __future__ import annotations

from hubcore.doctor.diagnosis import Diagnosis, check_plugin, diagnose
from hubcore.doctor.report import PluginReport, Step

__all__ = ["Diagnosis", "PluginReport", "Step", "check_plugin", "diagnose"]
