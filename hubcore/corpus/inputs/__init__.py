"""The forms in which a corpus is given, one module each; `hubcore.corpus.find` chooses."""
