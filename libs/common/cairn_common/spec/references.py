"""Names of things outside a task: container images, storage URLs, tasks and datasets."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME_PATTERN = r"^[a-zA-Z]([a-zA-Z0-9_-]*[a-zA-Z0-9])?$"
"""A workflow, group or task name, as OSMO's models state it."""
_NAME = NAME_PATTERN[1:-1].replace("(", "(?:")

STORAGE_SCHEMES = ("s3", "gs", "azure", "swift", "tos", "file")
# How many parts must follow the scheme: azure://account/container, swift://endpoint/account/bucket.
_REQUIRED_PARTS = {"s3": 1, "gs": 1, "azure": 2, "swift": 3, "tos": 2}
_EXAMPLES = {
    "s3": "s3://bucket/path",
    "gs": "gs://bucket/path",
    "azure": "azure://account/container/path",
    "swift": "swift://endpoint/account/bucket",
    "tos": "tos://endpoint/bucket",
    "file": "file:///absolute/path",
}
URL_PATTERN = r"^(s3|gs|azure|swift|tos|file)://\S.*$"

# The distribution project's grammar of an image reference: [domain/]path[:tag][@digest].
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_IMAGE = re.compile(
    rf"(?:{_DOMAIN}/)?{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*"
    r"(?::[\w][\w.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_MAX_IMAGE = 4096

_TASK_REFERENCE = re.compile(rf"(?:({_NAME}):)?({_NAME})", re.ASCII)


def is_image(text: str) -> bool:
    """Whether a text is a container image reference, e.g. `ubuntu:24.04`."""
    return len(text) <= _MAX_IMAGE and _IMAGE.fullmatch(text) is not None


def check_storage_url(url: str) -> str:
    """Return the URL, or raise ValueError saying which form its scheme needs."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(f"{url[:80]!r} is not a storage URL: write one such as {_EXAMPLES['s3']}")
    if scheme not in STORAGE_SCHEMES:
        known = ", ".join(f"{name}://" for name in STORAGE_SCHEMES)
        raise ValueError(f"Unknown URI scheme: {scheme[:40]}. Supported are {known}")
    if scheme == "file":
        complete = rest.startswith("/")
    else:
        parts = rest.split("/")[: _REQUIRED_PARTS[scheme]]
        complete = len(parts) == _REQUIRED_PARTS[scheme] and all(parts)
    if not complete or any(c.isspace() for c in url):
        raise ValueError(f"{url[:80]!r} is not complete: write it as {_EXAMPLES[scheme]}")
    return url


def url_scheme(url: str) -> str:
    """`s3://bucket/x` -> `s3`."""
    return url.partition("://")[0]


@dataclass(frozen=True, slots=True)
class TaskReference:
    """What `task: name` or `task: workflow-7:name` points at; `workflow` is "" for this one."""

    workflow: str
    task: str

    @classmethod
    def parse(cls, text: str) -> TaskReference | None:
        """None when the text has neither of the two forms."""
        match = _TASK_REFERENCE.fullmatch(text)
        return cls(match[1] or "", match[2]) if match else None


def dataset_basename(name: str) -> str:
    """The folder a dataset appears under: `bucket/cars:3` -> `cars`."""
    return name.rpartition("/")[2].partition(":")[0]


def fold_name(name: str) -> str:
    """The form in which two names must differ: Kubernetes names ignore case and have no `_`."""
    return name.lower().replace("_", "-")
