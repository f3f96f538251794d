"""Facts: none lost, none made up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bridge_harness import Engine, RecordingDriver, bridge
from nats.aio.msg import Msg

from cairn_bridge.cluster import AttemptKey, Fact, Outcome, Phase
from cairn_bridge.reconcile import reconcile
from cairn_bridge.reporter import BusReporter
from cairn_common.events import ClusterResources, FinishReason, TaskAccepted, TaskFinished, decode
from cairn_common.messaging import Publisher
from cairn_common.requests import ATTEMPTS_SUBJECT
from servers import Servers


def key(workflow: str, index: int = 0) -> AttemptKey:
    return AttemptKey(workflow, index, 0, f"t{index}")


def ended(key: AttemptKey, message: str = "", lines: int = 0) -> Fact:
    outcome = Outcome(FinishReason.EXITED, 0, message, log_lines=lines)
    return Fact(Phase.FINISHED, (key,), datetime.now(UTC), None, outcome)


async def test_one_fact_that_is_refused_costs_no_other(engine: Engine) -> None:
    publisher = Publisher(engine.bus)
    await publisher.start()
    reporter = BusReporter(publisher, engine.cluster, 60.0)
    flows = [engine.workflow() for _ in range(3)]
    facts = [
        ended(key(flows[0])),
        ended(key(flows[1]), "too much for a message " * 500_000),
        ended(key(flows[2])),
    ]
    run = asyncio.create_task(reporter.run())
    async with asyncio.timeout(30):
        await asyncio.gather(*(reporter.fact(fact) for fact in facts))
    for workflow in (flows[0], flows[2]):
        assert (await engine.outcome(workflow)).exit_code == 0
    await reporter.repeat([fact.keys[0] for fact in facts])
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await publisher.close()


async def test_thousands_of_ends_make_messages_that_fit(engine: Engine) -> None:
    publisher = Publisher(engine.bus)
    await publisher.start()
    reporter = BusReporter(publisher, engine.cluster, 60.0)
    workflow = engine.workflow()
    run = asyncio.create_task(reporter.run())
    facts = [ended(key(workflow, index), "m" * 1000) for index in range(10_000)]  # 12 MB
    await asyncio.gather(*(reporter.fact(fact) for fact in facts))
    await engine.until(
        lambda: sum(len(e.outcomes) for e in engine.of(TaskFinished, workflow)) == 10_000
    )
    assert len(engine.of(TaskFinished, workflow)) < 100
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    await publisher.close()


async def test_comparing_ends_when_it_is_cancelled_as_the_engine_answers(
    engine: Engine, driver: RecordingDriver
) -> None:
    """On Python 3.11 the request would swallow it, and a bridge that is stopped would hang."""

    async def say_nothing(_: Msg) -> None:
        pass

    await engine.bus.client.subscribe(ATTEMPTS_SUBJECT, cb=say_nothing)
    publisher = Publisher(engine.bus)
    task = asyncio.create_task(
        reconcile(engine.bus, driver, BusReporter(publisher, engine.cluster, 60.0))
    )
    while not (waiting := list(engine.bus.client._resp_map.values())):
        await asyncio.sleep(0)
    waiting[0].set_result(Msg(engine.bus.client, data=b'{"attempts": []}'))
    task.cancel()
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()
    assert driver.count("report_all") == 0


async def test_what_the_engine_believes_and_nobody_has_is_lost(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    here, gone = engine.workflow(), engine.workflow()
    driver.attempts = {key(here)}
    engine.believes = [key(here), *(key(gone, index) for index in range(4))]
    async with bridge(servers, driver):
        # The engine is away when the bridge starts; placing goes on.
        placed = engine.workflow()
        await engine.say(engine.ready(placed))
        await engine.until(lambda: bool(engine.of(TaskAccepted, placed)))
        assert driver.count("report_all") == 0
        await engine.answer()
        for index in range(4):
            assert (await engine.outcome(gone, index)).reason is FinishReason.NODE_LOST
    assert engine.of(TaskFinished, here) == []


async def test_what_is_accepted_while_the_engine_answers_is_not_lost(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    fresh, gone = engine.workflow(), engine.workflow()

    def accept() -> None:
        driver.attempts.add(key(fresh))

    engine.before_answer = accept
    engine.believes = [key(fresh), key(gone)]
    await engine.answer()
    async with bridge(servers, driver):
        assert (await engine.outcome(gone)).reason is FinishReason.NODE_LOST
    assert engine.of(TaskFinished, fresh) == []


async def test_an_end_is_said_until_it_is_settled(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    workflow, other = engine.workflow(), engine.workflow()
    driver.attempts = {key(workflow), key(other)}
    async with bridge(servers, driver, unsettled_seconds=0.2):
        await driver.reporter.fact(ended(key(workflow), lines=7))
        await engine.until(lambda: len(engine.of(TaskFinished, workflow)) >= 3)
        assert (key(workflow), 7) in driver.resent  # its last line, not all of them
        await engine.say(engine.settled(workflow))
        await driver.reporter.fact(ended(key(other)))
        await engine.until(lambda: len(engine.of(TaskFinished, other)) >= 3)
        driver.resent.clear()
        await engine.until(lambda: len(engine.of(TaskFinished, other)) >= 5)
        assert {resent for resent, _ in driver.resent} == {key(other)}


async def test_an_end_that_could_not_be_settled_is_said_again(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    workflow = engine.workflow()
    driver.attempts = {key(workflow)}
    settle, stumbled = driver.settle, asyncio.Event()

    async def stumble(keys: Iterable[AttemptKey]) -> None:
        driver.settle = settle  # type: ignore[method-assign]
        stumbled.set()
        raise RuntimeError("the driver stumbled")

    driver.settle = stumble  # type: ignore[method-assign]
    async with bridge(servers, driver, unsettled_seconds=0.2):
        await driver.reporter.fact(ended(key(workflow)))
        await engine.say(engine.settled(workflow))
        async with asyncio.timeout(30):
            await stumbled.wait()
        said = len(engine.of(TaskFinished, workflow))
        await engine.until(lambda: len(engine.of(TaskFinished, workflow)) > said + 1)
        await engine.say(engine.settled(workflow))
        async with asyncio.timeout(30):
            while driver.attempts:
                await asyncio.sleep(0.02)


async def test_a_reconciliation_that_fails_is_tried_again(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    failed = asyncio.Event()

    async def report_all() -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("the driver stumbled")

    driver.report_all = report_all  # type: ignore[method-assign]
    await engine.answer()
    async with bridge(servers, driver):
        async with asyncio.timeout(30):
            await failed.wait()
        workflow = engine.workflow()
        await engine.say(engine.ready(workflow))
        await engine.until(lambda: bool(engine.of(TaskAccepted, workflow)))


async def test_a_bridge_announces_its_pools_without_their_templates(
    servers: Servers, engine: Engine, tmp_path: Path
) -> None:
    pools = tmp_path / "pools.yaml"
    pools.write_text(
        "template: {spec: {secret: cluster}}\n"
        "pools: {robots: {template: {spec: {secret: pool}}, default_platform: p, platforms: "
        "{p: {default_cpu: 4, privileged_allowed: true, template: {spec: {secret: own}}}}}}\n"
    )
    heard = asyncio.Queue[Msg]()
    await engine.bus.client.subscribe(f"cluster.resources.{engine.cluster}", cb=heard.put)
    await engine.answer()
    await engine.bus.client.flush()
    driver = RecordingDriver(engine.cluster)
    async with asyncio.timeout(30), bridge(servers, driver, pools_file=pools):
        message = await heard.get()
        while not driver.count("report_all"):  # it is not torn from its first comparison
            await asyncio.sleep(0.01)
    event = decode(message.subject, message.headers, message.data)
    assert isinstance(event, ClusterResources)
    assert event.features == ["gpu"]
    assert event.pools == ["robots"]
    assert event.definitions["robots"].platforms["p"].default_cpu == 4
    assert b"secret" not in message.data
