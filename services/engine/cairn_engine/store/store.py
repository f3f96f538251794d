"""Loading and saving: a batch is one transaction, an entity kind one statement.

What is loaded needs no transaction of its own: only the owner of a partition writes its rows, and
a commit succeeds only for who has owned it all the time (the epoch of its lease). So an engine
may also keep what it has loaded, from batch to batch, and most batches load nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from cairn_common.events import Envelope, partition_of
from cairn_common.persistence import Database
from cairn_engine.core import Clusters, Ledger, need_of
from cairn_engine.core.inputs import Anomaly
from cairn_engine.core.plan import Finished, Plan, location_of, sources_of
from cairn_engine.store import rows, sql


class FencedError(Exception):
    """A partition of the batch belongs to another engine by now."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted workflow as the API stored it; `spec` is the validated spec as JSON.

    `restarts` names the earlier workflow whose completed groups need not run again.
    """

    workflow: str
    uuid: str
    name: str
    user: str
    pool: str
    priority: str
    labels: dict[str, str]
    traceparent: str | None
    submitted_at: datetime
    spec: str
    restarts: str | None = None


@dataclass(slots=True)
class Writes:
    """What a batch stores besides the changed entities of its ledger."""

    plans: list[Plan] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)  # follow-ups that are decided now
    put_off: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    envelopes: Sequence[Envelope] = ()
    forget: Sequence[int] = ()  # messages in the outbox that are sent

    @property
    def simple(self) -> bool:
        """Whether `SAVE` alone does it."""
        return not (self.plans or self.taken or self.put_off or self.anomalies)


class Store:
    """The engine's schema."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner

    # --- loading ---------------------------------------------------------------------------

    async def load_workflows(self, ledger: Ledger, ids: Iterable[str]) -> None:
        """Load the workflows that are not loaded yet."""
        missing = sorted(set(ids) - ledger.workflows.keys())
        if missing:
            for row in await self._database.fetch(sql.LOAD_WORKFLOWS, missing):
                ledger.workflows[row["id"]] = rows.to_workflow(row)

    async def load_tasks(self, ledger: Ledger, keys: Iterable[tuple[str, int, int]]) -> None:
        """Load attempts, each with its group."""
        missing = sorted({key for key in keys if key not in ledger.tasks})
        if missing:
            found = await self._database.fetch(
                sql.LOAD_TASKS,
                [key[0] for key in missing],
                [key[1] for key in missing],
                [key[2] for key in missing],
            )
            for row in found:
                ledger.add_task(rows.to_task(row))
            await self._load_groups(ledger, {(r["workflow"], r["group_index"]) for r in found})

    async def _load_groups(self, ledger: Ledger, keys: Iterable[tuple[str, int]]) -> None:
        missing = sorted(set(keys) - ledger.groups.keys())
        if missing:
            found = await self._database.fetch(
                sql.LOAD_GROUPS, [key[0] for key in missing], [key[1] for key in missing]
            )
            for row in found:
                ledger.groups[row["workflow"], row["index"]] = rows.to_group(row)

    async def load_whole_groups(self, ledger: Ledger, keys: Iterable[tuple[str, int]]) -> None:
        """Load groups with the newest attempt of each of their tasks."""
        missing = sorted(set(keys) - ledger.whole)
        if missing:
            await self._load_groups(ledger, missing)
            found = await self._database.fetch(
                sql.LOAD_CURRENT_TASKS, [key[0] for key in missing], [key[1] for key in missing]
            )
            for row in found:
                ledger.add_task(rows.to_task(row))
            ledger.mark_whole(key for key in missing if key in ledger.groups)

    async def load_page(self, ledger: Ledger, workflow: str, first: int, limit: int) -> None:
        """Load the next open groups of a workflow, whole."""
        found = await self._database.fetch(sql.LOAD_PAGE, workflow, first, limit)
        indices = [row["index"] for row in found]
        ledger.pages[workflow] = indices
        await self.load_whole_groups(ledger, [(workflow, index) for index in indices])

    async def load_submissions(
        self, ids: Sequence[str], size: int
    ) -> tuple[list[Submission], list[str]]:
        """Submissions that the engine does not have yet, and the ids of those left for later.

        Args:
            ids: which.
            size: bytes of specifications after which the rest is left.
        """
        new = await self.unknown_workflows(ids)
        if not new:
            return [], []
        found = await self._database.fetch(sql.LOAD_SUBMISSIONS, new, size)
        return (
            [Submission(*row) for row in found if row["spec"] is not None],
            [row["workflow"] for row in found if row["spec"] is None],
        )

    async def unknown_workflows(self, ids: Sequence[str]) -> list[str]:
        """Those that the engine does not have."""
        known = await self._database.fetch(sql.KNOWN_WORKFLOWS, ids)
        return sorted(set(ids) - {row["id"] for row in known})

    async def load_finished(self, workflow: str) -> Finished:
        """What of an earlier workflow need not run again: its completed groups, by name."""
        finished: Finished = {}
        for row in await self._database.fetch(sql.COMPLETED_OF, workflow):
            task = rows.to_task(row)
            if task.location is None:
                task.location = location_of(row["workflow_uuid"], task.name, task.attempt)
            finished.setdefault(row["group_name"], {})[task.name] = task  # the last attempt
        return finished

    async def load_bodies(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """The unchanging parts of placements."""
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        found = await self._database.fetch(
            sql.LOAD_BODIES, [key[0] for key in wanted], [key[1] for key in wanted]
        )
        return {(row["workflow"], row["index"]): row["body"] for row in found}

    async def load_completed_attempts(
        self, ledger: Ledger, keys: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], tuple[int, str | None]]:
        """Which attempt of each of these tasks has completed, and where its outputs lie."""
        known: dict[tuple[str, int], tuple[int, str | None]] = {}
        missing = []
        for key in sorted(set(keys)):
            task = ledger.completed_attempt(*key)
            if task is None:
                missing.append(key)
            else:
                known[key] = (task.attempt, task.location)
        if missing:
            found = await self._database.fetch(
                sql.LOAD_LOCATIONS, [key[0] for key in missing], [key[1] for key in missing]
            )
            for row in found:
                known[row["workflow"], row["index"]] = (row["attempt"], row["location"])
        return known

    async def load_needs(self, ledger: Ledger, keys: Iterable[tuple[str, int]]) -> None:
        """What groups need of a cluster, and where their inputs lie."""
        texts = await self.load_bodies(key for key in keys if key not in ledger.needs)
        bodies = {key: orjson.loads(text) for key, text in texts.items()}
        sources = {
            (workflow, index)
            for (workflow, _group), body in bodies.items()
            for index in sources_of(body)
        }
        clusters = await self._clusters_of(ledger, sources)
        for (workflow, group), body in bodies.items():
            inputs = (clusters.get((workflow, index)) for index in sorted(sources_of(body)))
            ledger.needs[workflow, group] = need_of(body, [each for each in inputs if each])

    async def _clusters_of(
        self, ledger: Ledger, keys: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], str | None]:
        """In which cluster each of these tasks has completed."""
        known: dict[tuple[str, int], str | None] = {}
        missing = []
        for key in keys:
            task = ledger.completed_attempt(*key)
            if task is None:
                missing.append(key)
            else:
                known[key] = task.cluster
        if missing:
            found = await self._database.fetch(
                sql.LOAD_LOCATIONS, [key[0] for key in missing], [key[1] for key in missing]
            )
            known |= {(row["workflow"], row["index"]): row["cluster"] for row in found}
        return known

    async def queued_elsewhere(
        self,
        partitions: Sequence[int],
        clusters: Clusters,
        after: tuple[str, int],
        limit: int,
    ) -> list[tuple[str, int]]:
        """Groups with something queued where it may have to leave, a page of them."""
        found = await self._database.fetch(
            sql.QUEUED_ELSEWHERE,
            partitions,
            clusters.served,
            sorted(clusters.takers),
            sorted(clusters.gone),
            *after,
            limit,
        )
        return [tuple(row) for row in found]

    async def on_nodes_of(
        self, partitions: Sequence[int], clusters: Clusters, after: tuple[str, int], limit: int
    ) -> list[tuple[str, int]]:
        """Groups with something on a node of a cluster that is lost, a page of them."""
        found = await self._database.fetch(
            sql.ON_NODES_OF, partitions, sorted(clusters.gone), *after, limit
        )
        return [tuple(row) for row in found]

    async def load_follow_ups(
        self, partitions: Sequence[int], limit: int
    ) -> dict[int, dict[str, Any]]:
        """Follow-ups that were put off, oldest first."""
        found = await self._database.fetch(sql.LOAD_FOLLOW_UPS, partitions, limit)
        return {row["id"]: row["body"] for row in found}

    async def clocks(self, partitions: Sequence[int]) -> list[tuple[str, int, datetime]]:
        """The groups of open workflows that have a clock, and when it rings."""
        return [tuple(row) for row in await self._database.fetch(sql.CLOCKS, partitions)]

    async def left_in_outbox(
        self, partitions: Sequence[int], older_than: float
    ) -> list[tuple[int, list[Envelope]]]:
        """Messages that were decided long ago and that nobody has confirmed as sent."""
        found = await self._database.fetch(sql.LEFT_IN_OUTBOX, partitions, older_than)
        return [(row["id"], rows.unpack(row["messages"])) for row in found]

    async def forget_outbox(self, ids: Sequence[int]) -> None:
        """Drop messages that are sent."""
        await self._database.execute(sql.DELETE_OUTBOX, ids)

    async def open_attempts(
        self, cluster: str, after: tuple[str, int], limit: int
    ) -> list[tuple[str, int, int, str, str]]:
        """Attempts that the cluster has accepted and that have not ended, a page of them."""
        found = await self._database.fetch(sql.OPEN_ATTEMPTS, cluster, *after, limit)
        return [tuple(row) for row in found]

    # --- saving ----------------------------------------------------------------------------

    async def commit(self, epochs: Mapping[int, int], ledger: Ledger, writes: Writes) -> int | None:
        """Store everything that has changed, or nothing.

        Args:
            epochs: the epoch of each partition that the batch may be about.
            ledger: whose changed entities are written back.
            writes: what else there is.

        Returns:
            The id under which `forget_outbox` drops the messages once they are sent.

        Raises:
            FencedError: another engine has taken one of the partitions.
        """
        async with self._database.acquire() as connection:
            if writes.simple and not ledger.new_tasks:
                return await self._save(connection, epochs, ledger, writes)
            async with connection.transaction():
                # First, for the fence: it holds the partitions until the end.
                outbox = await self._save(connection, epochs, ledger, writes)
                await self._insert(connection, writes.plans)
                await self._rest(connection, writes)
                return outbox

    async def _save(
        self, connection: Any, epochs: Mapping[int, int], ledger: Ledger, writes: Writes
    ) -> int | None:
        said = writes.envelopes
        row = await connection.fetchrow(
            sql.SAVE,
            self._owner,
            list(epochs),
            list(epochs.values()),
            writes.forget,
            sorted({partition_of(envelope.headers["ce-subject"]) for envelope in said}),
            rows.pack(said) if said else None,
            *rows.task_changes(ledger.tasks[key] for key in sorted(ledger.changed_tasks)),
            *rows.group_changes(ledger.groups[key] for key in sorted(ledger.changed_groups)),
            *rows.workflow_changes(
                ledger.workflows[key] for key in sorted(ledger.changed_workflows)
            ),
        )
        if not row["held"]:
            raise FencedError("a partition was taken by another engine")
        if ledger.new_tasks:
            added = (ledger.tasks[key] for key in sorted(ledger.new_tasks))
            await connection.execute(sql.INSERT_TASKS, *rows.added_tasks(added))
        outbox: int | None = row["outbox"]
        return outbox

    async def _insert(self, connection: Any, plans: Sequence[Plan]) -> None:
        if not plans:
            return
        await connection.execute(sql.INSERT_WORKFLOWS, *rows.new_workflows(plans))
        await self._copy(
            connection,
            "task_group",
            sql.NEW_GROUP_COLUMNS,
            (
                rows.new_group(group, upstream)
                for plan in plans
                for group, upstream in zip(plan.groups, plan.upstream, strict=True)
            ),
        )
        await self._copy(
            connection,
            "group_body",
            ("workflow", "index", "body"),
            (
                (plan.workflow.id, index, orjson.dumps(body).decode())
                for plan in plans
                for index, body in enumerate(plan.bodies)
            ),
        )
        await self._copy(
            connection,
            "task",
            sql.NEW_TASK_COLUMNS,
            (rows.new_task(task) for plan in plans for task in plan.tasks),
        )

    @staticmethod
    async def _copy(
        connection: Any, table: str, names: Sequence[str], records: Iterable[tuple[Any, ...]]
    ) -> None:
        await connection.copy_records_to_table(
            table, schema_name="engine", columns=names, records=records
        )

    @staticmethod
    async def _rest(connection: Any, writes: Writes) -> None:
        if writes.taken:
            await connection.execute(sql.DELETE_FOLLOW_UPS, writes.taken)
        if writes.put_off:
            await connection.execute(
                sql.INSERT_FOLLOW_UPS,
                [partition_of(workflow) for workflow, _ in writes.put_off],
                [body for _, body in writes.put_off],
            )
        if writes.anomalies:  # the newest are kept: a flood of them is bounded
            await connection.execute(sql.DROP_OLD_ANOMALIES, sql.ANOMALIES_KEPT)
            await connection.execute(
                sql.INSERT_ANOMALIES,
                [anomaly.workflow for anomaly in writes.anomalies],
                [anomaly.what for anomaly in writes.anomalies],
                [anomaly.story for anomaly in writes.anomalies],
            )
