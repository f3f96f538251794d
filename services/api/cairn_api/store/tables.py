"""The tables of the schema `api`, and the engine's published views, as SQLModel classes.

Alembic makes the tables (`migrations/`); these classes are how this package reads and writes them.
The views belong to the engine: nothing here ever writes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel


def _time(*, nullable: bool = True) -> Any:
    kind: Any = DateTime(timezone=True)
    if nullable:
        return Field(default=None, sa_type=kind)
    return Field(sa_type=kind)


class WorkflowNumber(SQLModel, table=True):
    """The last number that was given to workflows of a name."""

    __tablename__ = "workflow_number"
    __table_args__ = {"schema": "api"}

    name: str = Field(primary_key=True, sa_type=Text)
    last: int = Field(sa_type=BigInteger)


class SubmissionRow(SQLModel, table=True):
    """A workflow as it was accepted."""

    __tablename__ = "submission"
    __table_args__ = {"schema": "api"}

    workflow: str = Field(primary_key=True, sa_type=Text)
    uuid: str
    name: str
    user_name: str
    pool: str
    priority: str
    labels: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))
    traceparent: str | None = None
    submitted_at: datetime = _time(nullable=False)
    spec: str
    rendered: str
    template: str | None = None
    parent: str | None = None
    restarts: str | None = None
    warnings: list[str] = Field(default=[], sa_column=Column(ARRAY(Text), nullable=False))
    tags: list[str] = Field(default=[], sa_column=Column(ARRAY(Text), nullable=False))
    cpu: int = Field(sa_type=BigInteger)
    gpu: int = Field(sa_type=BigInteger)
    memory: int = Field(sa_type=BigInteger)
    storage: int = Field(sa_type=BigInteger)


class TaskRequestRow(SQLModel, table=True):
    """What a task asks for, if it is not what most tasks of its workflow ask for."""

    __tablename__ = "task_request"
    __table_args__ = {"schema": "api"}

    workflow: str = Field(primary_key=True)
    task: str = Field(primary_key=True)
    cpu: int = Field(sa_type=BigInteger)
    gpu: int = Field(sa_type=BigInteger)
    memory: int = Field(sa_type=BigInteger)
    storage: int = Field(sa_type=BigInteger)


class HandoverRow(SQLModel, table=True):
    """An event that the engine has yet to take note of."""

    __tablename__ = "handover"
    __table_args__ = {"schema": "api"}

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    workflow: str
    kind: str
    subject: str
    headers: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))
    body: str
    tries: int = 0
    due_at: datetime = _time(nullable=False)


class ProfileRow(SQLModel, table=True):
    """What a user chose; None is no choice."""

    __tablename__ = "profile"
    __table_args__ = {"schema": "api"}

    user_name: str = Field(primary_key=True)
    pool: str | None = None
    email_notification: bool | None = None
    slack_notification: bool | None = None


class WorkflowView(SQLModel, table=True):
    """`engine.view_workflow`: how workflows fare."""

    __tablename__ = "view_workflow"
    __table_args__ = {"schema": "engine"}

    id: str = Field(primary_key=True)
    cluster: str
    status: str
    started_at: datetime | None = _time()
    ended_at: datetime | None = _time()
    exec_timeout: float | None = None
    queue_timeout: float | None = None
    groups_total: int
    tasks_total: int
    tasks_completed: int
    tasks_failed: int
    cancel_by: str | None = None
    cancel_message: str | None = None
    cause: str | None = None


class ClusterView(SQLModel, table=True):
    """`engine.view_cluster`: the clusters that have registered."""

    __tablename__ = "view_cluster"
    __table_args__ = {"schema": "engine"}

    name: str = Field(primary_key=True)
    state: str
    pools: list[str] = Field(sa_column=Column(ARRAY(Text)))
    registered_at: datetime = _time(nullable=False)


class GroupView(SQLModel, table=True):
    """`engine.view_group`."""

    __tablename__ = "view_group"
    __table_args__ = {"schema": "engine"}

    workflow: str = Field(primary_key=True)
    index: int = Field(primary_key=True)
    name: str
    uuid: str
    status: str
    message: str | None = None
    upstream: list[int] = Field(sa_column=Column(ARRAY(BigInteger)))
    downstream: list[int] = Field(sa_column=Column(ARRAY(BigInteger)))
    unmet: int
    size: int
    processing_at: datetime | None = _time()
    scheduling_at: datetime | None = _time()
    initializing_at: datetime | None = _time()
    started_at: datetime | None = _time()
    ended_at: datetime | None = _time()


class TaskView(SQLModel, table=True):
    """`engine.view_task`: one row an attempt."""

    __tablename__ = "view_task"
    __table_args__ = {"schema": "engine"}

    workflow: str = Field(primary_key=True)
    index: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    group_index: int
    name: str
    uuid: str
    lead: bool
    status: str
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    node: str | None = None
    cluster: str | None = None
    processing_at: datetime | None = _time()
    scheduling_at: datetime | None = _time()
    initializing_at: datetime | None = _time()
    started_at: datetime | None = _time()
    ended_at: datetime | None = _time()
