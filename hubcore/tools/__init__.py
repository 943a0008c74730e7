"""What is done with a whole checkpoint or run: convert, export, verify, plot."""
