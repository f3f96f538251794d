"""Workflows of every kind, from the file to the result."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.conftest import CAIRN, System, tasks_file

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_our_own_examples_end_as_they_say(system: System, file: Path) -> None:
    name = system.submit_file(file)
    expected = "FAILED" if file.stem == "failing" else "COMPLETED"
    assert system.finish(name) == expected, system.story(name)


def test_a_failing_task_blocks_exactly_its_downstream(system: System) -> None:
    name = system.submit(
        tasks_file(
            "partial",
            ["a::exit 3", "b: a: true", "c: b: true", "d::echo fine", "e: d: echo also fine"],
        )
    )
    assert system.finish(name) == "FAILED"
    tasks = system.tasks(name)
    assert {n: t["status"] for n, t in tasks.items()} == {
        "a": "FAILED",
        "b": "FAILED_UPSTREAM",
        "c": "FAILED_UPSTREAM",
        "d": "COMPLETED",
        "e": "COMPLETED",
    }
    assert tasks["a"]["exit_code"] == 3
    assert tasks["b"]["exit_code"] == 3000


def test_following_a_failure_exits_with_its_result(system: System) -> None:
    file = system.home / "fail.yaml"
    file.write_text(tasks_file("fails", ["a::echo last words; exit 9"]))
    output = system.cairn("workflow", "submit", str(file), "--follow", code=1)
    assert "FAILED" in output
    assert "last words" in output


def test_cancel_kills_the_whole_process_tree(system: System) -> None:
    mark = f"sleep 31{time.time_ns() % 10**6}"
    name = system.submit(
        tasks_file("endless", [f"a::echo up; setsid {mark} & {mark}", "b: a: true"])
    )
    system.wait(name, lambda status: status == "RUNNING")
    log = subprocess.Popen(
        [CAIRN, "workflow", "logs", name],
        env=system.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert log.stdout is not None
    assert "up" in log.stdout.readline()
    system.cairn("workflow", "cancel", name, "--message", "enough")
    assert system.finish(name) == "FAILED_CANCELED"
    log.communicate(timeout=30)  # the live log ends with the workflow
    assert {t["status"] for t in system.tasks(name).values()} == {"FAILED_CANCELED"}
    left = subprocess.run(["pgrep", "-f", mark], capture_output=True, check=False)
    assert left.returncode == 1, left.stdout


def test_two_tasks_that_inject_the_same_path_do_not_meet(system: System) -> None:
    task = """
  - name: {0}
    image: ubuntu:24.04
    command: [sh, /tmp/run.sh]
    files:
    - path: /tmp/run.sh
      contents: "echo {0} > /tmp/mine; sleep 0.5; echo $(cat /tmp/mine) $(cat /etc/{0}.conf)"
    - path: /etc/{0}.conf
      contents: "configured {0}"
"""
    body = "workflow:\n  name: meet\n  tasks:" + task.format("one") + task.format("two")
    name = system.submit(body)
    log = system.logs(name)
    assert "[one] one configured one" in log
    assert "[two] two configured two" in log
    assert not Path("/etc/one.conf").exists()


def test_exit_codes_and_signals_are_reported_as_a_shell_does(system: System) -> None:
    name = system.submit(
        tasks_file(
            "ends",
            ["killed::kill -9 $$", "missing::no-such-program-here", "twelve::exit 12"],
        ).replace("$$", "$$$$")  # as in Kubernetes, $$ is a dollar sign
    )
    assert system.finish(name) == "FAILED"
    codes = {n: t["exit_code"] for n, t in system.tasks(name).items()}
    assert codes == {"killed": 137, "missing": 127, "twelve": 12}


def test_timeouts_end_a_group(system: System) -> None:
    text = tasks_file("slow", ["a::sleep 300"])
    name = system.submit(text.replace("  tasks:", "  timeout: {exec_timeout: 1s}\n  tasks:", 1))
    assert system.finish(name) == "FAILED_EXEC_TIMEOUT"


def test_a_rescheduled_task_gets_a_new_attempt(system: System) -> None:
    text = tasks_file("again", ['a::test "$CAIRN_ATTEMPT" = 1 || exit 11'])
    name = system.submit(text + "\n    exitActions: {RESCHEDULE: '11'}\n")
    assert system.finish(name) == "COMPLETED"
    assert system.tasks(name)["a"]["retry_id"] == 1


def test_five_hundred_ready_tasks_do_not_start_at_once(system: System) -> None:
    tasks = [f"t{i}::true" for i in range(500)]
    name = system.submit(tasks_file("crowd", tasks))
    most = 0
    while True:
        workflow = system.json("workflow", "query", name)
        statuses = [t["status"] for g in workflow["groups"] for t in g["tasks"]]
        most = max(most, statuses.count("RUNNING") + statuses.count("INITIALIZING"))
        if workflow["status"] not in {"PENDING", "RUNNING", "WAITING"}:
            break
    assert workflow["status"] == "COMPLETED"
    assert set(statuses) == {"COMPLETED"}
    assert most < 64


def test_a_hundred_submissions_of_one_name_get_a_hundred_ids(system: System) -> None:
    url = system.json("status")["url"]
    body = json.dumps({"file": tasks_file("same", ["a::true"])}).encode()

    def post(_: int) -> str:
        request = urllib.request.Request(
            f"{url}/api/pool/default/workflow",
            data=body,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(json.load(answer)["name"])

    with ThreadPoolExecutor(50) as pool:
        names = list(pool.map(post, range(100)))
    assert len(set(names)) == 100
    deadline = time.monotonic() + 90
    while True:
        listed = system.json("workflow", "list", "--name", "same", "--limit", "200")["workflows"]
        assert {workflow["name"] for workflow in listed} == set(names)
        if {workflow["status"] for workflow in listed} == {"COMPLETED"}:
            return
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Content-Type": "text/plain"}],
    ids=lambda headers: next(iter(headers)),
)
def test_no_web_page_of_another_origin_can_submit(system: System, headers: dict[str, str]) -> None:
    url = system.json("status")["url"]
    request = urllib.request.Request(
        f"{url}/api/pool/default/workflow",
        data=json.dumps({"file": tasks_file("evil", ["a::true"])}).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    refused.value.close()
    assert 400 <= refused.value.code < 500


def test_events_tell_the_life_of_a_workflow(system: System) -> None:
    name = system.submit(tasks_file("life", ["a::true"]))
    system.finish(name)
    events = system.cairn("workflow", "events", name)
    for word in ("PROCESSING", "SCHEDULING", "RUNNING", "COMPLETED"):
        assert word in events
    assert name in system.cairn("workflow", "list", "--name", "life")
    assert "command:" in system.cairn("workflow", "spec", name)


def test_restart_action_runs_the_command_again_in_its_place(system: System) -> None:
    script = (
        'n=$(cat "{{output}}/n" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "{{output}}/n";'
        ' echo "run $n"; [ $n -ge 2 ] || exit 11'
    )
    text = tasks_file("again", [f"a::{script}"]) + "\n    exitActions: {RESTART: 11}\n"
    name = system.submit(text)
    assert system.finish(name) == "COMPLETED", system.story(name)
    assert system.tasks(name)["a"]["retry_id"] == 0
    log = system.logs(name)
    assert "run 1" in log
    assert "run 2" in log


def test_a_failed_workflow_is_restarted_from_what_failed(system: System) -> None:
    # What is broken is a service that does not listen yet: tasks share the machine's network.
    service = socket.socket()
    service.bind(("127.0.0.1", 0))
    connect = f": < /dev/tcp/127.0.0.1/{service.getsockname()[1]}"
    name = system.submit(
        tasks_file(
            "mendable",
            [
                'first::date +%N > "{{output}}/made"; cat "{{output}}/made"',
                f'second: first: cat "{{{{input:0}}}}/made"; bash -c "{connect}"',
                "third: second: echo done",
            ],
        )
    )
    assert system.finish(name) == "FAILED"
    made = next(line for line in system.logs(name).splitlines() if "[first]" in line)
    service.listen()
    again = json.loads(system.cairn("workflow", "restart", name, "--format-type", "json"))["name"]
    assert again != name
    assert system.finish(again) == "COMPLETED", system.story(again)
    service.close()
    log = system.logs(again)
    assert "[first]" not in log, "what had completed ran again"
    assert f"[second] {made.rsplit(' ', 1)[1]}" in log, "its outputs were not taken over"
    answer = json.loads(system.cairn("workflow", "query", again, "--format-type", "json"))
    assert (answer["parent_name"], answer["parent_job_id"]) == ("mendable", 1)
    refused = system.run("workflow", "restart", again)
    assert refused.returncode != 0
    assert "completed: nothing of it has failed" in refused.stderr


def saving(name: str, script: str, url: Path, path: str = "/workspace") -> str:
    """A workflow of one task with a checkpoint every second."""
    return (
        tasks_file(name, [f"train::{script}"])
        + f"\n    checkpoint: [{{path: '{path}', url: 'file://{url}', frequency: 1s}}]"
    )


STEPS = "for i in $(seq 1000); do echo $i > /workspace/$i; sleep 0.2; done"


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_storage_has_checkpoints_while_the_task_runs_and_the_last_when_canceled(
    system: System,
) -> None:
    url = system.home / "saved"
    name = system.submit(saving("saves", f"trap 'echo now > /workspace/end' EXIT; {STEPS}", url))
    until((url / "3").exists)
    until((url / "12").exists)  # of a later copy
    assert system.status(name) == "RUNNING"
    system.cairn("workflow", "cancel", name)
    assert system.finish(name) == "FAILED_CANCELED"
    steps = sorted(int(path.name) for path in url.iterdir() if path.name != "end")
    assert steps == list(range(1, len(steps) + 1))
    log = system.logs(name)
    assert f"checkpointing /workspace to file://{url}" in log
    assert "checkpoint of /workspace finished: " in log
    # What goes on from it is another workflow.
    after = tasks_file("goes-on", ["train::ls {{input:0}} | wc -l"]).replace(
        "inputs: []", f"inputs: [{{url: 'file://{url}'}}]"
    )
    assert f"[train] {len(list(url.iterdir()))}" in system.logs(system.submit(after))


def test_a_failed_task_leaves_its_last_checkpoint(system: System) -> None:
    url = system.home / "failed"
    name = system.submit(saving("breaks", "echo 1 > /workspace/state; exit 4", url))
    assert system.finish(name) == "FAILED"
    assert system.tasks(name)["train"]["exit_code"] == 4
    assert (url / "state").read_text() == "1\n"


def test_a_task_that_is_tried_again_goes_on_writing_to_the_same_place(system: System) -> None:
    url = system.home / "again"
    script = "echo $CAIRN_ATTEMPT > /workspace/attempt-$CAIRN_ATTEMPT; test $CAIRN_ATTEMPT = 1"
    text = saving("again", script, url) + "\n    exitActions: {RESCHEDULE: 1}"
    name = system.submit(text)
    assert system.finish(name) == "COMPLETED", system.story(name)
    assert sorted(path.name for path in url.iterdir()) == ["attempt-0", "attempt-1"]


def test_a_last_checkpoint_that_cannot_be_made_fails_the_task(system: System) -> None:
    (system.home / "file").touch()
    text = saving("lost", "echo 1 > /workspace/state", system.home / "file" / "x")
    name = system.submit(text)
    assert system.finish(name) == "FAILED"
    assert system.tasks(name)["train"]["exit_code"] == 2012
    assert "the last checkpoint of /workspace" in system.logs(name)


def test_a_folder_that_cannot_be_checkpointed_is_refused_with_its_place(system: System) -> None:
    file = system.home / "refused.yaml"
    file.write_text(saving("refused", "true", system.home / "x", path="/usr"))
    said = system.cairn("workflow", "submit", str(file), code=1)
    assert "Checkpoint path: /usr belongs to the system" in said
    assert "{{output}}" in said
