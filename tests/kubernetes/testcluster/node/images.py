"""Images without a registry: an OCI archive of what this machine has, for containerd to import.

There are three. `pause` holds a pod's namespaces; it is one static program. `TASK` is what a user's
image is to Cairn: a shell, the usual small programs and Python. `RUNTIME` is the same with the
package `cairn_runtime` from the tree. Programs of this machine come with their libraries, as ldd
names them, all in `/usr/lib`, where the loader looks without any configuration.

Layers are kept, each by what decides it: its sources' paths, sizes and times.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cairn_runtime

PAUSE = "cairn.test/pause:1"
TASK = "cairn.test/task:1"
USUAL = "docker.io/library/ubuntu:24.04"
"""The same, called what tests call for that run on a user's own cluster."""
RUNTIME = "docker.io/library/cairn:0.1.0"
_PROGRAMS = (
    *("sh", "cat", "chmod", "cp", "date", "echo", "env", "false", "grep", "head", "id", "ls"),
    *("ln", "mkdir", "mv", "rm", "seq", "sleep", "stat", "tail", "touch", "true", "wc"),
)
_LIBRARY = re.compile(r"(?:(\S+) => )?(/\S+) \(0x")
_LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "ensurepip", "turtledemo", "lib2to3"}
_SITE = "usr/lib/cairn"
_USER = "10001:10001"
"""That of `deploy/images/Dockerfile`."""
_OCI = "application/vnd.oci.image"


class CannotMakeImageError(RuntimeError):
    """This machine lacks what an image is made of; the message says what."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in a layer: a file or link of this machine, or an empty folder."""

    place: str
    source: Path | None = None
    mode: int = 0o755

    def key(self) -> str:
        if self.source is None:
            return f"{self.place} {self.mode}"
        found = self.source.lstat()
        return f"{self.place} {self.source} {found.st_size} {found.st_mtime_ns} {found.st_mode}"


@dataclass(frozen=True, slots=True)
class _Image:
    name: str
    layers: Sequence[Sequence[_Entry]]
    config: Mapping[str, Any] = field(default_factory=dict)


def make_images(pause: Path, layers: Path, archive: Path) -> None:
    """Make an archive of all images.

    Args:
        pause: the static program of that image.
        layers: where layers are kept.
        archive: the file to make.

    Raises:
        CannotMakeImageError: a program or library is missing here.
    """
    layers.mkdir(parents=True, exist_ok=True)
    base = _base()
    path = {"Env": ["PATH=/usr/bin:/bin"]}
    site = {"Env": [*path["Env"], f"PYTHONPATH=/{_SITE}"], "User": _USER}
    images = [
        _Image(PAUSE, [[_Entry("pause", pause)]], {"Entrypoint": ["/pause"]}),
        _Image(TASK, [base], path),
        _Image(USUAL, [base], path),
        _Image(RUNTIME, [base, list(_package())], site),
    ]
    blobs: dict[str, bytes | Path] = {}
    manifests = [_add_image(image, layers, blobs) for image in images]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": manifests}))
        for digest, blob in blobs.items():
            name = f"blobs/sha256/{digest}"
            if isinstance(blob, Path):
                tar.add(blob, name)
            else:
                _add(tar, name, blob)


def _base() -> list[_Entry]:
    """A root file system with Python and a shell."""
    python = Path(sys.executable).resolve()
    standard = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    programs = {f"usr/bin/{name}": _program(name) for name in _PROGRAMS}
    programs["usr/bin/python3"] = python
    modules = list(_modules(standard))
    needed = [*programs.values(), *(each.source for each in modules if _is_library(each))]
    return [
        *(_Entry(folder) for folder in ("dev", "etc", "proc", "root", "sys", "usr", "usr/bin")),
        _Entry("tmp", mode=0o1777),
        *(_Entry(place, source) for place, source in programs.items()),
        *modules,
        *_libraries([each for each in needed if each is not None]),
    ]


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise CannotMakeImageError(f"the task image needs the program `{name}`: install it")
    return Path(found).resolve()


def _modules(standard: Path) -> Iterator[_Entry]:
    for folder, folders, files in os.walk(standard):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in files:
            source = Path(folder) / name
            if not name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc")):
                yield _Entry(f"usr/lib/{standard.name}/{source.relative_to(standard)}", source)


def _is_library(entry: _Entry) -> bool:
    return entry.place.endswith(".so")


def _libraries(programs: Sequence[Path]) -> list[_Entry]:
    """What the programs are linked with: the loader at its own path, all else in /usr/lib."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    places: dict[str, Path] = {}
    for name, path in _LIBRARY.findall(done.stdout):
        source = Path(path)
        places[f"usr/lib/{name}" if name else path.lstrip("/")] = source.resolve()
    if not places:
        raise CannotMakeImageError(f"ldd names no libraries: {done.stderr[-500:]}")
    return [_Entry(place, source) for place, source in sorted(places.items())]


def _package() -> Iterator[_Entry]:
    """`cairn_runtime`, which imports the standard library only."""
    (place,) = cairn_runtime.__path__
    for source in sorted(Path(place).rglob("*.py")):
        relative = source.relative_to(place)
        yield _Entry(f"{_SITE}/cairn_runtime/{relative}", source, 0o644)


def _add_image(image: _Image, folder: Path, blobs: dict[str, bytes | Path]) -> dict[str, Any]:
    """Add what an image is made of to `blobs`, by digest; its entry in the archive's index."""
    layers = [_layer(entries, folder) for entries in image.layers]
    blobs.update((_digest(layer), layer) for layer in layers)
    config = _json(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": dict(image.config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(x)}" for x in layers]},
        }
    )
    described = [
        {
            "mediaType": f"{_OCI}.layer.v1.tar",
            "digest": f"sha256:{_digest(layer)}",
            "size": layer.stat().st_size,
        }
        for layer in layers
    ]
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", config, blobs),
            "layers": described,
        }
    )
    return {
        **_descriptor(f"{_OCI}.manifest.v1+json", manifest, blobs),
        "annotations": {"io.containerd.image.name": image.name},
    }


def _layer(entries: Sequence[_Entry], folder: Path) -> Path:
    """The layer's tar file; its name ends with the digest of its bytes."""
    key = hashlib.sha256("\n".join(each.key() for each in entries).encode()).hexdigest()[:16]
    for found in folder.glob(f"layer-{key}-*.tar"):
        return found
    half = folder / f"layer-{key}.{os.getpid()}"
    with tarfile.open(half, "w") as archive:
        for name in _links(entries):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
        for each in entries:
            _add_entry(archive, each)
    with half.open("rb") as made:
        digest = hashlib.file_digest(made, "sha256").hexdigest()
    target = folder / f"layer-{key}-{digest}.tar"
    half.rename(target)
    return target


def _links(entries: Iterable[_Entry]) -> list[str]:
    """Of the root: `bin` and the like are those below `usr`, in a whole root file system."""
    whole = any(each.place == "usr/bin" for each in entries)
    return ["bin", "lib", "lib64"] if whole else []


def _add_entry(archive: tarfile.TarFile, each: _Entry) -> None:
    if each.source is None:
        folder = tarfile.TarInfo(each.place)
        folder.type, folder.mode = tarfile.DIRTYPE, each.mode
        archive.addfile(folder)
        return
    place = re.sub("^(bin|lib|lib64)/", r"usr/\1/", each.place)
    found = archive.gettarinfo(each.source.resolve(), place)
    found.type, found.linkname = tarfile.REGTYPE, ""
    found.size = each.source.stat().st_size
    found.uid = found.gid = 0
    found.uname = found.gname = ""
    with each.source.open("rb") as content:
        archive.addfile(found, content)


def _digest(layer: Path) -> str:
    return layer.stem.rpartition("-")[2]


def _descriptor(kind: str, blob: bytes, blobs: dict[str, bytes | Path]) -> dict[str, Any]:
    digest = hashlib.sha256(blob).hexdigest()
    blobs[digest] = blob
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(blob)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
