"""The API's settings."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

from pydantic import Field

from cairn_common.settings import ServiceSettings
from cairn_common.spec import Feature

_EXECUTED = (
    Feature.GROUPS,
    Feature.TASK_INPUT,
    Feature.URL_FILE,
    Feature.FILES,
    Feature.EXIT_ACTIONS,
    Feature.TIMEOUTS,
    Feature.LABELS,
)


def _local_user() -> str:
    """The user of the operating system; some containers run as a uid without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"


class ApiSettings(ServiceSettings):
    """Where the API listens, whom it listens to, and what it accepts. Times in seconds."""

    api_host: str = Field(default="127.0.0.1", description="The address to listen on.")
    api_port: int = Field(default=8000, ge=0, le=65535, description="0 takes any free port.")
    allowed_hosts: list[str] = Field(
        default=[], description="Names in the Host header besides those of this machine itself."
    )
    home: Path = Field(
        default=Path("~/.cairn"), description="The system's folder; nothing of it is used here yet."
    )
    local_user: str = Field(
        default_factory=_local_user, description="Who a request without x-osmo-user comes from."
    )

    pools: dict[str, str | dict[str, Any]] = Field(
        default={},
        description="Pools that one cluster only serves, as the engine's setting of this name has"
        " them; what else it says is the engine's business.",
    )
    default_pool: str = Field(default="default", description="The pool of users who chose none.")
    features: list[Feature] = Field(
        default=list(_EXECUTED),
        description="What workflows may use anywhere; clusters say what else they can do.",
    )

    max_body_bytes: int = Field(
        default=32 << 20, description="The largest request; a workflow file travels twice in it."
    )
    max_spec_bytes: int = Field(default=8 << 20, description="The largest workflow file.")
    max_tasks: int = Field(default=100_000, description="The most tasks of one workflow.")
    max_exec_timeout: float | None = None
    max_queue_timeout: float | None = None
    max_streams: int = Field(
        default=4096, description="Log, event and watch streams that are open at once."
    )
    spec_workers: int = Field(default=2, ge=1, description="Processes that read workflow files.")
    database_connections: int = Field(default=10, ge=2)

    inventory_patience: float = Field(
        default=3.0, description="How long a submission waits for a cluster's first inventory."
    )
    handover_seconds: float = Field(
        default=2.0, gt=0, description="After how long what the engine has not taken is sent again."
    )
    debounce_seconds: float = Field(
        default=0.05, gt=0, description="Changes that come closer together are told as one."
    )
    keepalive_seconds: float = Field(
        default=15.0, gt=0, description="How often an idle watch says that it is alive."
    )

    @property
    def pins(self) -> dict[str, str]:
        """The cluster of each pool that is bound to one."""
        named = {
            pool: rules if isinstance(rules, str) else rules.get("cluster")
            for pool, rules in self.pools.items()
        }
        return {pool: cluster for pool, cluster in named.items() if cluster}
