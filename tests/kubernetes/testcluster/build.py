"""Building the real parts from the Go module proxy, once, into a cache outside the tree.

`parts/` holds one small Go module per version of Kubernetes that a part wants to be linked with.
What is built lies below `$XDG_CACHE_HOME/cairn/kubernetes`, in a folder named by everything that
decides the result: go.mod, go.sum, our mains, the Go version and the flags. A change builds anew;
an interrupted build leaves no half-made folder, because it is renamed into place as a whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testcluster.node.able import why_no_node

SOURCES = Path(__file__).parent.parent / "parts"
_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")
_PROGRESS_SECONDS = 15.0
_KAI = "github.com/NVIDIA/KAI-scheduler"
_KWOK = "sigs.k8s.io/kwok"
_KUBERNETES = "k8s.io/kubernetes"
_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI = "github.com/containernetworking/plugins/plugins"


class CannotBuildError(RuntimeError):
    """A part cannot be built here; the message says which and why."""


@dataclass(frozen=True, slots=True)
class _Module:
    """One folder below `parts/` and the programs that come from it."""

    folder: str
    programs: Mapping[str, str]
    """Name of the program -> its package."""
    version_of: str = ""
    """The required module whose version the programs report, for those that report any."""
    tags: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of the build beside the usual ones; `{source}` in them is the folder."""

    @property
    def source(self) -> Path:
        return SOURCES / self.folder


_MODULES = (
    _Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    _Module(
        "kubernetes",
        {
            "kube-apiserver": f"{_KUBERNETES}/cmd/kube-apiserver",
            "kube-controller-manager": f"{_KUBERNETES}/cmd/kube-controller-manager",
            "kubelet": f"{_KUBERNETES}/cmd/kubelet",
        },
        version_of=_KUBERNETES,
    ),
    _Module("kwok", {"kwok": f"{_KWOK}/cmd/kwok"}),
    _Module("kai", {"kai": "."}),
)
_NODE = _Module(
    "node",
    {
        "containerd": f"{_CONTAINERD}/cmd/containerd",
        "containerd-shim-runc-v2": f"{_CONTAINERD}/cmd/containerd-shim-runc-v2",
        "ctr": f"{_CONTAINERD}/cmd/ctr",
        "runc": "github.com/opencontainers/runc",
        "ptp": f"{_CNI}/main/ptp",
        "host-local": f"{_CNI}/ipam/host-local",
        "pause": "./pause",
    },
    # runc with seccomp, by our own header: see there.
    tags="seccomp",
    settings={
        "PKG_CONFIG": "true",
        "CGO_CFLAGS": "-I{source}/include",
        "CGO_LDFLAGS": "-Wl,--as-needed -l:libseccomp.so.2",
    },
)
"""What a real node runs beside its kubelet. It is built only where such a node can be."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the built programs are, and the definitions that come with their modules."""

    programs: Mapping[str, Path]
    kai_module: Path
    kwok_module: Path

    def __getitem__(self, name: str) -> str:
        """The path of a program, for a command line."""
        return str(self.programs[name])

    @property
    def kai_crds(self) -> Sequence[Path]:
        """KAI's custom resource definitions, read from its module, never copied from it."""
        return sorted((self.kai_module / "deployments/kai-scheduler/crds").glob("*.yaml"))

    @property
    def kwok_crds(self) -> Sequence[Path]:
        """Those of kwok by which logs, exec and port-forward of single pods are set."""
        folder = self.kwok_module / "kustomize/crd/bases"
        return [folder / f"kwok.x-k8s.io_{kind}.yaml" for kind in ("logs", "execs", "portforwards")]


def cache_folder() -> Path:
    """Where built programs are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "cairn" / "kubernetes"


def go_is_present() -> bool:
    """Whether the parts can be built here at all."""
    return shutil.which("go") is not None


def ensure_parts() -> Parts:
    """Build what is missing, saying so on standard error, and tell where everything is.

    Raises:
        CannotBuildError: Go is missing or too old, or a module cannot be had or built.
    """
    return Parts(
        {name: program for module in _MODULES for name, program in _built(module).items()},
        kai_module=_module_folder("kai", _KAI),
        kwok_module=_module_folder("kwok", _KWOK),
    )


def ensure_node_parts() -> Mapping[str, Path]:
    """The same for what a real node runs beside its kubelet: name -> program, in one folder.

    Raises:
        CannotBuildError: as `ensure_parts`, and where there is no C compiler.
    """
    return _built(_NODE)


def _built(module: _Module) -> Mapping[str, Path]:
    if not go_is_present():
        raise CannotBuildError("the Kubernetes parts are built with Go 1.26 or newer: install it")
    folder = cache_folder() / f"{module.folder}-{_fingerprint(module)}"
    if not folder.is_dir():
        with _one_at_a_time(folder):
            if not folder.is_dir():
                _build(module, folder)
    return {name: folder / name for name in module.programs}


def _fingerprint(module: _Module) -> str:
    digest = hashlib.sha256()
    files = [
        module.source / "go.mod",
        module.source / "go.sum",
        *sorted(module.source.rglob("*.go")),
        *sorted(module.source.rglob("*.h")),
    ]
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    go = _go(module.source, "env", "GOVERSION", "GOOS", "GOARCH")
    digest.update(f"{go}\0{_FLAGS}\0{sorted(module.programs.items())}".encode())
    digest.update(
        f"{module.tags}{sorted(module.settings.items())}".encode() if module.tags else b""
    )
    return digest.hexdigest()[:16]


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(module: _Module, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{module.folder}-") as scratch:
        result = Path(scratch) / "bin"
        result.mkdir()
        for name, package in module.programs.items():
            _build_program(module, name, package, result / name)
        result.rename(folder)


def _build_program(module: _Module, name: str, package: str, target: Path) -> None:
    started = time.monotonic()
    _say(f"{name}: building it from the Go module proxy; this happens once")
    total = len(_go(module.source, "list", "-deps", package).splitlines())
    command = [
        *("nice", "-n", "10", "go", "build", "-v", *_FLAGS, f"-tags={module.tags}"),
        f"-ldflags={' '.join(('-s', '-w', *_version_flags(module)))}",
        *("-o", str(target), package),
    ]
    process = subprocess.Popen(
        command,
        cwd=module.source,
        env=_environment() | _own_settings(module),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    built, told, complaints = 0, started, []
    for line in process.stderr:
        # With -v, go prints one import path for each package that it compiles; the rest is trouble.
        if " " in line.strip():
            complaints.append(line)
            continue
        built += 1
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            _say(f"{name}: {built} of at most {total} packages after {told - started:.0f} s")
    process.stderr.close()
    if process.wait() != 0:
        raise CannotBuildError(f"{name} cannot be built:\n{''.join(complaints[-40:])}")
    size = target.stat().st_size / 1e6
    _say(f"{name}: built in {time.monotonic() - started:.0f} s, {size:.0f} MB")


def _version_flags(module: _Module) -> tuple[str, ...]:
    """Kubernetes takes its version from the linker, else it reports that of no release."""
    if not module.version_of:
        return ()
    version = _go(module.source, "list", "-m", "-f", "{{.Version}}", module.version_of)
    major, minor = version.removeprefix("v").split(".")[:2]
    package = "k8s.io/component-base/version"
    return tuple(
        f"-X={package}.{variable}={value}"
        for variable, value in (
            ("gitVersion", version),
            ("gitMajor", major),
            ("gitMinor", minor),
            ("gitTreeState", "clean"),
        )
    )


def _module_folder(folder: str, module: str) -> Path:
    source = SOURCES / folder
    found = _go(source, "list", "-m", "-f", "{{.Dir}}", module)
    if not found:  # the module cache was emptied since the program was built
        version = _go(source, "list", "-m", "-f", "{{.Version}}", module)
        found = str(
            json.loads(_go(source, "mod", "download", "-json", f"{module}@{version}"))["Dir"]
        )
    return Path(found)


def _go(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CannotBuildError(
            f"go {' '.join(arguments)} failed in {folder.name}:\n{done.stderr[-2000:]}"
        )
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    # The Go that is here, never one that go.mod makes it fetch: the proxy may have none.
    return {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}


def _own_settings(module: _Module) -> dict[str, str]:
    source = str(module.source)
    return {name: value.replace("{source}", source) for name, value in module.settings.items()}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _main() -> None:
    programs = list(ensure_parts().programs.values())
    if reason := why_no_node():
        _say(f"a real node cannot be had here: {reason}")
    else:
        programs += ensure_node_parts().values()
    sys.stdout.writelines(f"{program}\n" for program in programs)


if __name__ == "__main__":
    _main()
