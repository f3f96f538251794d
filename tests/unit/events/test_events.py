"""The catalogue, its envelope and its subjects."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.asyncapi import asyncapi_document
from cairn_common.events import (
    CATALOGUE,
    PARTITIONS,
    AttemptRef,
    InvalidEventError,
    TaskFinished,
    TaskLog,
    TaskStop,
    WorkflowCancel,
    decode,
    encode,
    partition_of,
)
from cairn_common.events.subjects import STREAMS, cluster_inbox, engine_inbox, token

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.from_regex(r"[a-zA-Z]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?-[0-9]{1,5}", fullmatch=True)


def matches(subject: str, pattern: str) -> bool:
    """NATS's own rule: `*` is one token, `>` is the rest."""
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
    return len(tokens) == len(wanted) and all(
        w in {"*", t} for t, w in zip(tokens, wanted, strict=True)
    )


@given(NAMES, st.text(), st.booleans())
def test_an_event_survives_the_wire(workflow: str, message: str, force: bool) -> None:
    event = WorkflowCancel(workflow=workflow, user="u", message=message, force=force)
    envelope = encode(event, source="/test", event_id="1", traceparent="00-a-b-01", time=NOW)
    assert decode(envelope.subject, envelope.headers, envelope.body) == event
    assert decode(envelope.subject, None, envelope.body) == event, "the subject names the type too"
    assert envelope.headers["ce-id"] == envelope.headers["Nats-Msg-Id"] == "1"
    assert envelope.headers["ce-subject"] == workflow
    assert envelope.headers["traceparent"] == "00-a-b-01"


@given(NAMES)
def test_one_filter_is_the_whole_inbox_of_a_partition(workflow: str) -> None:
    event = TaskFinished(workflow=workflow, cluster="c", at=NOW, outcomes=[])
    partition = partition_of(workflow)
    assert 0 <= partition < PARTITIONS
    assert matches(event.subject(), engine_inbox(partition))
    assert not matches(event.subject(), engine_inbox((partition + 1) % PARTITIONS))


def test_one_filter_is_the_whole_inbox_of_a_cluster() -> None:
    ref = AttemptRef(index=0, name="t", attempt=0)
    stop = TaskStop(cluster="edge", workflow="w-1", attempts=[ref], cause="")
    assert matches(stop.subject(), cluster_inbox("edge"))
    assert not matches(stop.subject(), cluster_inbox("local"))


def test_every_event_has_exactly_one_stream() -> None:
    for kind in CATALOGUE:
        homes = [s.name for s in STREAMS for p in s.subjects if matches(f"{kind}.x", p)]
        assert len(homes) == 1, f"{kind} is kept in {homes}"


@pytest.mark.parametrize("value", ["", "a.b", "a b", "*", ">", "a\n"])
def test_what_cannot_be_a_token_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a NATS subject"):
        token(value)
    with pytest.raises(ValueError, match="cannot be part of a NATS subject"):
        TaskLog(workflow="w-1", task=value, index=0, attempt=0).subject()


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"ce-type": "task.vanished"}, b"{}", "task.vanished"),
        ({"ce-type": "task.finished", "ce-specversion": "9.9"}, b"{}", "9.9"),
        ({"ce-type": "task.finished"}, b"{", "Invalid JSON"),
        ({"ce-type": "task.finished"}, b"{}", "workflow: Field required"),
        (None, b"{}", "workflow: Field required"),
    ],
)
def test_bad_messages_say_what_is_wrong(
    headers: dict[str, str] | None, body: bytes, reason: str
) -> None:
    with pytest.raises(InvalidEventError, match=reason):
        decode("task.finished.3.w-1", headers, body)


def test_newer_senders_may_say_more() -> None:
    body = b'{"workflow": "w-1", "user": "u", "mood": "fine"}'
    assert isinstance(decode("workflow.cancel.3.w-1", None, body), WorkflowCancel)


def test_the_committed_catalogue_is_the_codes() -> None:
    committed = (ROOT / "docs" / "asyncapi.yaml").read_text()
    import yaml

    assert yaml.safe_load(committed) == asyncapi_document(), "run `make asyncapi`"
