"""What pools are: whose hardware, how much of it, and what tasks may do there.

`model` is the configuration that operators write; `templates` merges pod templates; `checks` says
before a workflow is accepted what a pool does not allow. All of it is pure: the API checks
submissions and bridges build pods from the same values.
"""

from cairn_common.pools.checks import (
    check_pool,
    keys_wanted,
    mount_of,
    needed,
    refusals,
    unknown_credentials,
    with_defaults,
)
from cairn_common.pools.model import (
    ClusterPools,
    Credential,
    Platform,
    Pool,
    Queue,
    Share,
    Toleration,
    TopologyKey,
)
from cairn_common.pools.templates import merge, merge_all

__all__ = [
    "ClusterPools",
    "Credential",
    "Platform",
    "Pool",
    "Queue",
    "Share",
    "Toleration",
    "TopologyKey",
    "check_pool",
    "keys_wanted",
    "merge",
    "merge_all",
    "mount_of",
    "needed",
    "refusals",
    "unknown_credentials",
    "with_defaults",
]
