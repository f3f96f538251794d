"""What a pool does not allow, said before a workflow is accepted, in OSMO's words where it has any.

Whether the nodes are large enough is `cairn_common.spec.capacity`; here is what the configuration
of a pool decides: platforms, rights, mounts, topology keys, and shares that can never be enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from posixpath import normpath

from cairn_common.pools.model import UNLIMITED, Platform, Pool, Share
from cairn_common.spec.capacity import Amounts, requested
from cairn_common.spec.models import GroupSpec, ResourceSpec, TaskSpec, WorkflowSpec
from cairn_common.spec.problems import ErrorCode, Location, Problem

_SHARES = ("cpu", "memory", "gpu")


def mount_of(text: str) -> tuple[str, str]:
    """Source and destination of `source` or `source:destination`.

    Raises:
        ValueError: another form, or a path that is not absolute or climbs out of itself.
    """
    parts = text.split(":")
    if len(parts) > 2 or not all(parts):
        raise ValueError(f"Invalid task volume mount: {text}.")
    source, destination = parts[0], parts[-1]
    for path in (source, destination):
        if not path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"Invalid task volume mount: {text}. Paths must be absolute.")
    return normpath(source), normpath(destination)


def mount_allowed(source: str, allowed: Sequence[str]) -> bool:
    """Whether a folder is one of those allowed, or lies below one."""
    source = normpath(source)
    for each in allowed:
        root = normpath(each.split(":", maxsplit=1)[0])
        if source == root or source.startswith(f"{root.rstrip('/')}/"):
            return True
    return False


def needed(resource: ResourceSpec, pool: Pool) -> Amounts:
    """What a task needs in a pool: what it asks for, else its platform's defaults, else OSMO's."""
    return requested(with_defaults(resource, pool.platform(resource.platform) or Platform()))


def with_defaults(resource: ResourceSpec, platform: Platform) -> ResourceSpec:
    """The amounts that a task asks for; what it does not say is as its platform has it."""
    return ResourceSpec(
        cpu=platform.default_cpu if resource.cpu is None else resource.cpu,
        gpu=resource.gpu or platform.default_gpu,
        memory=platform.default_memory if resource.memory is None else resource.memory,
        storage=platform.default_storage if resource.storage is None else resource.storage,
    )


def refusals(
    pool: Pool,
    pool_name: str,
    task: str,
    *,
    platform: str | None,
    privileged: bool,
    host_network: bool,
    mounts: Sequence[str],
    topology_keys: Sequence[str],
) -> list[str]:
    """Everything about one task that the pool does not allow; empty if it may run."""
    chosen = pool.platform(platform)
    name = platform or pool.default_platform or "default"
    if chosen is None:
        available = ", ".join(sorted(pool.platforms)) or "none"
        return [
            f"Platform {name} does not exist in pool {pool_name}! Available platforms: {available}."
        ]
    found: list[str] = []
    if privileged and not chosen.privileged_allowed:
        found.append(
            f"Task with platform: {name} does not have privileged flag enabled. Task {task}"
        )
    if host_network and not chosen.host_network_allowed:
        found.append(
            f"Task with platform: {name} does not have hostNetwork flag enabled. Task {task}"
        )
    for mount in mounts:
        try:
            source, _ = mount_of(mount)
        except ValueError as error:
            found.append(str(error))
            continue
        if not mount_allowed(source, chosen.allowed_mounts):
            found.append(f"Task with platform: {name} does not allow mount: {source}. Task {task}")
    known = [each.key for each in pool.topology_keys]
    found += [
        f'Topology key "{key}" of task "{task}" is not available in pool "{pool_name}". '
        f"Available topology keys: {known}"
        for key in topology_keys
        if key not in known
    ]
    return found


def keys_wanted(credentials: Mapping[str, str | Mapping[str, str]]) -> dict[str, list[str]]:
    """For each credential of a task the keys that it names; none where it takes the whole."""
    return {
        name: [] if isinstance(use, str) else sorted(set(use.values()))
        for name, use in credentials.items()
    }


def unknown_credentials(
    pool: Pool, pool_name: str, wanted: Mapping[str, Collection[str]]
) -> dict[str, tuple[str, str]]:
    """By credential what of it the pool does not have, in OSMO's words, and a hint.

    Args:
        pool: the pool.
        pool_name: its name.
        wanted: as `keys_wanted` says.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, keys in wanted.items():
        known = pool.credentials.get(name)
        if known is None:
            available = ", ".join(sorted(pool.credentials)) or "none"
            found[name] = (
                f"Could not find the credential: {name}.",
                f"Credentials of pool {pool_name}: {available}.",
            )
        elif missing := [key for key in keys if key not in known.keys]:
            found[name] = (
                f"Credential {name} has no key {missing[0]}.",
                f"Its keys: {', '.join(known.keys)}.",
            )
    return found


def check_pool(
    spec: WorkflowSpec,
    pool: Pool,
    *,
    name: str,
    priority: str = "NORMAL",
    file: str = "workflow.yaml",
) -> list[Problem]:
    """Problems of what the pool does not allow or can never provide.

    Their code is RESOURCE, or CREDENTIAL for those that the pool does not have.

    Problems have no position; `LoadedWorkflow.locate` adds it.
    """
    problems: list[Problem] = []
    said: set[str] = set()  # what is the same for many tasks is said once
    for g, group in enumerate(spec.all_groups):
        for t, task in enumerate(group.tasks):
            place = spec.task_location(g, t)
            for words in _task_refusals(spec, task, pool, name):
                if words not in said:
                    said.add(words)
                    problems.append(Problem(words, place, ErrorCode.RESOURCE, "", file))
            wanted = keys_wanted(task.credentials)
            for credential, (words, hint) in unknown_credentials(pool, name, wanted).items():
                where = (*place, "credentials", credential)
                problems.append(Problem(words, where, ErrorCode.CREDENTIAL, hint, file))
        place = ("workflow", "tasks", g) if spec.written_as_tasks else ("workflow", "groups", g)
        problems += _share_problems(spec, group, pool, name, priority, place, file)
    return problems


def _task_refusals(spec: WorkflowSpec, task: TaskSpec, pool: Pool, name: str) -> list[str]:
    resource = spec.resource_of(task)
    return refusals(
        pool,
        name,
        task.name,
        platform=resource.platform,
        privileged=task.privileged,
        host_network=task.host_network,
        mounts=task.volume_mounts,
        topology_keys=[each.key for each in resource.topology],
    )


def _share_problems(
    spec: WorkflowSpec,
    group: GroupSpec,
    pool: Pool,
    name: str,
    priority: str,
    place: Location,
    file: str,
) -> list[Problem]:
    """A gang that exceeds the pool's maximum, or its guarantee when it may not borrow."""
    need = Amounts()
    for task in group.tasks:
        need = need.plus(needed(spec.resource_of(task), pool))
    problems: list[Problem] = []
    for field in _SHARES:
        share: Share = getattr(pool.queue, field)
        asked = getattr(need, field)
        bound, word = share.maximum, "maximum"
        if priority != "LOW" and share.guarantee != UNLIMITED:
            bound, word = share.guarantee, "guarantee"
        if bound != UNLIMITED and asked > bound:
            hint = (
                "Priority LOW may use what other pools leave unused."
                if word == "guarantee" and (share.maximum == UNLIMITED or asked <= share.maximum)
                else "Ask for less, or for another pool."
            )
            problems.append(
                Problem(
                    f'Group "{group.name}" asks for {field} {asked:g}, more than the {word} '
                    f"{bound:g} of pool {name}.",
                    place,
                    ErrorCode.RESOURCE,
                    hint,
                    file,
                )
            )
    return problems
