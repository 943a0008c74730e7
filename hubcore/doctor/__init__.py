"""Checks of the installation; `diagnosis` has `diagnose`, which checks everything, and `check_plugin`. Imports no torch.

Metadata and cards are read here (`installed`). A plugin's code runs in a process of its own (`process` starts it,
`examination` is what runs there), so that nothing that it does can reach this one.
"""
