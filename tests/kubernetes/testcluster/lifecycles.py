"""The lives of simulated nodes and pods: what kwok does in the place of a kubelet.

kwok knows Stages: when an object matches, wait, then change it. Ours follow what a kubelet writes,
in its order: containers created, init containers one kind after the other, native sidecars beside
the main containers, the end of the main containers, then of the sidecars, then the pod's phase; an
image that cannot be pulled goes from ErrImagePull to ImagePullBackOff and back; a deleted pod's
containers end before the pod is gone.

A pod says what happens to it by annotations `sim.cairn.dev/...`, or by environment variables
`SIM_...` of any of its containers, so that a workflow file can say it too. Durations are Go's
("1.5s"). Unset: the image is there, everything starts at once, the main containers run for one
second and exit with 0.

| annotation | variable | meaning |
| --- | --- | --- |
| run | SIM_RUN | how long the main containers run, or `forever` |
| exit-code | SIM_EXIT_CODE | their exit code |
| end | SIM_END | `OOMKilled`: killed for memory (137); `Evicted`: the node evicts the pod |
| start-after | SIM_START_AFTER | how long the image is pulled: slow starts |
| image | SIM_IMAGE | `missing`: it cannot be pulled (so does any image named `missing/...`) |
| init-run | SIM_INIT_RUN | how long the init containers run |
| init-exit-code | SIM_INIT_EXIT_CODE | their exit code |
| sidecar-run | SIM_SIDECAR_RUN | how long sidecars go on after the main containers |
| stop | SIM_STOP | how long containers take to end when the pod is deleted |

An init container that is called after Cairn's barrier comes after the others and the sidecars, and
runs until its pod is annotated as open: the kubelet shows it that annotation as a file.

A delay starts anew when the pod is changed while it waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PREFIX = "sim.cairn.dev/"
NODE_LABEL = f"{PREFIX}managed"
"""Nodes that kwok keeps alive carry it; a node that loses it is lost: no heartbeat, no kubelet."""


def _told(name: str, default: str) -> str:
    """The jq expression for an annotation of ours."""
    return f'(.metadata.annotations["{PREFIX}{name}"] // "{default}")'


def _waits(reason: str) -> str:
    return f'any(.status.containerStatuses[]?; .state.waiting.reason == "{reason}")'


_ALIVE = ".metadata.deletionTimestamp == null"
_ACCEPTED = ".status.startTime != null"
_PENDING = f'{_ALIVE} and {_ACCEPTED} and .status.phase == "Pending"'
_INITIALIZED = 'any(.status.conditions[]?; .type == "Initialized" and .status == "True")'
_INIT_STARTED = (
    "any(.status.initContainerStatuses[]?; .state.running != null or .state.terminated != null)"
)
_GATE = "cairn-barrier"
_AT_GATE = f'any(.status.initContainerStatuses[]?; .name == "{_GATE}" and .state.running != null)'
_BEFORE_GATE = f'(any(.spec.initContainers[]?; .name == "{_GATE}") and ({_AT_GATE} | not))'
_SHUT = f'({_AT_GATE} and .metadata.annotations["cairn/barrier"] != "open")'
_VARIABLES = (
    '[.spec.containers[], .spec.initContainers[]? | .env[]? | select(.name | startswith("SIM_"))]'
)
_UNTOLD = f'(.metadata.annotations["{PREFIX}told"] == null) and ({_VARIABLES} | length > 0)'
_NAMED_MISSING = 'any(.spec.containers[]; .image | startswith("missing/"))'
_MISSING = f'({_told("image", "there")} == "missing" or {_NAMED_MISSING})'
_IN_RUNNING = f'{_ALIVE} and .status.phase == "Running"'
_RUNNING = f"{_IN_RUNNING} and any(.status.containerStatuses[]?; .state.running != null)"
_SIDECARS = 'any(.spec.initContainers[]?; .restartPolicy == "Always")'
_GOING_ON = f"{_IN_RUNNING} and all(.status.containerStatuses[]; .state.terminated != null)"
_OVER = '(.status.phase == "Succeeded" or .status.phase == "Failed")'
_DELETED = ".metadata.deletionTimestamp != null"
_FREE = "((.metadata.finalizers // []) | length == 0)"

_EMPTY = '""'

_HEAD = """
{{ $now := Now }}
{{ $told := default (dict) .metadata.annotations }}
{{ $status := .status }}
"""


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> str:
    return f"""
- type: {kind}
  status: "{status}"
  lastTransitionTime: {{{{ $now | Quote }}}}
  reason: {reason or _EMPTY}
  message: {message or _EMPTY}
"""


def _main(state: str, *, up: bool = False) -> str:
    """The status of every main container; `state` is the template of its `state`."""
    return f"""
containerStatuses:
{{{{ range $index, $container := .spec.containers }}}}
- name: {{{{ $container.name | Quote }}}}
  image: {{{{ $container.image | Quote }}}}
  ready: {str(up).lower()}
  started: {str(up).lower()}
  restartCount: 0
  state:
{state}
{{{{ end }}}}
"""


def _waiting(reason: str, message: str = "") -> str:
    return f"    waiting: {{reason: {reason}, message: {message or _EMPTY}}}"


_RUNS = "    running: {startedAt: {{ $now | Quote }}}"


def _terminated(code: str, reason: str) -> str:
    """Ended now; began when the status says so."""
    return f"""
    {{{{ $began := $now }}}}
    {{{{ with $status.containerStatuses }}}}{{{{ with (index . $index).state.running }}}}
    {{{{ $began = .startedAt }}}}{{{{ end }}}}{{{{ end }}}}
    terminated:
      exitCode: {code}
      reason: {reason}
      startedAt: {{{{ $began | Quote }}}}
      finishedAt: {{{{ $now | Quote }}}}
"""


def _init_statuses(plain: str, sidecar: str, *, done: bool, gate: str | None = None) -> str:
    """Init containers that end, and those that are native sidecars, each with its state.

    `gate` is the state of the barrier, if it is not that of the others that end.
    """
    flag = str(done).lower()
    return f"""
initContainerStatuses:
{{{{ range .spec.initContainers }}}}
{{{{ $sidecar := eq (default "" .restartPolicy) "Always" }}}}
- name: {{{{ .name | Quote }}}}
  image: {{{{ .image | Quote }}}}
  ready: {flag}
  started: {{{{ and $sidecar {flag} }}}}
  restartCount: 0
  state:
{{{{ if $sidecar }}}}
{sidecar}
{{{{ else if eq .name "{_GATE}" }}}}
{plain if gate is None else gate}
{{{{ else }}}}
{plain}
{{{{ end }}}}
{{{{ end }}}}
"""


def _end_of_init(code: str, reason: str) -> str:
    return (
        f"    terminated: {{exitCode: {code}, reason: {reason}, "
        "startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}"
    )


_CODE = f'(get $told "{PREFIX}exit-code" | default "0")'
_INIT_CODE = f'{{{{ get $told "{PREFIX}init-exit-code" | default "0" }}}}'
_OOM = f'(eq (get $told "{PREFIX}end") "OOMKilled")'
_MAIN_END = _terminated(
    f"{{{{ if {_OOM} }}}}137{{{{ else }}}}{{{{ {_CODE} }}}}{{{{ end }}}}",
    f'{{{{ if {_OOM} }}}}OOMKilled{{{{ else if eq {_CODE} "0" }}}}Completed'
    "{{ else }}Error{{ end }}",
)
_UNREADY = _condition("Ready", "False", "PodCompleted") + _condition(
    "ContainersReady", "False", "PodCompleted"
)


def _stage(
    kind: str,
    name: str,
    when: str,
    *steps: Mapping[str, Any],
    delay: str | None = None,
    milliseconds: int = 0,
) -> dict[str, Any]:
    """A Stage: `when` is a jq condition, `delay` a jq expression for a duration."""
    spec: dict[str, Any] = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {
            "matchExpressions": [
                {"jq": {"key": f"({when}) | tostring", "operator": "In", "values": ["true"]}}
            ]
        },
        "steps": list(steps),
    }
    if delay is not None or milliseconds:
        spec["delay"] = {"durationMilliseconds": milliseconds}
    if delay is not None:
        spec["delay"]["durationFrom"] = {"jq": {"expression": delay}}
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": spec,
    }


def _status(template: str) -> dict[str, Any]:
    return {"patch": {"subresource": "status", "root": "status", "template": _HEAD + template}}


def _event(kind: str, reason: str, message: str) -> dict[str, Any]:
    return {"event": {"type": kind, "reason": reason, "message": message}}


def node_stages() -> Sequence[dict[str, Any]]:
    """A node becomes ready at once; from then on its lease is its heartbeat."""
    template = """
{{ $now := Now }}
phase: Running
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
addresses:
- type: InternalIP
  address: {{ NodeIP | Quote }}
- type: Hostname
  address: {{ .metadata.name | Quote }}
daemonEndpoints:
  kubeletEndpoint:
    Port: {{ NodePort }}
"""
    unready = (
        '([.status.conditions[]? | select(.type == "Ready" and .status == "True")] | length == 0)'
    )
    patch = {"patch": {"subresource": "status", "root": "status", "template": template}}
    return [_stage("Node", "node-ready", unready, patch)]


def pod_stages() -> Sequence[dict[str, Any]]:
    """Every pod is in at most one of these conditions at any time."""
    return [*_beginnings(), *_initializations(), *_ends(), *_deletions()]


def _beginnings() -> Iterator[dict[str, Any]]:
    yield _stage(
        "Pod",
        "pod-told-by-variables",
        f"{_ALIVE} and ({_ACCEPTED} | not) and {_UNTOLD}",
        {
            "patch": {
                "root": "metadata",
                "template": f"""
annotations:
  {PREFIX}told: by-variables
{{{{ range (concat .spec.containers (default (list) .spec.initContainers)) }}}}
{{{{ range .env }}}}{{{{ if hasPrefix "SIM_" .name }}}}
  {PREFIX}{{{{ trimPrefix "SIM_" .name | lower | replace "_" "-" }}}}: {{{{ .value | Quote }}}}
{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}
""",
            }
        },
    )
    yield _stage(
        "Pod",
        "pod-accepted",
        f"{_ALIVE} and ({_ACCEPTED} | not) and ({_UNTOLD} | not)",
        _status(
            """
phase: Pending
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
{{ $host := or .spec.hostNetwork false }}
{{ $meta := .metadata }}
podIP: {{ PodIPWith .spec.nodeName $host $meta.uid $meta.name $meta.namespace | Quote }}
conditions:
{{ if .spec.initContainers }}"""
            + _condition("Initialized", "False", "ContainersNotInitialized")
            + "{{ else }}"
            + _condition("Initialized", "True")
            + "{{ end }}"
            + _condition("PodReadyToStartContainers", "True")
            + _condition("Ready", "False", "ContainersNotReady")
            + _condition("ContainersReady", "False", "ContainersNotReady")
            + "{{ if .spec.initContainers }}"
            + _init_statuses(_waiting("PodInitializing"), _waiting("PodInitializing"), done=False)
            + _main(_waiting("PodInitializing"))
            + "{{ else }}"
            + _main(_waiting("ContainerCreating"))
            + "{{ end }}"
        ),
    )
    yield _stage(
        "Pod",
        "pod-image-missing",
        f"{_PENDING} and {_INITIALIZED} and {_MISSING}"
        f" and ({_waits('ImagePullBackOff')} or ({_waits('ErrImagePull')} | not))",
        _event("Warning", "Failed", "Failed to pull image: not found"),
        _status(
            _main(
                _waiting(
                    "ErrImagePull",
                    "'rpc error: code = NotFound desc = failed to pull image: not found'",
                )
            )
        ),
        delay=f'if {_waits("ImagePullBackOff")} then "5s" else {_told("start-after", "0s")} end',
    )
    yield _stage(
        "Pod",
        "pod-image-back-off",
        f"{_PENDING} and {_INITIALIZED} and {_MISSING} and {_waits('ErrImagePull')}",
        _event("Normal", "BackOff", "Back-off pulling image"),
        _status(_main(_waiting("ImagePullBackOff", "Back-off pulling image"))),
        milliseconds=500,
    )
    yield _stage(
        "Pod",
        "pod-running",
        f"{_PENDING} and {_INITIALIZED} and ({_MISSING} | not)",
        _status(
            "phase: Running\nconditions:\n"
            + _condition("Ready", "True")
            + _condition("ContainersReady", "True")
            + _main(_RUNS, up=True)
        ),
        delay=_told("start-after", "0s"),
    )


def _initializations() -> Iterator[dict[str, Any]]:
    uninitialized = f"{_PENDING} and ({_INITIALIZED} | not)"
    yield _stage(
        "Pod",
        "pod-init-running",
        f"{uninitialized} and ({_INIT_STARTED} | not)",
        _status(
            _init_statuses(
                _RUNS,
                _waiting("PodInitializing"),
                done=False,
                gate=_waiting("PodInitializing"),
            )
        ),
    )
    init_code = _told("init-exit-code", "0")
    yield _stage(
        "Pod",
        "pod-at-barrier",
        f'{uninitialized} and {_INIT_STARTED} and {_BEFORE_GATE} and {init_code} == "0"',
        _status(_init_statuses(_end_of_init("0", "Completed"), _RUNS, done=True, gate=_RUNS)),
        delay=_told("init-run", "0s"),
    )
    yield _stage(
        "Pod",
        "pod-init-done",
        f"{uninitialized} and {_INIT_STARTED}"
        f' and ({_BEFORE_GATE} | not) and ({_SHUT} | not) and {init_code} == "0"',
        _status(
            "conditions:\n"
            + _condition("Initialized", "True")
            + _init_statuses(_end_of_init("0", "Completed"), _RUNS, done=True)
            + _main(_waiting("ContainerCreating"))
        ),
        delay=f'if {_AT_GATE} then "0s" else {_told("init-run", "0s")} end',
    )
    yield _stage(
        "Pod",
        "pod-init-failed",
        f'{uninitialized} and {_INIT_STARTED} and {init_code} != "0"',
        _status(
            "phase: Failed\n"
            + _init_statuses(
                _end_of_init(_INIT_CODE, "Error"), _waiting("PodInitializing"), done=False
            )
        ),
        delay=_told("init-run", "0s"),
    )


def _ends() -> Iterator[dict[str, Any]]:
    ends = f'{_RUNNING} and {_told("run", "1s")} != "forever"'
    evicted = f'{_told("end", "")} == "Evicted"'
    phase = (
        "phase: {{ if eq (int (index .status.containerStatuses 0).state.terminated.exitCode) 0 }}"
        "Succeeded{{ else }}Failed{{ end }}\n"
    )
    yield _stage(
        "Pod",
        "pod-ended",
        f"{ends} and ({evicted} | not)",
        _status(
            "conditions:\n"
            + _UNREADY
            + _main(_MAIN_END)
            + f"""
{{{{ $failed := or {_OOM} (ne {_CODE} "0") }}}}
{{{{ $sidecars := 0 }}}}
{{{{ range .spec.initContainers }}}}{{{{ if eq (default "" .restartPolicy) "Always" }}}}
{{{{ $sidecars = add1 $sidecars }}}}
{{{{ end }}}}{{{{ end }}}}
{{{{ if $sidecars }}}}
phase: Running
{{{{ else if $failed }}}}
phase: Failed
{{{{ else }}}}
phase: Succeeded
{{{{ end }}}}
"""
        ),
        delay=_told("run", "1s"),
    )
    yield _stage(
        "Pod",
        "pod-sidecars-ended",
        f"{_GOING_ON} and {_SIDECARS}",
        _status(
            phase
            + _init_statuses(
                _end_of_init("0", "Completed"), _end_of_init("0", "Completed"), done=False
            )
        ),
        delay=_told("sidecar-run", "0s"),
    )
    yield _stage(
        "Pod",
        "pod-evicted",
        f"{ends} and {evicted}",
        _event("Warning", "Evicted", "The node was low on resource: memory."),
        _status(
            "phase: Failed\nreason: Evicted\n"
            "message: 'The node was low on resource: memory.'\nconditions:\n"
            + _condition("DisruptionTarget", "True", "TerminationByKubelet")
            + _UNREADY
            + _main(_terminated("137", "Error"))
        ),
        delay=_told("run", "1s"),
    )


def _deletions() -> Iterator[dict[str, Any]]:
    yield _stage(
        "Pod",
        "pod-stopped",
        f"{_DELETED} and {_ACCEPTED} and ({_OVER} | not)",
        _status("phase: Failed\nconditions:\n" + _UNREADY + _main(_terminated("143", "Error"))),
        delay=_told("stop", "0s"),
    )
    yield _stage(
        "Pod",
        "pod-never-begun",
        f"{_DELETED} and ({_ACCEPTED} | not) and ({_OVER} | not) and ({_FREE} | not)",
        _status("phase: Failed\nconditions:\n" + _UNREADY),
    )
    yield _stage(
        "Pod",
        "pod-gone",
        f"{_DELETED} and ({_OVER} or ({_ACCEPTED} | not)) and {_FREE}",
        {"delete": True},
    )
