"""Whether the clusters of a pool can ever run a workflow.

A group lies in one cluster as a whole, and any cluster of the pool will do. So with one cluster
its problems are the workflow's; with several, those of a group count if it has some in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cairn_api.core.inventory import Site
from cairn_common.pools import Pool, check_pool, needed
from cairn_common.spec.capacity import NodeCapacity, check_capacity
from cairn_common.spec.features import unsupported
from cairn_common.spec.models import WorkflowSpec
from cairn_common.spec.problems import Problem


def problems_of(
    spec: WorkflowSpec,
    sites: Sequence[Site],
    *,
    pool: str,
    features: frozenset[str],
    priority: str = "NORMAL",
) -> list[Problem]:
    """Everything that keeps the workflow from running in the pool.

    Args:
        spec: the workflow.
        sites: what the pool's clusters offer; with none only features are checked.
        pool: the pool's name.
        features: what is executed by the installation, whatever the cluster.
        priority: HIGH, NORMAL or LOW.
    """
    if len(sites) == 1:
        return _at(spec, sites[0], pool, features, priority)
    problems = unsupported(spec, features.union(*(site.features for site in sites)))
    if not sites:
        return problems
    problems += _capacity(spec, sites, pool)
    if problems:
        return problems
    found = {site.cluster: _at(spec, site, pool, features, priority) for site in sites}
    refused = set.intersection(*(_groups_in_trouble(spec, each) for each in found.values()))
    return [
        replace(problem, message=f"In cluster {cluster}: {problem.message}")
        for cluster, each in found.items()
        for problem in each
        if _groups_of(spec, problem) & refused
    ]


def _at(
    spec: WorkflowSpec, site: Site, pool: str, features: frozenset[str], priority: str
) -> list[Problem]:
    problems = unsupported(spec, features | site.features)
    # What a cluster cannot do, no pool of it allows: that is said once.
    if checked := site.terms is not None and not problems:
        problems = check_pool(spec, site.terms, name=pool, priority=priority)
    return problems + _capacity(spec, [site], pool, checked=checked)


def _capacity(
    spec: WorkflowSpec, sites: Sequence[Site], pool: str, *, checked: bool = False
) -> list[Problem]:
    """Against all nodes of the sites; of what they define differently the first counts.

    Args:
        checked: the pool's terms have been checked, so that unknown platforms were named.
    """
    terms = [site.terms or Pool() for site in sites]
    usual = {each.usual_platform for each in terms}
    platforms = {name: each for pool in reversed(terms) for name, each in pool.platforms.items()}
    together = Pool(platforms=platforms, default_platform=usual.pop() if len(usual) == 1 else None)
    several = len(sites) > 1
    return check_capacity(
        spec,
        [
            NodeCapacity(
                f"{site.cluster}/{node.name}" if several else node.name,
                node.cpu,
                node.gpu,
                node.memory,
                node.storage,
                frozenset(node.platforms),
            )
            for site in sites
            for node in site.nodes
        ],
        pool=pool,
        default_platform=together.default_platform,
        platforms=platforms if checked else None,
        amounts=lambda resource: needed(resource, together),
    )


def _groups_in_trouble(spec: WorkflowSpec, problems: Sequence[Problem]) -> set[int]:
    return {group for problem in problems for group in _groups_of(spec, problem)}


def _groups_of(spec: WorkflowSpec, problem: Problem) -> set[int]:
    """The groups that a problem is about: one, those that use a resource, or all."""
    match problem.location:
        case ("workflow", "tasks" | "groups", int(group), *_):
            return {group}
        case ("workflow", "resources", str(name), *_):
            return {
                g
                for g, group in enumerate(spec.all_groups)
                if any(task.resource == name for task in group.tasks)
            }
    return set(range(len(spec.all_groups)))
