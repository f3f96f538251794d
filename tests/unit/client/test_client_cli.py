"""The `cairn` command: what it prints where, and how it exits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from cairn_client.cli import app as app_module
from cairn_client.cli import reading
from unit.client.fake_cairn import FakeCairn, Ran, group, snapshot, task

Run = Callable[..., Ran]
WATCH = "GET /api/workflow/hello-1/watch"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "hello.yaml"
    path.write_text("workflow:\n  name: hello\n")
    return str(path)


def test_help_and_completion_wait_for_no_library() -> None:
    heavy = {"httpx", "pydantic", "rich", "yaml", "importlib.metadata"}
    code = f"import sys, cairn_client.cli.app; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_help_groups_the_commands(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for part in ("Workflows:", "Shortcuts:", "submit", "version", "Exit codes:"):
        assert part in ran.out


def test_a_typo_is_answered_with_what_was_meant(run: Run) -> None:
    ran = run("sumbit")
    assert (ran.code, ran.out) == (2, "")
    assert "Did you mean 'submit'?" in ran.err


def test_submit_prints_the_id(server: FakeCairn, run: Run, file: str) -> None:
    server.submits(warnings=["careful"])
    ran = run("workflow", "submit", file, "--set", "a=1", "--set", "b=x=y", "--priority", "low")
    assert (ran.code, ran.err) == (0, "Warning: careful\n")
    assert "hello-1" in ran.out
    assert server.last.body["set_variables"] == ["a=1", "b=x=y"]
    assert server.last.query["priority"] == ["LOW"]
    assert run("submit", file, "--quiet").out == "hello-1\n"
    ran = run("submit", file, "-t", "json")
    assert json.loads(ran.out) == {
        "name": "hello-1",
        "overview": "o",
        "logs": None,
        "spec": None,
        "dashboard_url": None,
        "warnings": ["careful"],
    }


def test_submit_reads_standard_input(server: FakeCairn, run: Run) -> None:
    server.submits()
    assert run("submit", "-", "-p", "mine", input="workflow: {}").code == 0
    assert server.asked[0].body["file"] == "workflow: {}"


def test_a_dry_run_prints_the_file_and_nothing_else(server: FakeCairn, run: Run, file: str) -> None:
    server.submits(spec="workflow:\n  name: x\n", warnings=["careful"])
    ran = run("submit", file, "--dry-run", "--follow")
    assert (ran.code, ran.out) == (0, "workflow:\n  name: x\n")
    assert server.last.query["dry_run"] == ["true"]


def test_validate(server: FakeCairn, run: Run, file: str) -> None:
    server.submits(logs="Workflow validation succeeded.")
    ran = run("workflow", "validate", file)
    assert (ran.code, ran.out) == (0, "Workflow validation succeeded.\n")
    assert server.last.query["validation_only"] == ["true"]


def test_a_refused_file_is_shown_line_by_line(server: FakeCairn, run: Run, file: str) -> None:
    problem = {
        "file": "workflow.yaml",
        "line": 3,
        "column": 2,
        "path": "workflow.tasks",
        "message": "nothing to do",
        "hint": "add a task",
        "source_line": "\ttasks: []",
    }
    rendered = {"message": "also", "line": 9, "column": 1, "in_rendered": True}
    server.refuse("POST /api/pool/mine/workflow", "m", problems=[problem, rendered])
    ran = run("submit", file)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"{file}:3:2: workflow.tasks: nothing to do\n"
        "     3 | \ttasks: []\n"
        "       | \t^\n"
        "       hint: add a task\n"
        f"{file}:9:1 (rendered): also\n"
        "2 problems; lines marked (rendered) are those after the templates are filled in.\n"
    )


def test_files_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    for name in ("missing.yaml", "."):
        ran = run("submit", name)
        assert (ran.code, ran.out) == (1, "")
        assert f"{name} cannot be read" in ran.err
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "UTF-8" in run("submit", "binary").err


@pytest.mark.parametrize("option", ["--set", "--set-string", "--set-env", "--label"])
def test_pairs_are_checked(run: Run, file: str, option: str) -> None:
    ran = run("submit", file, option, "x")
    assert ran.code == 2
    assert f"{option}: 'x' is not KEY=VALUE" in ran.err


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (404, 2), (422, 2), (429, 75), (500, 10), (503, 10)]
)
def test_exit_codes_of_refusals(server: FakeCairn, run: Run, status: int, code: int) -> None:
    server.refuse("GET /api/workflow", "because", status)
    ran = run("workflow", "list")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("Error: because\n")


@pytest.mark.parametrize(("status", "code"), [(400, 1), (429, 75), (500, 10)])
def test_exit_codes_of_submissions(
    server: FakeCairn, run: Run, file: str, status: int, code: int
) -> None:
    server.refuse("POST /api/pool/mine/workflow", "because", status)
    ran = run("submit", file)
    assert (ran.code, "because" in ran.err) == (code, True)


def test_no_server(server: FakeCairn, run: Run) -> None:
    def nobody(_: object) -> httpx.Response:
        raise httpx.ConnectError("refused")

    server.on("GET /api/workflow", nobody)
    ran = run("list")
    assert (ran.code, ran.out) == (10, "")
    assert "cairn up" in ran.err
    assert "Traceback" not in ran.err
    ran = run("list", "--debug")
    assert ran.code == 10
    assert "Traceback" in ran.err
    assert run("list", url=None).code == 10


def test_list(server: FakeCairn, run: Run) -> None:
    entry = {
        "name": "hello-1",
        "status": "COMPLETED",
        "submit_time": "2026-08-01T12:00:00",
        "duration": 185.2,
        "user": "ada",
        "labels": {"team": "x\x1b[2J"},
    }
    answer = {"workflows": [entry], "more_entries": True, "unknown": 1}
    server.json("GET /api/workflow", answer)
    ran = run(
        "workflow", "list", "--status", "completed", "--count", "1", "--submitted-after", "2h"
    )
    head, line = ran.out.splitlines()
    assert head.split()[:2] == ["ID", "STATUS"]
    assert [*line.split()][:2] == ["hello-1", "COMPLETED"]
    assert "3m05s" in line
    assert "\x1b" not in line
    assert ran.err == "There are more: --offset 1\n"
    assert server.last.query["statuses"] == ["COMPLETED"]
    assert server.last.query["order"] == ["ASC"]
    assert json.loads(run("list", "--format-type", "JSON").out) == answer
    server.json("GET /api/workflow", {"workflows": [], "more_entries": False})
    ran = run("list")
    assert (ran.out, ran.err) == ("", "There are no such workflows.\n")
    assert run("list", "--submitted-after", "yesterday").code == 2


def test_query_shows_groups_and_the_newest_attempts(server: FakeCairn, run: Run) -> None:
    body = {
        "name": "hello-1",
        "status": "FAILED",
        "submit_time": "2026-08-01T12:00:00",
        "failure_message": "it broke",
        "groups": [
            group("one", task("a", "RESCHEDULED"), task("a", "COMPLETED", retry_id=1, exit_code=0)),
            group(
                "two",
                task("b", "FAILED", exit_code=3, failure_message="bad\nluck", lead=True),
                task("c", "FAILED_UPSTREAM"),
                status="FAILED",
            ),
        ],
    }
    server.json("GET /api/workflow/hello-1", body)
    ran = run("query", "hello-1")
    rows = [line.split()[:4] for line in ran.out.partition("TASK")[2].splitlines()[1:]]
    assert [row[0] for row in rows] == ["a", "two/", "b", "c"]
    assert rows[0] == ["a", "COMPLETED", "1", "0"]
    assert "Because: it broke" in ran.out
    assert "bad luck" in ran.out
    assert "RESCHEDULED" in run("query", "hello-1", "--verbose").out
    assert json.loads(run("query", "hello-1", "-t", "json").out) == body


def test_logs_pass_through_unchanged(server: FakeCairn, run: Run) -> None:
    text = b"2026/08/01 12:00:00 [a] \x1b[31mhot\x1b[0m\r\n100%\r"
    server.text("GET /api/workflow/hello-1/logs", text[:7], text[7:])
    ran = run("logs", "hello-1", "--task", "a", "-n", "5", "--retry-id", "0")
    assert ran.raw == text
    assert server.last.query == {"task_name": ["a"], "last_n_lines": ["5"], "retry_id": ["0"]}
    server.text("GET /api/workflow/hello-1/error_logs", b"e\n")
    assert run("workflow", "logs", "hello-1", "--error").out == "e\n"


def test_log_lines_are_coloured_by_task() -> None:
    line = b"2026/08/01 12:00:00 [a retry-1][osmo] fetching [x]"
    shown = reading._coloured(line)
    assert shown != line
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", shown) == line
    first = reading._coloured(b"2026/08/01 12:00:00 [a] x")
    assert first.split(b"[a")[0].rpartition(b"\x1b")[2] in shown
    assert reading._coloured(b"whatever [a]") == b"whatever [a]"


def test_spec_events_and_tags(server: FakeCairn, run: Run) -> None:
    server.text("GET /api/workflow/hello-1/spec", b"workflow: {}")
    assert run("workflow", "spec", "hello-1", "--template").out == "workflow: {}\n"
    server.text("GET /api/workflow/hello-1/events", b"a\nb")
    assert run("workflow", "events", "hello-1").out == "a\nb\n"
    server.json("GET /api/tag", {"tags": ["x", "y"]})
    assert run("workflow", "tag").out == "x\ny\n"
    server.json("POST /api/workflow/hello-1/tag", {})
    server.json("GET /api/workflow/hello-1", {**snapshot("RUNNING"), "tags": ["x"]})
    assert run("workflow", "tag", "hello-1", "--add", "x").out == "hello-1: x\n"
    assert run("workflow", "tag", "--add", "x").code == 2


def test_cancel_goes_on_after_a_failure(server: FakeCairn, run: Run) -> None:
    server.refuse("POST /api/workflow/a-1/cancel", "Workflow a-1 is not found.")
    server.json("POST /api/workflow/b-1/cancel", {"name": "b-1"})
    ran = run("cancel", "a-1", "b-1", "--message", "enough", "--force")
    assert (ran.code, ran.out) == (2, "Workflow b-1 is being canceled.\n")
    assert ran.err == "Error: Workflow a-1 is not found.\n"
    assert server.last.query == {"force": ["true"], "message": ["enough"]}
    assert json.loads(run("cancel", "b-1", "-t", "json").out) == [{"name": "b-1"}]


def test_tasks(server: FakeCairn, run: Run) -> None:
    entry = {"workflow_id": "hello-1", "task_name": "a", "status": "RUNNING", "memory": 1.5}
    server.json("GET /api/task", {"tasks": [entry]})
    ran = run("task", "list", "-w", "hello-1", "--status", "running", "--node", "n1")
    assert ran.out.splitlines()[1].split()[:3] == ["hello-1", "a", "RUNNING"]
    assert "1.5Gi" in ran.out
    assert server.last.query["nodes"] == ["n1"]
    assert server.last.query["workflow_id"] == ["hello-1"]


def test_version_needs_no_server(server: FakeCairn, run: Run) -> None:
    ran = run("version")
    assert (ran.code, ran.err) == (0, "")
    assert "server c-1 (contract 6.4.0)" in ran.out
    ran = run("version", "-t", "json", url=None)
    assert ran.code == 0
    assert json.loads(ran.out)["server"] is None
    assert "No Cairn runs" in ran.err


# Following


def test_follow_tells_each_change_once_and_ends_as_the_workflow_does(
    server: FakeCairn, run: Run, file: str
) -> None:
    server.submits()
    running = snapshot("RUNNING", group("g", task("a", node_name="n"), task("b", "WAITING")))
    done = group("g", task("a", "COMPLETED", exit_code=0), task("b", "COMPLETED", exit_code=0))
    server.watch([running, running, snapshot("COMPLETED", done, end_time="2026-08-01T12:00:12")])
    ran = run("submit", file, "--follow")
    assert (ran.code, ran.err) == (0, "")
    changes = [line.split()[1:3] for line in ran.out.splitlines() if line[2:3] == ":"]
    assert changes == [["a", "RUNNING"], ["b", "WAITING"], ["a", "COMPLETED"], ["b", "COMPLETED"]]
    assert ran.out.endswith("hello-1 COMPLETED in 12s\n")


FAILED = snapshot(
    "FAILED",
    group("g", task("a", "FAILED", exit_code=3), status="FAILED"),
    group("h", task("b", "FAILED_UPSTREAM"), status="FAILED_UPSTREAM"),
    failure_message="a broke",
)


def test_a_failure_is_shown_with_the_end_of_its_log(server: FakeCairn, run: Run, file: str) -> None:
    server.submits()
    server.watch([FAILED])
    server.text("GET /api/workflow/hello-1/logs", b"no such file\n")
    ran = run("submit", file, "-f")
    assert ran.code == 1
    assert server.last.query == {
        "task_name": ["a"],
        "retry_id": ["0"],
        "last_n_lines": ["10"],
    }
    assert ran.out.endswith(
        "hello-1 FAILED: a broke\n"
        "  a: FAILED, exit code 3\n"
        "    no such file\n"
        "  All of it: cairn logs hello-1 --task a\n"
    )


def test_follow_as_json_keeps_standard_output_for_the_result(
    server: FakeCairn, run: Run, file: str
) -> None:
    server.submits(warnings=["w"])
    server.watch([FAILED])
    ran = run("submit", file, "-f", "-t", "json")
    assert ran.code == 1
    result = json.loads(ran.out)
    assert (result["status"], result["overview"], result["warnings"]) == ("FAILED", "o", ["w"])
    assert "a  FAILED" in ran.err
    server.watch([FAILED])
    ran = run("follow", "hello-1", "--quiet", "-t", "json")
    assert (ran.code, ran.err) == (1, "")


def test_quiet_follow_prints_the_id_only(server: FakeCairn, run: Run, file: str) -> None:
    server.submits()
    server.watch([snapshot("COMPLETED")])
    ran = run("submit", file, "-f", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "hello-1\n", "")


def test_ctrl_c_detaches(server: FakeCairn, run: Run) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"data: " + json.dumps(snapshot("RUNNING")).encode() + b"\n\n"
        raise KeyboardInterrupt

    server.on(WATCH, lambda _: httpx.Response(200, content=interrupted()))
    ran = run("follow", "hello-1")
    assert ran.code == 3
    assert "hello-1 goes on" in ran.err
    assert "cairn cancel hello-1" in ran.err


def test_ctrl_c_elsewhere(server: FakeCairn, run: Run) -> None:
    def interrupted(_: object) -> httpx.Response:
        raise KeyboardInterrupt

    server.on("GET /api/workflow", interrupted)
    ran = run("list")
    assert (ran.code, ran.out, ran.err) == (3, "", "")


# Extensions


def _extend(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    entries = [EntryPoint(f"e{i}", value, app_module.PLUGINS) for i, value in enumerate(values)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: entries)


def register(app: typer.Typer) -> None:
    @app.command("up")
    def up(n: int = 0) -> None:
        """Go up."""
        typer.echo(f"up {n}")
        raise typer.Exit(n)


def test_other_packages_add_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _extend(monkeypatch, f"{__name__}:register", "no.such.module:x", f"{__name__}:nothing")
    ran = run("--help")
    assert "Go up." in ran.out
    assert "no.such.module:x cannot be loaded" in ran.err
    ran = run("up", "--n", "4")
    assert (ran.code, ran.out) == (4, "up 4\n")


def test_standalone_commands_without_their_package(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _extend(monkeypatch)
    ran = run("up")
    assert ran.code == 1
    assert "pip install cairn-standalone" in ran.err


def test_completion_offers_ids_and_tasks(
    server: FakeCairn,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_CAIRN_COMPLETE", "complete_bash")
        monkeypatch.setenv("CAIRN_URL", "http://cairn.test")
        command: Any = typer.main.get_command(app_module.app)
        with pytest.raises(SystemExit):
            command(prog_name="cairn")
        return capsys.readouterr().out.split()

    entries = [{"name": n, "status": "RUNNING", "submit_time": "2026-08-01T12:00:00"} for n in "ab"]
    server.json("GET /api/workflow", {"workflows": entries})
    assert complete("cairn workflow logs a") == ["a"]
    body = {**snapshot("RUNNING", group("g", task("x1"), task("y"))), "name": "a"}
    server.json("GET /api/workflow/a", body)
    assert complete("cairn logs a --task x") == ["x1"]
    assert [asked.path for asked in server.asked] == ["/api/workflow", "/api/workflow/a"]
    server.refuse("GET /api/workflow", "no")
    assert complete("cairn workflow logs a") == []
