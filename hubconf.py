"""Every name of hubcore for `torch.hub`: `torch.hub.load(CHECKOUT, "wav2vec2_base_960", source="local")`.

hubcore must be installed (`pip install CHECKOUT`): the families are found by its entry points. The models are those of
`hubcore.compat.s3prl.hub`, which takes s3prl's arguments.
"""

from hubcore.compat.s3prl import hub as _hub

dependencies = ["torch", "hubcore_wav2vec2"]


def __getattr__(name: str) -> object:
    return getattr(_hub, name)


def __dir__() -> list[str]:
    return _hub.options()
