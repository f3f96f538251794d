"""Kubernetes with KAI Scheduler (Run:AI's, open-sourced).

- `driver` is the `ClusterDriver`; `attempts` is what it remembers, `telling` what it says.
- `core` decides, purely: manifests from placements, phases and outcomes from pods.
- `api` speaks to the API server, `watch` follows collections, `placing` makes and removes a
  group's objects, `preparing` the scheduler's; `logs` and `streams` bring bytes out of pods.
"""

from cairn_bridge.drivers.kubernetes.api import Api
from cairn_bridge.drivers.kubernetes.clocks import Patience
from cairn_bridge.drivers.kubernetes.core.site import STORE, Site
from cairn_bridge.drivers.kubernetes.driver import KubernetesDriver

__all__ = ["STORE", "Api", "KubernetesDriver", "Patience", "Site"]
