"""kubernetes-asyncio without its generated classes.

Its package imports one Python class for every type and every operation of the API: 68 MB, more than
a bridge keeps of ten thousand pods, and this driver uses none of them. Only what configures,
authenticates and connects is imported, below packages that stand empty while that is done. Whoever
imports kubernetes-asyncio afterwards gets all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kubernetes_asyncio import config as kubeconfig
    from kubernetes_asyncio.client import ApiClient, Configuration

__all__ = ["ApiClient", "Configuration", "kubeconfig"]

_ROOT: Final = "kubernetes_asyncio"
_EMPTY: Final = (_ROOT, f"{_ROOT}.client", f"{_ROOT}.client.models")


@contextmanager
def _empty_packages() -> Iterator[ModuleType]:
    """The package `client` without what its own code would import; nothing of it stays."""
    spec = find_spec(_ROOT)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("kubernetes-asyncio is not installed")
    site = Path(spec.submodule_search_locations[0]).parent
    before = {name: sys.modules.pop(name) for name in _ours()}
    try:
        for name in _EMPTY:
            package = ModuleType(name)
            package.__path__ = [str(site.joinpath(*name.split(".")))]
            sys.modules[name] = package
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, package)
        yield sys.modules[f"{_ROOT}.client"]
    finally:
        for name in _ours():
            del sys.modules[name]
        sys.modules.update(before)


def _ours() -> list[str]:
    return [name for name in sys.modules if name == _ROOT or name.startswith(f"{_ROOT}.")]


if not TYPE_CHECKING:
    with _empty_packages() as _client:
        Configuration = import_module(f"{_ROOT}.client.configuration").Configuration
        _client.Configuration = Configuration
        ApiClient = import_module(f"{_ROOT}.client.api_client").ApiClient
        _client.ApiClient = ApiClient
        kubeconfig = import_module(f"{_ROOT}.config")
