"""Cairn's Python client.

from cairn_client import Client

with Client() as cairn:
    sent = cairn.submit(Path("train.yaml").read_text(), set_variables={"epochs": 3})
    for snapshot in cairn.watch(sent.name):
        print(snapshot.status)
    for line in cairn.logs(sent.name, last=10):
        print(line)

Names are imported when they are first used: the `cairn` command lives in this package too, and
`cairn --help` must not wait for an HTTP library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cairn_client.errors import (
    ApiError,
    CairnError,
    ConnectionFailed,
    Problem,
    SubmissionError,
    VersionMismatch,
)

if TYPE_CHECKING:
    from cairn_client.client import Client
    from cairn_client.models import (
        DeadLetter,
        DeadLetterEntry,
        DeadLetterPage,
        Group,
        Snapshot,
        SnapshotGroup,
        SnapshotTask,
        Submission,
        Task,
        TaskEntry,
        TaskPage,
        Version,
        Workflow,
        WorkflowEntry,
        WorkflowPage,
    )

__version__ = "0.1.0"

_MODELS = (
    "DeadLetter", "DeadLetterEntry", "DeadLetterPage", "Group", "Snapshot", "SnapshotGroup",
    "SnapshotTask", "Submission", "Task", "TaskEntry", "TaskPage", "Version", "Workflow",
    "WorkflowEntry", "WorkflowPage",
)  # fmt: skip

__all__ = [
    "ApiError",
    "CairnError",
    "Client",
    "ConnectionFailed",
    "DeadLetter",
    "DeadLetterEntry",
    "DeadLetterPage",
    "Group",
    "Problem",
    "Snapshot",
    "SnapshotGroup",
    "SnapshotTask",
    "Submission",
    "SubmissionError",
    "Task",
    "TaskEntry",
    "TaskPage",
    "Version",
    "VersionMismatch",
    "Workflow",
    "WorkflowEntry",
    "WorkflowPage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from cairn_client.client import Client

        return Client
    if name in _MODELS:
        from cairn_client import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
