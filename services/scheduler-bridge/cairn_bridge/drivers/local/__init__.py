"""The local cluster: this machine, each task a process tree in namespaces of its own.

- `driver` is the `ClusterDriver`; `attempt` follows one attempt from its launch to its outcome.
- `admission` decides, purely, who may start; `briefing` turns a placement into what a shim needs.
- `record` is the durable memory; `launcher` has shims started; `execution` runs programs beside
  a task.
"""

from cairn_bridge.drivers.local.driver import LocalDriver

__all__ = ["LocalDriver"]
