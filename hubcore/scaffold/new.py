"""`new_plugin`: a complete plugin package from the templates beside this module. Imports no torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import keyword
import re
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import yaml

from hubcore.errors import DuplicateUpstreamError, OptionError
from hubcore.registry.names import current_registry
from hubcore.version import VERSION

LONGEST = 24
"""Characters of a name. Longer ones would make lines that the templates' own style refuses."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_TEMPLATES = Path(__file__).parent / "files"
_WEIGHTS = Path(__file__).parent / "untrained.safetensors"


def new_plugin(name: str, folder: str | Path = ".", *, families: Sequence[str] = ()) -> Path:
    """The folder of a new plugin, written into `folder` whole or not at all.

    Args:
        name: of the family: lower-case letters, digits and single underscores, beginning with a letter. Its package is
            `hubcore_NAME`. With `families`, the name of a package that holds a folder for each of them.
        folder: where to make it; it must exist.
        families: names of several families that come in one distribution.

    Raises:
        OptionError: a name cannot be one, or is taken; the message says by what. Or the folder exists already.

    Example:
        >>> import tempfile
        >>> made = new_plugin("acoustic", tempfile.mkdtemp())
        >>> made.name, sorted(path.name for path in (made / "hubcore_acoustic").glob("*.py"))[:3]
        ('hubcore-acoustic', ['__init__.py', 'checkpoint.py', 'components.py'])
        >>> made = new_plugin("acme_ssl", tempfile.mkdtemp(), families=["vowels", "nasals"])
        >>> made.name, sorted(path.name for path in (made / "acme_ssl").iterdir())
        ('acme-ssl', ['__init__.py', 'nasals', 'py.typed', 'vowels'])
    """
    top = name if families else f"hubcore_{name}"
    for family in families or [name]:
        check_name(family)
    _check_package(top)
    distribution, folder = top.replace("_", "-"), Path(folder)
    target = folder / distribution
    if not folder.is_dir():
        raise OptionError(f"{folder} is not a folder. The plugin is made inside an existing folder. Make it, or name another.")
    if target.exists() or target.is_symlink():
        raise OptionError(f"{target} exists already. Nothing in it was changed. Choose another name or --dir, or move it.")
    words = [_words(family, top, f"{top}.{family}" if families else top) for family in dict.fromkeys(families or [name])]
    try:
        # Made beside its place, so that the last step is one rename, and a crash leaves nothing under the plugin's name.
        with tempfile.TemporaryDirectory(prefix=f".{distribution}.", dir=folder) as temporary:
            made = Path(temporary, distribution)
            for one in words:
                _write(made, {**one, **{key: "\n".join(word[key] for word in words) for key in ("upstreams", "registries")}})
            if families:
                (made / top / "__init__.py").write_text('"""Speech upstreams for hubcore."""\n', encoding="utf-8")
                (made / top / "py.typed").touch()
            made.rename(target)
    except OSError as error:
        raise OptionError(
            f"{target} could not be made ({error}). Nothing was left there. See whether the folder may be written to and "
            "has space, or name another with --dir."
        ) from error
    return target


def _words(family: str, top: str, package: str) -> dict[str, str]:
    """Values of the templates' placeholders."""
    prefix = "".join(part.capitalize() for part in family.split("_"))
    return {
        "name": family,
        "top": top,
        "package": package,
        "place": package.replace(".", "/"),
        "distribution": top.replace("_", "-"),
        "prefix": prefix,
        "hubcore_version": VERSION,
        "upstreams": f'{family} = "{package}.upstream:{prefix}Upstream"',
        "registries": f'{family} = "{package}:registry.yaml"',
    }


def _write(made: Path, words: Mapping[str, str]) -> None:
    """Fills in every template, and signs the weights."""
    for template in sorted(_TEMPLATES.rglob("*.in")):
        relative = template.relative_to(_TEMPLATES).with_suffix("").as_posix()
        path = made / relative.replace("__package__", words["place"]).replace("__name__", words["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8", newline="\n")
    weights = made / words["place"] / "bundled/untrained.safetensors"
    weights.write_bytes(_signed(_WEIGHTS.read_bytes(), f"{words['prefix']}Upstream"))


def _check_package(package: str) -> None:
    """Raises `OptionError` unless a new package may have this name."""
    if not _NAME.fullmatch(package):
        raise OptionError(f"the package {package!r} cannot be one. It has a-z, 0-9 and single _ between them. Try 'acme_ssl'.")
    try:
        there = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        there = None
    if there is not None:
        owners = importlib.metadata.packages_distributions().get(package, ["nobody known"])
        whose = f"the package {package}, which is installed here (from {', '.join(sorted(set(owners)))})"
        raise OptionError(f"the name {package.removeprefix('hubcore_')!r} is taken by {whose}. Choose another name.")


def check_name(name: str) -> None:
    """Raises `OptionError` unless a new family may have this name.

    Example:
        >>> check_name("my_model")
        >>> check_name("fbank")
        Traceback (most recent call last):
        ...
        hubcore.errors.OptionError: the name 'fbank' is taken by hubcore ... Choose another name.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        asked = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_").lstrip("0123456789_")
        hint = f"Try {asked!r}" if _NAME.fullmatch(asked) and len(asked) <= LONGEST else "Try 'my_model'"
        raise OptionError(
            f"the name {name!r} cannot be one. It becomes a module and a class, so it has a-z, 0-9 and single _ between them, "
            f"begins with a letter, and has at most {LONGEST} characters. {hint}."
        )
    owner = _owner(name)
    if owner:
        raise OptionError(
            f"the name {name!r} is taken by {owner}. Two owners of one name could not be told apart. Choose another name."
        )


def _owner(name: str) -> str | None:
    """Who has the name already, in words; None if it is free."""
    from hubcore import hub

    registry = current_registry()
    if name in registry.names() or f"{name}_untrained" in registry.names():
        taken = name if name in registry.names() else f"{name}_untrained"
        try:
            entry = registry.find(taken)
        except DuplicateUpstreamError as error:
            return " and ".join(error.owners)
        where = f" ({entry.card.file}, line {entry.card.line})" if entry.card else ""
        return f"{entry.owner}{where}" if taken == name else f"the upstream {taken!r} of {entry.owner}{where}"
    if keyword.iskeyword(name):
        return "Python, as a keyword"
    if yaml.safe_load(name) != name:
        return "YAML, in which it is not a text"
    # Names of upstreams are attributes of the hub, and these are its own.
    if name in vars(hub) or name in ("hubcore", "user"):
        return f"hubcore itself, as hub.{name}" if name in vars(hub) else "hubcore itself, as the owner of names"
    return None


def _signed(weights: bytes, upstream: str) -> bytes:
    """The safetensors file with the class that reads it written into its header."""
    (size,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + size])
    about = json.loads(header["__metadata__"]["hubcore"])
    about |= {"upstream": upstream, "hubcore_version": VERSION}
    header["__metadata__"]["hubcore"] = json.dumps(about, sort_keys=True)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the tensors at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text + weights[8 + size :]
