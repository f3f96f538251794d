"""What runs beside a task: inputs in, the user's command in its own room, its log, outputs out.

Only the standard library is imported here, and nothing of Cairn: these modules run in processes
of their own, started thousands of times, next to programs that must not be able to reach the
control plane.

- `launcher` forks a `shim` per attempt; the shim outlives the bridge that asked for it.
- `room` names the files of an attempt's directory, which is all that a later bridge needs.
- `mounts` and `process` give the command its namespaces; `logfile` keeps what it says.
- `storage` and `transfer` move inputs and outputs, `checkpoints` copies folders meanwhile, and
  `copying` is how: without following anything. The shim has them work in processes of their own
  (`stages`, `keeper`).
- `pod` is the same for a Kubernetes pod: the containers beside the task's own.
"""
