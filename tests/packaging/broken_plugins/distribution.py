"""`Distribution`: a small package for the tests, as a source tree that pip builds and as a wheel that pip installs."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PIP = [
    sys.executable,
    "-m",
    "pip",
    "--isolated",
    "--disable-pip-version-check",
    "--quiet",
    "install",
    "--no-index",
    "--no-deps",
]


@dataclass(frozen=True)
class Distribution:
    """What stands in a pyproject.toml, and the files beside it."""

    name: str
    files: Mapping[str, str | bytes]
    """Path below the root -> contents."""
    points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Entry points: group -> name -> value."""
    requires: tuple[str, ...] = ()
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    version: str = "1.0"

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    def write_source(self, root: Path) -> Path:
        """The folder that `pip install` takes: pyproject.toml and the package."""
        lines = [
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
            f"[project]\nname = {json.dumps(self.name)}\nversion = {json.dumps(self.version)}",
            f"dependencies = {json.dumps(self.requires)}",
        ]
        if self.extras:
            lines += [
                "[project.optional-dependencies]",
                *(f"{key} = {json.dumps(value)}" for key, value in self.extras.items()),
            ]
        for group, points in self.points.items():
            lines.append(f"[project.entry-points.{json.dumps(group)}]")
            lines += [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in points.items()]
        lines += ["[tool.hatch.build.targets.wheel]", f"packages = [{json.dumps(self.package)}]"]
        for path, data in {"pyproject.toml": "\n".join(lines) + "\n", **self.files}.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data.encode() if isinstance(data, str) else data)
        return root

    def write_wheel(self, folder: Path) -> Path:
        """The wheel, without a build: names that a build tool refuses exist in wheels of other tools."""
        info = f"{self.package}-{self.version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}"]
        metadata += [f"Requires-Dist: {requirement}" for requirement in self.requires]
        for extra, requirements in self.extras.items():
            metadata += [f"Provides-Extra: {extra}", *(f"Requires-Dist: {text}; extra == '{extra}'" for text in requirements)]
        points = [
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
            for group, values in self.points.items()
        ]
        files: dict[str, str | bytes] = {
            **self.files,
            f"{info}/METADATA": "\n".join(metadata) + "\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": "\n".join(points),
        }
        record = io.StringIO()
        rows = csv.writer(record, lineterminator="\n")
        path = folder / f"{self.package}-{self.version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                data = text.encode() if isinstance(text, str) else text
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                rows.writerow([name, f"sha256={digest}", len(data)])
                archive.writestr(name, data)
            rows.writerow([f"{info}/RECORD", "", ""])
            archive.writestr(f"{info}/RECORD", record.getvalue())
        return path


def pip_install(what: Iterable[Path], site: Path, *options: str) -> None:
    """Lets pip install wheels or source trees into a folder."""
    done = subprocess.run([*PIP, *options, "--target", str(site), *map(str, what)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def installed_files(site: Path, distribution: Distribution) -> list[Path]:
    """What pip says it installed, relative to the folder; without compiled files."""
    record = next(site.glob(f"{distribution.package}-*.dist-info")) / "RECORD"
    with record.open(newline="") as stream:
        return [Path(row[0]) for row in csv.reader(stream) if not row[0].endswith(".pyc")]
