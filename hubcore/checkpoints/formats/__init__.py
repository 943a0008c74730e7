"""Readers of file formats: torch's zip files and their pickles, safetensors. No code from a file ever runs."""
