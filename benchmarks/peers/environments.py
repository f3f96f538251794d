"""Where peers are installed: throw-away environments outside the repository, built once.

They lie in `$XDG_CACHE_HOME/cairn/benchmarks` (`~/.cache` without it), in folders named by a hash
of what is pinned, so that a new version is a new folder. `rm -rf` of the folder is the way to
remove them. Python packages come from hash-locked requirements, Go programs from a module whose
`go.sum` locks them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.model import PeerMissingError

HERE = Path(__file__).parent
TEMPORAL = HERE / "temporal"
_UV = Path(sys.executable).parent / "uv"
_READY = ".ready"


def cache() -> Path:
    """The folder of all environments."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cairn" / "benchmarks"


def environment_of(settings: dict[str, str]) -> dict[str, str]:
    """The environment of a peer's processes: `settings`, and no way out of this machine.

    What a peer would send to the internet in spite of its settings goes to a proxy that is not
    there.
    """
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ,
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "DO_NOT_TRACK": "1",
        **settings,
    }


def version_of(peer: str, package: str) -> str:
    """The pinned version of a package in a peer's requirements.

    Raises:
        KeyError: it is not pinned there.
    """
    for line in (HERE / "requirements" / f"{peer}.txt").read_text().splitlines():
        name, _, rest = line.partition("==")
        if name == package:
            return rest.split()[0]
    raise KeyError(package)


def server_version() -> str:
    """The pinned version of Temporal's server.

    Raises:
        LookupError: it is not pinned.
    """
    for line in (TEMPORAL / "go.mod").read_text().splitlines():
        if "go.temporal.io/server v" in line:
            return line.partition("server v")[2].split()[0]
    raise LookupError("go.temporal.io/server")


def python_for(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made if it is not there.

    Raises:
        PeerMissingError: it cannot be installed here.
    """
    requirements = HERE / "requirements" / f"{peer}.txt"
    place = cache() / f"{peer}-{_key(sys.version.encode(), requirements.read_bytes())}"
    python = place / "bin" / "python"
    if (place / _READY).exists():
        return python
    _say(f"installing {peer} ({requirements.relative_to(HERE.parent.parent)}) into {place}")
    shutil.rmtree(place, ignore_errors=True)
    base = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    _run(peer, base, _UV, "venv", "--quiet", "--python", sys.executable, place)
    sync = ("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode")
    _run(peer, base, _UV, *sync, "--python", python, requirements)
    (place / _READY).touch()
    return python


def temporal_programs() -> Path:
    """The folder with Temporal's `server` and `sql`, which are built if they are not there.

    Raises:
        PeerMissingError: there is no Go, it is too old, or the build fails.
    """
    go = shutil.which("go")
    if go is None:
        raise PeerMissingError("needs Go to be built; there is none on the path")
    toolchain = subprocess.run([go, "version"], capture_output=True, check=False).stdout
    lock = (TEMPORAL / "go.mod").read_bytes(), (TEMPORAL / "go.sum").read_bytes()
    place = cache() / f"temporal-server-{_key(toolchain, *lock)}"
    if (place / _READY).exists():
        return place
    _say(f"building Temporal's server (benchmarks/peers/temporal/go.mod) into {place}; minutes")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    settings = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    command = (go, "-C", TEMPORAL, "build", "-trimpath", "-o", f"{place}/", "tool")
    _run("Temporal's server", settings, *command)
    (place / _READY).touch()
    return place


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _say(text: str) -> None:
    print(f"# {text}", file=sys.stderr, flush=True)


def _run(what: str, environment: dict[str, str], *command: str | Path) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no words"]
        raise PeerMissingError(f"{what} cannot be installed: {last[0]}")
