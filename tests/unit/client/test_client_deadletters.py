"""`cairn dead-letters`: what it asks for and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from unit.client.fake_cairn import START, FakeCairn, Ran

Run = Callable[..., Ran]
PATH = "/api/dead-letters"


def letter(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "service": "engine",
        "subject": "task.finished.3.x-1",
        "reason": "Invalid\x1b[31m JSON",
        "time": START,
        "size": 9,
        **more,
    }


def test_list_shows_the_reasons_and_the_way_to_older_ones(server: FakeCairn, run: Run) -> None:
    server.json(f"GET {PATH}", {"dead_letters": [letter(7), letter(8)], "more_entries": True})
    ran = run("dead-letters", "list", "--count", "2", "--before", "9")
    assert ran.code == 0
    assert server.last.query == {"limit": ["2"], "before": ["9"]}
    head, first, second = ran.out.splitlines()
    assert head.split() == ["ID", "TIME", "SERVICE", "BYTES", "SUBJECT", "REASON"]
    assert first.split()[0] == "7"
    assert second.endswith("task.finished.3.x-1  Invalid [31m JSON"), "no escape gets through"
    assert ran.err == "There are more: --before 7\n"
    as_json = run("dead-letters", "list", "-t", "json")
    assert [each["id"] for each in json.loads(as_json.out)["dead_letters"]] == [7, 8]
    server.json(f"GET {PATH}", {"dead_letters": [], "more_entries": False})
    assert run("dead-letters", "list").err == "There are no dead letters.\n"


def test_show_prints_headers_and_body(server: FakeCairn, run: Run) -> None:
    headers = {"ce-id": "1", "cairn-reason": "Invalid JSON"}
    body = letter(7, headers=headers, body="{not\njson", base64=False, complete=False)
    server.json(f"GET {PATH}/7", body)
    ran = run("dead-letters", "show", "7")
    assert ran.code == 0
    assert "ce-id: 1\n" in ran.out
    assert ran.out.endswith("\n\n{not\njson\n")
    assert ran.err == "Only the beginning of its 9 bytes was kept.\n"
    assert json.loads(run("dead-letters", "show", "7", "-t", "json").out)["body"] == "{not\njson"


def test_replay_and_drop_do_all_and_tell_of_the_one_that_was_refused(
    server: FakeCairn, run: Run
) -> None:
    server.json(f"POST {PATH}/7/replay", letter(7))
    server.refuse(f"POST {PATH}/8/replay", "There is no dead letter 8.")
    server.json(f"POST {PATH}/9/replay", letter(9))
    ran = run("dead-letters", "replay", "7", "8", "9")
    assert ran.code == 2
    assert ran.out == "Dead letter 7 is sent again.\nDead letter 9 is sent again.\n"
    assert ran.err == "Error: There is no dead letter 8.\n"
    server.json(f"DELETE {PATH}/7", letter(7))
    assert run("dead-letters", "drop", "7").out == "Dead letter 7 is dropped.\n"
