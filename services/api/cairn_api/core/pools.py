"""The JSON of the reference's answers about pools, nodes and profiles, field by field."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class PoolStatus(StrEnum):
    """Whether a pool takes work."""

    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"
    MAINTENANCE = "MAINTENANCE"


class PlatformMinimal(BaseModel):
    """What tasks may do on a platform."""

    description: str = ""
    host_network_allowed: bool = False
    privileged_allowed: bool = False
    allowed_mounts: list[str] = []
    default_mounts: list[str] = []


class PoolMinimal(BaseModel):
    """What users see of a pool."""

    name: str = ""
    description: str = ""
    status: PoolStatus | None = None
    download_type: str | None = None
    enable_maintenance: bool = False
    backend: str
    default_platform: str | None = None
    default_exec_timeout: str = ""
    default_queue_timeout: str = ""
    max_exec_timeout: str = ""
    max_queue_timeout: str = ""
    default_exit_actions: dict[str, str] = {}
    resources: dict[str, Any] = {}
    topology_keys: list[dict[str, str]] = []
    platforms: dict[str, PlatformMinimal] = {}


class PoolsAnswer(BaseModel):
    """Pools by name."""

    pools: dict[str, PoolMinimal] = {}


class ResourceUsage(BaseModel):
    """Counts of GPUs, as text."""

    quota_used: str
    quota_free: str
    quota_limit: str
    total_usage: str
    total_capacity: str
    total_free: str


class PoolUsage(PoolMinimal):
    """A pool with its use."""

    resource_usage: ResourceUsage


class NodeSet(BaseModel):
    """Pools that share their nodes."""

    pools: list[PoolUsage]


class PoolQuotaAnswer(BaseModel):
    """The use of pools, and of all of them together."""

    node_sets: list[NodeSet]
    resource_sum: ResourceUsage


class ConfigFields(BaseModel):
    """What tasks may do on a node."""

    host_network: bool = False
    privileged: bool = False
    default_mounts: list[str] = []
    allowed_mounts: list[str] = []


class ResourceAnswer(BaseModel):
    """A node."""

    hostname: str
    exposed_fields: dict[str, Any]
    taints: list[dict[str, Any]] = []
    usage_fields: dict[str, Any]
    conditions: list[str] | None = None
    non_workflow_usage_fields: dict[str, Any]
    allocatable_fields: dict[str, Any]
    platform_allocatable_fields: dict[str, Any] | None = None
    platform_available_fields: dict[str, Any] | None = None
    platform_workflow_allocatable_fields: dict[str, Any] | None = None
    config_fields: dict[str, Any] | None = None
    backend: str
    label_fields: dict[str, Any] | None = None
    pool_platform_labels: dict[str, list[str]]
    resource_type: str = "SHARED"


class ResourcesAnswer(BaseModel):
    """Nodes."""

    resources: list[ResourceAnswer]


class UserProfile(BaseModel):
    """What a user chose. In a change, what is not given stays."""

    username: str | None = None
    email_notification: bool | None = None
    slack_notification: bool | None = None
    pool: str | None = None


class TokenIdentity(BaseModel):
    """The access token that a request came with."""

    name: str
    expires_at: datetime | None = None


class ProfileAnswer(BaseModel):
    """A user's profile, roles and pools."""

    profile: UserProfile
    roles: list[str]
    pools: list[str]
    token: TokenIdentity | None = None


class VersionAnswer(BaseModel):
    """The version of the contract that the API keeps; `hash` names our own."""

    major: str
    minor: str = "0"
    revision: str = "0"
    hash: str = ""
