"""The only place of the API that speaks SQL."""

from cairn_api.store.database import (
    EngineMissingError,
    NotStorableError,
    UnavailableError,
    open_engine,
)
from cairn_api.store.reading import Reader, TaskFilter, WorkflowFilter
from cairn_api.store.writing import Handover, NewSubmission, Writer

__all__ = [
    "EngineMissingError",
    "Handover",
    "NewSubmission",
    "NotStorableError",
    "Reader",
    "TaskFilter",
    "UnavailableError",
    "WorkflowFilter",
    "Writer",
    "open_engine",
]
