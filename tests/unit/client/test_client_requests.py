"""What the client sends, and what it makes of the answers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cairn_client import (
    ApiError,
    Client,
    ConnectionFailed,
    SubmissionError,
    VersionMismatch,
    __version__,
)
from unit.client.fake_cairn import URL, FakeCairn, group, task


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert __version__ == version("cairn-client")


def test_submit_says_everything_that_was_given(server: FakeCairn, cairn: Client) -> None:
    server.json("POST /api/pool/a%2Fb/workflow", {"name": "x-1", "warnings": ["w"], "new": 1})
    sent = cairn.submit(
        "workflow: {}",
        pool="a/b",
        priority="LOW",
        set_variables={"n": 3},
        set_string_variables={"s": "3"},
        env_vars={"E": "a b=c"},
        labels={"team": "x"},
    )
    assert (sent.name, sent.warnings, sent.raw["new"]) == ("x-1", ("w",), 1)
    assert server.last.body == {
        "file": "workflow: {}",
        "set_variables": ["n=3"],
        "set_string_variables": ["s=3"],
        "uploaded_templated_spec": None,
    }
    assert server.last.query == {
        "priority": ["LOW"],
        "label": ["team=x"],
        "env_vars": ["E=a b=c"],
        "dry_run": ["false"],
    }
    assert server.last.headers["user-agent"] == f"cairn-cli/{__version__}"
    assert "x-osmo-user" not in server.last.headers


def test_a_user_is_named_only_if_given(server: FakeCairn) -> None:
    with Client(URL, "ada", transport=httpx.MockTransport(server)) as cairn:
        cairn.version()
    assert server.last.headers["x-osmo-user"] == "ada"


def test_submit_goes_to_the_users_own_pool(server: FakeCairn, cairn: Client) -> None:
    server.submits()
    cairn.submit("workflow: {}")
    assert [asked.path for asked in server.asked] == [
        "/api/profile/settings",
        "/api/pool/mine/workflow",
    ]
    server.json("GET /api/profile/settings", {"profile": {"pool": None}})
    with pytest.raises(SubmissionError, match="no default pool"):
        cairn.submit("workflow: {}")


LOCAL = """workflow:
  name: hello
  tasks:
  - name: a
    files: [{localpath: run.sh, path: /tmp/run.sh}]
"""


def test_local_files_are_put_into_a_plain_file_in_one_request(
    server: FakeCairn, cairn: Client, tmp_path: Path
) -> None:
    (tmp_path / "run.sh").write_text("echo hi\n")
    server.submits()
    cairn.submit(LOCAL, pool="mine", base_dir=tmp_path)
    assert len(server.asked) == 1
    assert 'contents: "echo hi\\n"' in server.last.body["file"]
    assert server.last.body["uploaded_templated_spec"] == LOCAL


def test_local_files_of_a_template_are_chosen_by_the_server(
    server: FakeCairn, cairn: Client, tmp_path: Path
) -> None:
    (tmp_path / "run.sh").write_text("echo hi\n")
    template = LOCAL.replace("run.sh,", "{{ script }},")
    server.submits(spec=LOCAL)
    cairn.submit(template, pool="mine", base_dir=tmp_path, set_variables={"script": "run.sh"})
    first, second = server.asked
    assert (first.query["dry_run"], second.query["dry_run"]) == (["true"], ["false"])
    assert first.body["file"] == template
    assert first.body["set_variables"] == ["script=run.sh"]
    assert 'contents: "echo hi\\n"' in second.body["file"]
    assert second.body["set_variables"] == []
    assert second.body["uploaded_templated_spec"] == template


def test_what_looks_like_a_template_in_a_local_file_survives(
    server: FakeCairn, cairn: Client, tmp_path: Path
) -> None:
    import yaml

    text = "{{ x }} {% endraw %} {# y #} {{output}} \\ {{{%"
    (tmp_path / "run.sh").write_text(text)
    server.submits()
    cairn.submit(LOCAL, pool="mine", base_dir=tmp_path)
    assert "uploaded_templated_spec" in server.last.body, "so the server renders nothing"
    seen = yaml.safe_load(server.last.body["file"])
    assert seen["workflow"]["tasks"][0]["files"][0]["contents"] == text


def test_a_missing_local_file_is_a_refusal_with_its_place(
    server: FakeCairn, cairn: Client, tmp_path: Path
) -> None:
    with pytest.raises(SubmissionError) as caught:
        cairn.submit(LOCAL, pool="mine", base_dir=tmp_path, file="my.yaml")
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, caught.value.status) == ("my.yaml", 5, 0)
    assert not server.asked


def test_the_server_need_not_complain_about_local_files_beside_real_problems(
    server: FakeCairn, cairn: Client, tmp_path: Path
) -> None:
    problems = [
        {"path": "workflow.tasks[0].name", "message": "bad", "line": 4, "in_rendered": True},
        {"path": "workflow.tasks[0].files[0].localpath", "message": "local"},
    ]
    server.refuse("POST /api/pool/mine/workflow", "all", problems=problems)
    with pytest.raises(SubmissionError) as caught:
        cairn.submit("{% if x %}" + LOCAL, pool="mine", base_dir=tmp_path)
    assert [problem.message for problem in caught.value.problems] == ["bad"]


def test_list_asks_for_all_pools_and_leaves_out_the_rest(server: FakeCairn, cairn: Client) -> None:
    entry = {"name": "hello-1", "status": "RUNNING", "submit_time": "2026-08-01T12:00:00"}
    server.json("GET /api/workflow", {"workflows": [entry], "more_entries": True})
    page = cairn.list(
        statuses=["RUNNING", "FAILED"], submitted_after=datetime(2026, 8, 1, tzinfo=UTC)
    )
    assert server.last.query == {
        "statuses": ["RUNNING", "FAILED"],
        "all_pools": ["true"],
        "submitted_after": ["2026-08-01T00:00:00+00:00"],
        "limit": ["20"],
        "offset": ["0"],
        "order": ["DESC"],
    }
    assert page.more_entries
    assert page.workflows[0].submit_time == datetime(2026, 8, 1, 12, tzinfo=UTC)
    cairn.list(pools=["a"], users=["x"])
    assert server.last.query["pools"] == ["a"]
    assert "all_pools" not in server.last.query


def test_get_reads_groups_tasks_and_a_status_of_the_future(
    server: FakeCairn, cairn: Client
) -> None:
    body = {
        "name": "hello-1",
        "status": "FAILED_IN_A_NEW_WAY",
        "submit_time": "2026-08-01T12:00:00",
        "groups": [group("g", task("a", "COMPLETED", exit_code=0))],
    }
    server.json("GET /api/workflow/hello-1", body)
    found = cairn.get("hello-1")
    assert found.final
    assert not found.succeeded
    assert found.groups[0].tasks[0].final
    assert found.raw == body


def test_cancel_spec_tags_and_health(server: FakeCairn, cairn: Client) -> None:
    server.json("POST /api/workflow/hello-1/cancel", {"name": "hello-1"})
    assert cairn.cancel("hello-1", message="why", force=True) == "hello-1"
    assert server.last.query == {"force": ["true"], "message": ["why"]}
    assert server.last.headers["content-type"] == "application/json"
    server.text("GET /api/workflow/hello-1/spec", b"workflow:\n")
    assert cairn.spec("hello-1", template=True) == "workflow:\n"
    assert server.last.query == {"use_template": ["true"]}
    server.json("POST /api/workflow/hello-1/tag", {})
    cairn.tag("hello-1", add=["a", "b"])
    assert server.last.query == {"add": ["a", "b"]}
    server.json("GET /api/tag", {"tags": ["a"]})
    assert cairn.tags() == ("a",)
    server.json("GET /api/ready", {"status": "NOT READY"}, 503)
    assert not cairn.health()
    server.json("GET /api/ready", {"status": "OK"})
    assert cairn.health()
    assert str(cairn.version()) == "6.4.0"


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_never_leads_to_another_path(cairn: Client, name: str) -> None:
    with pytest.raises(ApiError):
        cairn.get(name)


def test_refusals_in_all_their_forms(server: FakeCairn, cairn: Client) -> None:
    what = "GET /api/workflow/hello-1"
    server.refuse(what, "Workflow hello-1 is not found.", workflow_id="hello-1")
    with pytest.raises(ApiError, match="is not found") as caught:
        cairn.get("hello-1")
    assert (caught.value.status, caught.value.error_code) == (400, "USER")
    assert caught.value.workflow_id == "hello-1"
    server.json(what, {"detail": [{"loc": ["query", "limit"], "msg": "too much"}]}, 422)
    with pytest.raises(ApiError, match=r"query\.limit: too much"):
        cairn.get("hello-1")
    server.on(what, lambda _: httpx.Response(502, text="<html>Bad  gateway"))
    with pytest.raises(ApiError, match="HTTP 502: <html>Bad gateway"):
        cairn.get("hello-1")


def test_something_that_is_not_cairn(server: FakeCairn, cairn: Client) -> None:
    server.text("GET /api/version", b"<html>hello")
    with pytest.raises(VersionMismatch, match="<html>hello"):
        cairn.version()
    server.json("GET /api/version", {"something": "else"})
    with pytest.raises(VersionMismatch, match="major"):
        cairn.version()
    server.on("GET /api/version", lambda _: httpx.Response(302, headers={"location": "/"}))
    with pytest.raises(VersionMismatch, match="302"):
        cairn.version()


def test_nobody_there() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    transport = httpx.MockTransport(nobody)
    with Client(URL, transport=transport) as cairn, pytest.raises(ConnectionFailed) as caught:
        cairn.version()
    assert "cairn up" in caught.value.hint
    assert URL in str(caught.value)
    with Client(URL, transport=transport) as cairn, pytest.raises(ConnectionFailed):
        list(cairn.logs("x"))


def test_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="cairn up"):
        Client()
    run = tmp_path / "home" / "run"
    run.mkdir(parents=True)
    (run / "state.json").write_text('{"url": "http://127.0.0.1:5/", "phase": "starting"}')
    with Client() as cairn:
        assert cairn.url == "http://127.0.0.1:5"
    monkeypatch.setenv("CAIRN_URL", "https://cairn.test/base/")
    with Client() as cairn:
        assert cairn.url == "https://cairn.test/base"
    with Client("http://other:1") as cairn:
        assert cairn.url == "http://other:1"
    with pytest.raises(ConnectionFailed, match="no address"):
        Client("localhost:8000")
    monkeypatch.delenv("CAIRN_URL")
    for broken in ("", "[]", "{}", '{"url": '):
        (run / "state.json").write_text(broken)
        with pytest.raises(ConnectionFailed):
            Client()
