"""Tools for a whole checkpoint or run: convert, export, verify, plot."""
