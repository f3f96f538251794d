"""One trace a workflow: what a collector sees of a whole system, and that it may be absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator

import pytest

from cairn_common.telemetry import (
    attempt_traceparent,
    start_span,
    tracing_enabled,
)
from e2e.conftest import System, tasks_file
from telemetry_collector import Collector, Taken

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BRIDGE = "cairn-scheduler-bridge"
CHAIN = tasks_file(
    "traced",
    ["first: : echo trace=$TRACEPARENT", "second: first: echo trace=$TRACEPARENT; exit 3"],
)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[System]:
    """A running system that exports to the collector."""
    environment = {"CAIRN_OTLP_ENDPOINT": collector.endpoint, "NO_PROXY": "127.0.0.1"}
    system = System(tmp_path_factory.mktemp("home"), environment)
    system.cairn("up", "--detach")
    yield system
    system.cairn("down")


def of_trace(spans: list[Taken], trace: str) -> list[Taken]:
    """The spans of one trace."""
    return [span for span in spans if span.trace == trace]


def ended(collector: Collector, workflow: str) -> list[Taken]:
    """All spans of a workflow's trace, once it has ended and everything has arrived."""

    def complete(spans: list[Taken]) -> bool:
        whole = [s for s in spans if s.attributes.get("cairn.workflow") == workflow]
        names = [s.name for s in whole]
        return (
            any(name.startswith("workflow ") for name in names)
            and any(name.startswith("POST ") for name in names)
            and names.count("process task.archived") >= 2
            and {s.service for s in whole} >= {"cairn-api", "cairn-engine", BRIDGE}
        )

    spans = collector.wait(complete)
    return of_trace(
        spans, next(s.trace for s in spans if s.attributes.get("cairn.workflow") == workflow)
    )


def printed(system: System, workflow: str) -> list[str]:
    """The contexts that the tasks had in their environment."""
    lines = system.logs(workflow).splitlines()
    return [line.rpartition("trace=")[2].strip() for line in lines if "trace=00-" in line]


def test_one_trace_runs_through_request_services_and_tasks(
    system: System, collector: Collector
) -> None:
    workflow = system.submit(CHAIN)
    assert system.finish(workflow) == "FAILED"
    spans = ended(collector, workflow)
    by_id = {span.span: span for span in spans}
    assert len(by_id) == len(spans), "a span was recorded twice"

    request = next(span for span in spans if span.kind == "SERVER")
    assert request.service == "cairn-api"
    assert request.parent == ""
    assert all(span.parent in by_id for span in spans if span is not request)

    by_name = {span.name: span for span in spans}
    whole, first, second = by_name["workflow traced"], by_name["task first"], by_name["task second"]
    assert (whole.parent, whole.service, whole.status) == (request.span, "cairn-engine", "ERROR")
    for task, status, code in ((first, "OK", 0), (second, "ERROR", 3)):
        assert (task.parent, task.service, task.status) == (whole.span, "cairn-engine", status)
        assert task.attributes["process.exit.code"] == code
        assert task.attributes["cairn.workflow"] == workflow
        assert whole.started <= task.started <= task.ended <= whole.ended
    assert first.ended <= second.started

    contexts = [context.split("-") for context in printed(system, workflow)]
    assert [(trace, span) for _, trace, span, _ in contexts] == [
        (request.trace, first.span),
        (request.trace, second.span),
    ]

    handled = [(span.service, span.name) for span in spans if span.kind == "CONSUMER"]
    assert handled.count((BRIDGE, "process task.ready")) == 2
    for event in ("task.accepted", "task.scheduled", "task.started", "task.finished"):
        assert handled.count(("cairn-engine", f"process {event}")) == 2, event
    assert ("cairn-engine", "process workflow.submitted") in handled
    ready = by_name["process task.ready"]
    assert ready.attributes["messaging.system"] == "nats"
    assert ready.attributes["messaging.operation.type"] == "process"
    assert ready.attributes["messaging.destination.name"].startswith("task.ready.local.")
    assert ready.attributes["cairn.task"] in {"first", "second"}


def test_a_callers_trace_goes_on(system: System, collector: Collector) -> None:
    answer = _post(system, tasks_file("called", ["only: : echo trace=$TRACEPARENT"]), CALLER)
    workflow = answer["name"]
    assert system.finish(workflow) == "COMPLETED"
    _, trace, caller, _ = CALLER.split("-")
    spans = collector.wait(
        lambda spans: {"SERVER", "INTERNAL"} <= {s.kind for s in of_trace(spans, trace)}
    )
    request = next(span for span in of_trace(spans, trace) if span.kind == "SERVER")
    assert request.parent == caller
    assert "hush" not in str(request.attributes), "what a query says may be secret"
    assert [context.split("-")[1] for context in printed(system, workflow)] == [trace]


def test_a_cancellation_is_linked_to_the_workflows_trace(
    system: System, collector: Collector
) -> None:
    workflow = system.submit(tasks_file("ended", ["long: : sleep 600"]))
    system.wait(workflow, lambda status: status == "RUNNING")
    system.cairn("workflow", "cancel", workflow)
    assert system.finish(workflow) == "FAILED_CANCELED"
    spans = collector.wait(
        lambda spans: {"workflow ended", "process task.stop"} <= {s.name for s in spans}
    )
    trace = next(span.trace for span in spans if span.name == "workflow ended")
    names = {span.name: span for span in of_trace(spans, trace)}
    assert "process task.stop" in names
    assert names["process workflow.cancel"].links not in ([], [trace])


def test_what_ends_sends_its_last_spans(system: System, collector: Collector) -> None:
    workflow = system.submit(tasks_file("last", ["only: : true"]))
    assert system.finish(workflow) == "COMPLETED"
    system.cairn("down")
    names = {span.name for span in collector.spans}
    system.cairn("up", "--detach")
    assert {"workflow last", "task only"} <= names


def _post(system: System, text: str, traceparent: str) -> dict[str, str]:
    url = system.json("status")["url"]
    request = urllib.request.Request(
        f"{url}/api/pool/default/workflow?env_vars=PASSWORD=hush",
        json.dumps({"file": text}).encode(),
        {"content-type": "application/json", "traceparent": traceparent},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        body: dict[str, str] = json.load(answer)
        return body


# --- without a collector ----------------------------------------------------------------------


def test_without_an_endpoint_no_span_is_made() -> None:
    """In a process of its own: nothing of the SDK is even loaded."""
    program = """
        import sys
        from datetime import UTC, datetime
        from opentelemetry import trace
        from cairn_common import telemetry as t

        assert t.configure_tracing("engine", None) is None
        assert not t.tracing_enabled()
        assert t.MessageSpans.if_wanted() is None
        with t.start_span("a block", t.new_traceparent()) as span:
            assert not span.is_recording()
            assert t.current_traceparent() is None
        now = datetime.now(UTC)
        t.record_span("over", None, now, now)
        t.shutdown_tracing()
        assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
        assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk.trace")]
        assert not [name for name in sys.modules if name.startswith("opentelemetry.exporter")]
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


def test_a_span_that_nobody_wants_costs_next_to_nothing() -> None:
    assert not tracing_enabled()
    begin = time.perf_counter()
    for _ in range(10_000):
        with start_span("a block"):
            pass
    assert (time.perf_counter() - begin) / 10_000 < 50e-6


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never answers"])
def test_a_collector_that_is_away_holds_nothing_up(silent: bool) -> None:
    """SIGTERM ends a process in bounded time, and its log has a line or two about it."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        program = f"""
            import signal, sys, time
            from datetime import UTC, datetime
            from cairn_common import telemetry as t

            t.configure_logs("engine", form="json")
            t.configure_tracing("engine", "http://127.0.0.1:{listener.getsockname()[1]}/v1/traces")
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            now = datetime.now(UTC)
            begin = time.monotonic()
            for _ in range(20_000):
                t.record_span("over", t.new_traceparent(), now, now)
            print(time.monotonic() - begin, flush=True)
            try:
                time.sleep(600)
            finally:
                t.shutdown_tracing()
            """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )
        assert process.stdout is not None
        assert float(process.stdout.readline()) < 10  # half a millisecond each is far too much
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert time.monotonic() - begin < 6
        assert 1 <= len(errors.splitlines()) <= 6, errors


# --- pieces -----------------------------------------------------------------------------------


def test_the_context_of_an_attempt_is_known_beforehand() -> None:
    own = attempt_traceparent(CALLER, "a-task", 1)
    assert own == attempt_traceparent(CALLER, "a-task", 1)
    assert own != attempt_traceparent(CALLER, "a-task", 2)
    assert own.split("-")[1] == CALLER.split("-")[1]
    assert own.endswith("-01")
    assert attempt_traceparent("no context", "a-task", 1) == "no context"
