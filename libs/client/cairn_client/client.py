"""The HTTP API as Python methods.

One `Client` holds one pool of connections and may be used by several threads. Requests are not
repeated: a submission that was sent twice would run twice. Only `watch` connects again when it
loses the server, because every snapshot is complete and nothing can be missed or doubled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from pydantic import ValidationError

from cairn_client import streams
from cairn_client.connection import Connection, Query, refusal
from cairn_client.errors import (
    ApiError,
    ConnectionFailed,
    Problem,
    SubmissionError,
    VersionMismatch,
)
from cairn_client.models import (
    Cluster,
    ClusterList,
    DeadLetter,
    DeadLetterPage,
    PoolUse,
    ResourceList,
    Snapshot,
    Submission,
    TaskPage,
    Version,
    Workflow,
    WorkflowPage,
)

if TYPE_CHECKING:
    import httpx

Names = Sequence[str]

_CLUSTERS = "/api/clusters"
_DEAD_LETTERS = "/api/dead-letters"
_QUIET_SECONDS = 60.0
"""A watch that says nothing for so long is dead; the server sends a sign of life more often."""


class Client:
    """A connection to Cairn.

    Args:
        base_url: its address; without one, `$CAIRN_URL` or the Cairn that `cairn up` runs here.
        user: who asks, where the server believes it; otherwise it decides itself.
        timeout: seconds to wait for an answer. Streams of logs, events and snapshots may be
            silent for longer.
        transport: for tests, what carries the requests.

    Raises:
        ConnectionFailed: no address is known. Whether something answers there shows later.
    """

    def __init__(
        self,
        base_url: str | None = None,
        user: str | None = None,
        timeout: float = 60.0,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._server = Connection(base_url, user, timeout, transport)

    @property
    def url(self) -> str:
        """Where requests go."""
        return self._server.url

    def close(self) -> None:
        """Close all connections."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Sending workflows

    def submit(
        self,
        text: str,
        *,
        pool: str | None = None,
        priority: str | None = None,
        set_variables: Mapping[str, object] | None = None,
        set_string_variables: Mapping[str, object] | None = None,
        env_vars: Mapping[str, object] | None = None,
        labels: Mapping[str, object] | None = None,
        dry_run: bool = False,
        validation_only: bool = False,
        base_dir: Path | None = None,
        file: str = "workflow.yaml",
    ) -> Submission:
        """Send a workflow file.

        Args:
            text: the file.
            pool: where it runs; by default the user's own pool.
            priority: HIGH, NORMAL or LOW.
            set_variables: values for templates; what looks like a number is one.
            set_string_variables: values for templates that stay text.
            env_vars: environment of every task.
            labels: labels besides those in the file.
            dry_run: only fill in the templates; the answer's `spec` is the result.
            validation_only: only check it.
            base_dir: the folder where relative `localpath` entries start. Without one, files of
                this machine are not read.
            file: what the file is called in messages.

        Raises:
            SubmissionError: it is not accepted; `problems` says what is wrong and where.
        """
        body: dict[str, Any] = {
            "file": text,
            "set_variables": _pairs(set_variables),
            "set_string_variables": _pairs(set_string_variables),
            "uploaded_templated_spec": None,
        }
        query: dict[str, Any] = {
            "priority": priority,
            "label": _pairs(labels),
            "env_vars": _pairs(env_vars),
        }
        path = f"/api/pool/{_segment(pool or self.default_pool())}/workflow"
        last = query | {"dry_run": dry_run, "validation_only": validation_only or None}
        if base_dir is None or "localpath" not in text:
            return self._send_workflow(path, last, body)
        body, templated = self._with_local_files(path, query, body, base_dir, file)
        try:
            return self._send_workflow(path, last, body)
        except SubmissionError as error:
            # The places are those of the text that was sent, which the server took for its
            # author's; inlining has kept its lines.
            error.problems = tuple(replace(p, in_rendered=templated) for p in error.problems)
            raise

    def default_pool(self) -> str:
        """The pool of workflows that name none.

        Raises:
            SubmissionError: the user has chosen none, and the server offers none.
        """
        settings = self._server.json("GET", "/api/profile/settings")
        profile = settings.get("profile") if isinstance(settings, dict) else None
        pool = profile.get("pool") if isinstance(profile, dict) else None
        if not isinstance(pool, str) or not pool:
            raise SubmissionError("You have no default pool; name one.", error_code="USAGE")
        return pool

    def _with_local_files(
        self, path: str, query: Query, body: Mapping[str, Any], base_dir: Path, file: str
    ) -> tuple[dict[str, Any], bool]:
        """The body with the contents of local files; and whether its text had templates."""
        # Templates may choose which files are read, so the server fills them in first.
        from cairn_common.spec import SpecError, inline_local_files, is_templated

        text = original = str(body["file"])
        templated = is_templated(original)
        if templated:
            text = self._rendered(path, query, body) or original
        try:
            inlined = inline_local_files(text, base_dir, file=file)
        except SpecError as error:
            found = [Problem.from_json(problem.to_dict()) for problem in error.problems]
            raise SubmissionError(
                str(error),
                error_code=error.code.value,
                problems=[replace(problem, in_rendered=templated) for problem in found],
            ) from error
        given: dict[str, Any] = {}
        if templated:
            given = {"set_variables": [], "set_string_variables": []}
        return {**body, **given, "file": inlined, "uploaded_templated_spec": original}, templated

    def _rendered(self, path: str, query: Query, body: Mapping[str, Any]) -> str | None:
        try:
            return self._send_workflow(path, {**query, "dry_run": True}, body).spec
        except SubmissionError as error:
            # Beside a real problem the server also names the local files, which it cannot read;
            # that is our task, and would be done.
            others = [p for p in error.problems if not p.path.endswith(".localpath")]
            error.problems = tuple(others or error.problems)
            raise

    def _send_workflow(self, path: str, query: Query, body: Mapping[str, Any]) -> Submission:
        try:
            return self._server.answer(Submission, "POST", path, query, body)
        except ApiError as error:
            if error.status >= 500 or error.status == 429:
                raise
            raise SubmissionError(
                error.message,
                error_code=error.error_code,
                status=error.status,
                problems=error.problems,
                workflow_id=error.workflow_id,
            ) from error

    # Reading

    def get(self, workflow: str, *, verbose: bool = False) -> Workflow:
        """A workflow with its groups and tasks."""
        return self._server.answer(
            Workflow, "GET", _of(workflow), {"verbose": True} if verbose else None
        )

    def list(
        self,
        *,
        users: Names = (),
        all_users: bool = False,
        statuses: Names = (),
        name: str | None = None,
        pools: Names = (),
        tags: Names = (),
        priorities: Names = (),
        labels: Names = (),
        submitted_after: datetime | None = None,
        submitted_before: datetime | None = None,
        limit: int = 20,
        offset: int = 0,
        order: str = "DESC",
    ) -> WorkflowPage:
        """The newest workflows after `offset`, newest first unless `order` is ASC.

        Without `users` and `all_users`, the user's own. `labels` are `key=value`, with `*` and
        `(a|b)` allowed in the value.
        """
        query = {
            "users": users,
            "all_users": all_users or None,
            "statuses": statuses,
            "name": name,
            "pools": pools,
            "all_pools": None if pools else True,
            "tags": tags,
            "priority": priorities,
            "label": labels,
            "submitted_after": submitted_after and submitted_after.isoformat(),
            "submitted_before": submitted_before and submitted_before.isoformat(),
            "limit": limit,
            "offset": offset,
            "order": order,
        }
        return self._server.answer(WorkflowPage, "GET", "/api/workflow", query)

    def tasks(
        self,
        *,
        workflow: str | None = None,
        users: Names = (),
        all_users: bool = False,
        statuses: Names = (),
        pools: Names = (),
        nodes: Names = (),
        priorities: Names = (),
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        limit: int = 20,
        offset: int = 0,
        order: str = "DESC",
    ) -> TaskPage:
        """Tasks over all workflows, with the same filters as `list`."""
        query = {
            "workflow_id": workflow,
            "users": users,
            "all_users": all_users or None,
            "statuses": statuses,
            "pools": pools,
            "all_pools": None if pools else True,
            "nodes": nodes,
            "priority": priorities,
            "started_after": started_after and started_after.isoformat(),
            "started_before": started_before and started_before.isoformat(),
            "limit": limit,
            "offset": offset,
            "order": order,
        }
        return self._server.answer(TaskPage, "GET", "/api/task", query)

    def spec(self, workflow: str, *, template: bool = False) -> str:
        """The workflow's file: as it was run, or with `template` as its author wrote it."""
        return self._server.send("GET", f"{_of(workflow)}/spec", {"use_template": template}).text

    def logs(
        self,
        workflow: str,
        *,
        task: str | None = None,
        retry_id: int | None = None,
        last: int | None = None,
        error: bool = False,
    ) -> Iterator[str]:
        """Log lines, of a running workflow as they come and until it ends.

        Args:
            workflow: its id.
            task: only of this task.
            retry_id: only of this attempt, 0 is the first.
            last: only the last so many lines.
            error: the error log instead.
        """
        chunks = self.log_bytes(workflow, task=task, retry_id=retry_id, last=last, error=error)
        return (line.decode(errors="replace") for line in streams.lines(chunks))

    def log_bytes(
        self,
        workflow: str,
        *,
        task: str | None = None,
        retry_id: int | None = None,
        last: int | None = None,
        error: bool = False,
    ) -> Generator[bytes, None, None]:
        """As `logs`, byte by byte what the server sends, in pieces of any size."""
        query = {"task_name": task, "retry_id": retry_id, "last_n_lines": last}
        path = f"{_of(workflow)}/{'error_logs' if error else 'logs'}"
        return self._server.stream(path, query)

    def events(
        self, workflow: str, *, task: str | None = None, retry_id: int | None = None
    ) -> Iterator[str]:
        """What happened to a workflow, a line each, until it ends."""
        chunks = self._server.stream(
            f"{_of(workflow)}/events", {"task_name": task, "retry_id": retry_id}
        )
        return (line.decode(errors="replace") for line in streams.lines(chunks))

    def watch(
        self,
        workflow: str,
        *,
        patience: float = 30.0,
        on_loss: Callable[[ConnectionFailed], None] | None = None,
    ) -> Generator[Snapshot, None, None]:
        """A snapshot now and at every change; the last one is `final`.

        Args:
            workflow: its id.
            patience: how many seconds to try to find the server again when it is lost after it
                was reached.
            on_loss: called whenever it is lost, before the next try.
        """
        lost_at: float | None = None
        met = False
        pause = 0.1
        while True:
            try:
                for snapshot in self._snapshots(workflow):
                    met, lost_at, pause = True, None, 0.1
                    yield snapshot
                    if snapshot.final:
                        return
                failure = ConnectionFailed(self.url, "The server ended the stream.")
            except ConnectionFailed as error:
                failure = error
            except ApiError as error:
                if error.status < 500 or not met:
                    raise
                failure = ConnectionFailed(self.url, error.message)
            now = time.monotonic()
            if lost_at is None:
                lost_at = now
                if met and on_loss is not None:
                    on_loss(failure)
            if not met or now - lost_at > patience:
                raise failure
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def wait(self, workflow: str) -> Snapshot:
        """The last snapshot of a workflow, once it has ended."""
        snapshots = self.watch(workflow)
        snapshot = next(snapshots)
        for snapshot in snapshots:  # noqa: B007 - the last one is the result
            pass
        return snapshot

    def version(self) -> Version:
        """What the server is."""
        return self._server.answer(Version, "GET", "/api/version")

    def health(self) -> bool:
        """Whether workflows can be submitted and run now.

        Raises:
            ConnectionFailed: nothing answers.
        """
        try:
            self._server.send("GET", "/api/ready")
        except ApiError as error:
            if error.status != 503:
                raise
            return False
        return True

    def _snapshots(self, workflow: str) -> Iterator[Snapshot]:
        path = f"{_of(workflow)}/watch"
        chunks = self._server.stream(path, quiet=_QUIET_SECONDS)
        for kind, data in streams.events(streams.lines(chunks)):
            try:
                answer = json.loads(data)
                if kind == "error":
                    raise refusal(0, answer, "")
                yield Snapshot.parse(answer)
            except ValidationError as error:
                raise self._server.mismatch(error, path) from error
            except ValueError as error:
                raise VersionMismatch(f"{self.url}{path} sends no JSON: {error}") from error

    # Acting on a workflow

    def restart(self, workflow: str, *, pool: str | None = None) -> Submission:
        """Run what did not complete of an ended workflow, as a new workflow in the same pool or
        another; completed groups are taken over with their outputs.

        Raises:
            SubmissionError: it has not ended, or it completed.
        """
        pool = pool or self.get(workflow).pool or self.default_pool()
        path = f"/api/pool/{_segment(pool)}/workflow/{_segment(workflow)}/restart"
        return self._send_workflow(path, {}, {})

    def cancel(self, workflow: str, *, message: str | None = None, force: bool = False) -> str:
        """Ask for a workflow to be canceled; returns its id. `force` gives tasks no time to end."""
        answer = self._server.json(
            "POST", f"{_of(workflow)}/cancel", {"force": force, "message": message}
        )
        return str(answer.get("name", workflow)) if isinstance(answer, dict) else workflow

    def tag(self, workflow: str, *, add: Names = (), remove: Names = ()) -> None:
        """Add tags to a workflow, and remove others."""
        self._server.send("POST", f"{_of(workflow)}/tag", {"add": add, "remove": remove})

    def tags(self) -> tuple[str, ...]:
        """The tags that workflows may have."""
        answer = self._server.json("GET", "/api/tag")
        tags = answer.get("tags", ()) if isinstance(answer, dict) else ()
        return tuple(str(tag) for tag in tags)

    # For operators

    def pools(self, names: Names = ()) -> PoolUse:
        """The pools, or these of them, with the use of their GPUs."""
        return self._server.answer(PoolUse, "GET", "/api/pool_quota", _some_pools(names))

    def resources(self, *, pools: Names = (), platforms: Names = ()) -> ResourceList:
        """The nodes of all pools, or of these, and of all platforms, or of these."""
        query = {**_some_pools(pools), "platforms": platforms}
        return self._server.answer(ResourceList, "GET", "/api/resources", query)

    def clusters(self) -> ClusterList:
        """The clusters that have registered."""
        return self._server.answer(ClusterList, "GET", _CLUSTERS)

    def cluster(self, name: str) -> Cluster:
        """One of them with the tasks that are open there."""
        return self._server.answer(Cluster, "GET", f"{_CLUSTERS}/{_segment(name)}")

    def drain_cluster(self, name: str) -> Cluster:
        """Place nothing new there; what is queued there moves if it can."""
        return self._server.answer(Cluster, "POST", f"{_CLUSTERS}/{_segment(name)}/drain")

    def resume_cluster(self, name: str) -> Cluster:
        """Let a draining cluster take work again."""
        return self._server.answer(Cluster, "POST", f"{_CLUSTERS}/{_segment(name)}/resume")

    def remove_cluster(self, name: str, *, force: bool = False) -> None:
        """Forget a cluster; with `force` even if tasks are open there, which are lost then."""
        self._server.send("DELETE", f"{_CLUSTERS}/{_segment(name)}", {"force": force})

    def dead_letters(self, *, limit: int = 20, before: int | None = None) -> DeadLetterPage:
        """The newest messages that no service could handle; `before`: with lower numbers."""
        query = {"limit": limit, "before": before}
        return self._server.answer(DeadLetterPage, "GET", _DEAD_LETTERS, query)

    def dead_letter(self, number: int) -> DeadLetter:
        """One of them with its headers and its body."""
        return self._server.answer(DeadLetter, "GET", f"{_DEAD_LETTERS}/{number}")

    def replay_dead_letter(self, number: int) -> None:
        """Send it once more to where it was sent, and drop it."""
        self._server.send("POST", f"{_DEAD_LETTERS}/{number}/replay")

    def drop_dead_letter(self, number: int) -> None:
        """Remove it for good."""
        self._server.send("DELETE", f"{_DEAD_LETTERS}/{number}")


def _some_pools(names: Names) -> dict[str, Any]:
    return {"pools": names, "all_pools": None if names else True}


def _pairs(values: Mapping[str, object] | None) -> Sequence[str]:
    return [f"{name}={value}" for name, value in (values or {}).items()]


def _of(workflow: str) -> str:
    return f"/api/workflow/{_segment(workflow)}"


def _segment(name: str) -> str:
    """A name as one step of a path; dots alone would lead elsewhere."""
    if name.strip(".") == "":
        raise ApiError(f"{name!r} is no name.", error_code="USAGE")
    return quote(name, safe="")
