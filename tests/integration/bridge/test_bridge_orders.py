"""Orders that come by the thousand, or that the cluster stumbles over."""

from __future__ import annotations

from bridge_harness import Engine, RecordingDriver, bridge

from cairn_bridge.cluster import AttemptKey
from cairn_common.events import Envelope, FinishReason, TaskAccepted, TaskFinished, TaskHeld
from cairn_common.events.subjects import PLACEMENTS
from cairn_common.messaging import Publisher
from servers import Servers

MANY = 5000


async def test_a_placement_behind_thousands_of_stops(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    stopped, placed = engine.workflow(), engine.workflow()
    await engine.say(*(engine.stop(stopped, index) for index in range(MANY)), engine.ready(placed))
    async with bridge(servers, driver):
        await engine.until(lambda: bool(engine.of(TaskAccepted, placed)))
        events = engine.of(TaskFinished, stopped)
        await engine.until(
            lambda: sum(len(event.outcomes) for event in engine.of(TaskFinished, stopped)) >= MANY
        )
    assert driver.keys("stop") == MANY
    assert driver.count("stop") < MANY / 20
    assert len(events) < MANY / 20


async def test_settling_holds_up_nothing(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    settled, placed = engine.workflow(), engine.workflow()
    driver.may_settle.clear()
    async with bridge(servers, driver):
        await engine.say(*(engine.settled(settled, index) for index in range(MANY)))
        await engine.say(engine.ready(placed), engine.settled(placed))
        await engine.until(lambda: bool(engine.of(TaskAccepted, placed)))
        assert AttemptKey(placed, 0, 0, "t0") in driver.known()
        driver.may_settle.set()
        last = engine.workflow()
        await engine.say(engine.ready(last), engine.stop(last))
        await engine.outcome(last)
    assert driver.count("settle") < MANY / 20


async def test_a_stop_comes_after_its_placement(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    workflow = engine.workflow()
    await engine.say(engine.ready(workflow, 3), engine.stop(workflow, 1))
    async with bridge(servers, driver):
        outcome = await engine.outcome(workflow, 1)
    assert outcome.reason is FinishReason.STOPPED
    assert [name for name, _ in driver.calls if name != "report_all"] == ["place", "stop"]


async def test_a_placement_that_takes_long_holds_up_neither_stops_nor_others(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    slow, running, last = engine.workflow(), engine.workflow(), engine.workflow()
    driver.slow_for.add(slow)
    async with bridge(servers, driver):
        await engine.say(engine.ready(running), engine.ready(slow))
        await engine.until(lambda: bool(engine.of(TaskAccepted, running)))
        await engine.say(engine.stop(running), engine.ready(last))
        assert (await engine.outcome(running)).reason is FinishReason.STOPPED
        await engine.until(lambda: bool(engine.of(TaskAccepted, last)))
        assert not engine.of(TaskAccepted, slow)
        driver.may_place.set()
        await engine.until(lambda: bool(engine.of(TaskAccepted, slow)))
        await engine.nothing_left()


async def test_who_is_stopped_before_its_placement_begins_is_left_out_of_it(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    slow, waiting = engine.workflow(), engine.workflow()
    driver.slow_for.add(slow)
    async with bridge(servers, driver):
        await engine.say(engine.ready(slow, 2500), engine.ready(waiting, 3), engine.ready(slow))
        await engine.say(engine.stop(waiting, 1))
        assert (await engine.outcome(waiting, 1)).reason is FinishReason.STOPPED
        assert not engine.of(TaskAccepted, waiting)
        driver.may_place.set()
        await engine.until(lambda: bool(engine.of(TaskAccepted, waiting)))
        placed = engine.of(TaskAccepted, waiting)
        assert [each.index for event in placed for each in event.attempts] == [0, 2]
        await engine.nothing_left()


async def test_an_order_in_hand_comes_again_only_to_the_next_bridge(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    slow, quick = engine.workflow(), engine.workflow()
    driver.slow_for.add(slow)
    async with bridge(servers, driver):
        await engine.say(engine.ready(slow), engine.ready(quick))
        await engine.until(lambda: bool(engine.of(TaskAccepted, quick)))
    driver.may_place.set()
    async with bridge(servers, driver):
        await engine.until(lambda: bool(engine.of(TaskAccepted, slow)))
        await engine.nothing_left()


async def test_a_driver_that_stumbles_over_one_order_carries_out_the_others(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    bad, good = engine.workflow(), engine.workflow()
    driver.broken_for.add(bad)
    await engine.say(engine.ready(bad, 2), engine.ready(good))
    async with bridge(servers, driver):
        for index in range(2):
            outcome = await engine.outcome(bad, index)
            assert outcome.reason is FinishReason.BACKEND_ERROR
            assert "RuntimeError: the driver stumbled" in outcome.message
        await engine.say(engine.stop(bad), engine.stop(good))
        assert (await engine.outcome(good)).reason is FinishReason.STOPPED
        assert engine.of(TaskAccepted, good)


async def test_an_order_that_nobody_understands_is_put_aside(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    workflow = engine.workflow()
    publisher = Publisher(engine.bus)
    await publisher.start()
    subject = f"task.ready.{engine.cluster}.{workflow}"
    await publisher.publish([Envelope(subject, {"ce-type": "task.ready"}, b"{")])
    await engine.say(engine.ready(workflow))
    async with bridge(servers, driver):
        await engine.until(lambda: bool(engine.of(TaskAccepted, workflow)))
    dead = await engine.bus.jetstream.get_last_msg("CAIRN_DEAD_LETTERS", f"dead.bridge.{subject}")
    assert dead.data == b"{"
    await publisher.close()


async def test_what_a_cluster_has_no_room_for_is_held_with_the_reason_and_tried_again(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    workflow = engine.workflow()
    driver.no_room_for.add(workflow)
    async with bridge(servers, driver):
        await engine.say(engine.ready(workflow, 600))
        await engine.until(
            lambda: sum(len(e.attempts) for e in engine.of(TaskHeld, workflow)) == 600
        )
        assert {e.message for e in engine.of(TaskHeld, workflow)} == {"waiting: exceeded quota: q"}
        driver.no_room_for.clear()
        await engine.say(engine.ready(workflow, 600))
        await engine.until(lambda: bool(engine.of(TaskAccepted, workflow)))


async def test_orders_go_on_after_their_stream_was_deleted(
    servers: Servers, engine: Engine, driver: RecordingDriver
) -> None:
    await engine.answer()
    workflow = engine.workflow()
    async with bridge(servers, driver):
        await engine.say(engine.ready(workflow))
        await engine.until(lambda: bool(engine.of(TaskAccepted, workflow)))
        await engine.bus.jetstream.delete_stream(PLACEMENTS.name)
        again = engine.workflow()
        await engine.say(engine.ready(again))  # sent until there is a stream
        await engine.until(lambda: bool(engine.of(TaskAccepted, again)))
