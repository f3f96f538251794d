"""The exit action RESTART: the command runs again in its place, and finds what it left."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from local_cluster import Cluster, group, keys_of, shell

from cairn_bridge.cluster import Phase
from cairn_common.events import FinishReason, RestartPolicy

QUICK = RestartPolicy(exit_codes=[(11, 12)], limit=3, backoff_seconds=0.05)
COUNT = 'n=$(cat "{{output}}/n" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "{{output}}/n"; '


async def test_the_command_runs_again_and_goes_on_where_it_was(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = COUNT + 'echo "run $n"; [ $n -ge 3 ] || exit 11'
    key, outcome = await cluster.one(script, restart=QUICK, location="out")
    assert (outcome.reason, outcome.exit_code, outcome.restarts) == (FinishReason.EXITED, 0, 2)
    assert cluster.recorder.texts(key, "stdout") == ["run 1", "run 2", "run 3"]
    notes = cluster.recorder.texts(key, "cairn")
    assert "the command ended with exit code 11; restart 1 begins in 0.05 s" in notes
    assert [what for who, what in cluster.recorder.story if who == key].count("started") == 1
    assert (cluster.store / "out" / "n").read_text() == "3\n"


async def test_restarts_are_counted_and_limited(cluster: Cluster) -> None:
    _, outcome = await cluster.one("exit 12", restart=QUICK)
    assert (outcome.exit_code, outcome.restarts) == (12, 3)


async def test_other_exit_codes_end_the_task(cluster: Cluster) -> None:
    _, outcome = await cluster.one("exit 13", restart=QUICK)
    assert (outcome.exit_code, outcome.restarts) == (13, 0)


async def test_a_stop_between_two_runs_ends_the_task_at_once(cluster: Cluster) -> None:
    slow = QUICK.model_copy(update={"backoff_seconds": 60.0})
    placement = group(shell("exit 11", restart=slow))
    await cluster.driver.place(placement, None)
    (key,) = keys_of(placement)
    async with asyncio.timeout(20):
        while not any("restart 1" in text for text in cluster.recorder.texts(key, "cairn")):
            await asyncio.sleep(0.02)
    before = time.monotonic()
    await cluster.driver.stop([key], "enough", 10.0)
    outcome = await cluster.recorder.outcome(key)
    assert outcome.reason is FinishReason.STOPPED
    assert time.monotonic() - before < 10
    assert cluster.recorder.reached(key, Phase.STARTED)
