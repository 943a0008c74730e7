"""File formats of features other than one `.npy` per utterance, one module each; `hubcore.hooks.FORMATS` names them."""
