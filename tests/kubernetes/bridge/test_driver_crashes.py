"""Drivers that are killed at any moment, watches that lose their place, litter of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from driver_harness import FAST, PATIENCE, World, keys_of, next_attempt

from cairn_bridge.cluster import Phase
from cairn_bridge.drivers.kubernetes import KubernetesDriver, Patience
from cairn_bridge.drivers.kubernetes.api import Api, Document, Kind
from cairn_bridge.drivers.kubernetes.watch import Follower
from cairn_common.events import FinishReason, InjectedFile


class Killed(BaseException):
    """The process ends here."""


def kill_at(api: Api, number: int) -> None:
    """The `number`-th writing request is not sent, nor any after it."""
    left = number
    write = api._write

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed
        return await write(*arguments, **options)

    api._write = counted  # type: ignore[method-assign]


async def test_placing_twice_is_placing_once(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(3, sim={"run": "forever"})
        keys = keys_of(group)
        await asyncio.gather(driver.place(group, None), driver.place(group, None))
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys, Phase.STARTED))
        assert len(await world.all(world.pods)) == 3
        assert len(await world.all(world.pod_groups)) == 1


async def test_a_driver_that_is_killed_at_any_moment_of_a_placement(world: World) -> None:
    """PodGroup, Service, two Secrets, two pods, the mark: killed before each of them."""
    files = [InjectedFile(path="/a", contents="{{host:t1}}")]
    killed = 0
    for moment in range(1, 10):
        group = world.group(2, sim={"run": "forever"}, files=files)
        keys = keys_of(group)
        async with world.driver() as (driver, told):
            kill_at(driver._api, moment)
            try:
                await driver.place(group, None)
            except Killed:
                killed += 1
                assert not told.facts, "nothing was accepted"
        async with world.driver() as (driver, told):
            await driver.report_all()
            if killed == moment:
                assert not told.facts, "half of a gang is not reported"
            await driver.place(group, None)
            await told.until(lambda t=told, k=keys: t.reached(k, Phase.STARTED))
            mine = [
                pod
                for pod in await world.all(world.pods)
                if pod["metadata"]["annotations"]["cairn/workflow"] == group.workflow
            ]
            assert len(mine) == 2, f"killed before request {moment}"
            await driver.stop(keys, "done", 1)
            await told.until_ended(*keys)
            await driver.settle(keys)
    assert killed == 7
    await world.until_gone(world.pods, world.pod_groups, world.secrets, world.services)


async def test_a_driver_that_is_killed_at_any_moment_of_a_retry(world: World) -> None:
    """Two pods, the mark: killed before each of them."""
    for moment in range(1, 4):
        group = world.group(2, sim={"run": "forever"})
        keys = keys_of(group)
        async with world.driver() as (driver, told):
            await driver.place(group, None)
            await told.until(lambda t=told, k=keys: t.reached(k, Phase.STARTED))
            await driver.stop(keys, "again", 1)
            await told.until_ended(*keys)
            again = next_attempt(group, 0, 1)
            kill_at(driver._api, moment)
            with pytest.raises(Killed):
                await driver.place(again, None)
        async with world.driver() as (driver, told):
            await driver.place(again, None)
            fresh = keys_of(again)
            await told.until(lambda t=told, k=fresh: t.reached(k, Phase.STARTED))
            pods = {pod["metadata"]["name"] for pod in await world.all(world.pods)}
            assert len(pods) == 4
            await driver.stop(fresh, "done", 1)
            await told.until_ended(*fresh)
            await driver.settle([*keys, *fresh])
        await world.until_gone(world.pods, world.pod_groups)


async def test_a_driver_that_is_killed_while_it_stops_and_settles(world: World) -> None:
    for moment in (1, 2, 3, 4):
        group = world.group(sim={"run": "forever"})
        (key,) = keys_of(group)
        async with world.driver() as (driver, told):
            await driver.place(group, None)
            await told.until(lambda t=told, k=key: t.reached([k], Phase.STARTED))
            kill_at(driver._api, moment)
            try:
                await driver.stop([key], "why", 1)
                await told.until_ended(key)
                await driver.settle([key])
            except Killed:
                pass
        async with world.driver() as (driver, told):
            if key in driver.known():
                await driver.stop([key], "why", 1)
                (outcome,) = await told.until_ended(key)
                assert (outcome.reason, outcome.message) == (FinishReason.STOPPED, "why")
                await driver.settle([key])
        if moment < 4:
            await world.until_gone(world.pods, world.pod_groups)


async def test_what_ended_while_nobody_looked_is_told_with_its_exit_code(world: World) -> None:
    group = world.group(sim={"run": "1s", "exit_code": 9})
    (key,) = keys_of(group)
    async with world.driver() as (driver, told):
        await driver.place(group, None)
        await told.until(lambda: told.reached([key], Phase.STARTED))
    await asyncio.sleep(2)
    async with world.driver() as (_, told):
        (outcome,) = await told.until_ended(key)
        assert (outcome.reason, outcome.exit_code) == (FinishReason.EXITED, 9)


async def test_a_watch_that_has_to_list_again_finds_what_is_gone(world: World) -> None:
    async with world.driver() as (driver, told):
        one, two = world.group(sim={"run": "forever"}), world.group(sim={"run": "0.5s"})
        await driver.place(one, None)
        await told.until(lambda: told.reached(keys_of(one), Phase.STARTED))
        async with unwatched(driver, driver.pod_follower, version=""):
            # Deleted for good while nobody watches: only a new list can tell.
            pod = world.pod_of(keys_of(one)[0], one)
            await world.api.patch(world.pods, pod, {"metadata": {"finalizers": None}})
            await world.api.delete(world.pods, pod, grace=0)
        await driver.place(two, None)
        (outcome,) = await told.until_ended(*keys_of(one))
        assert outcome.reason is FinishReason.BACKEND_ERROR
        (outcome,) = await told.until_ended(*keys_of(two))
        assert outcome.exit_code == 0


async def test_a_watch_whose_place_the_server_has_forgotten_lists_again(world: World) -> None:
    """410 Gone: the server's memory of PodGroups begins after the definition of PodGroups."""
    async with world.driver() as (driver, told):
        group = world.group(2, sim={"run": "forever"})
        keys = keys_of(group)
        await driver.place(group, None)
        await told.until(lambda: told.reached(keys, Phase.STARTED))
        lists = driver.group_follower.lists
        async with unwatched(driver, driver.group_follower, version="1"):
            await world.api.delete(world.pod_groups, f"cairn-{group.group_uuid}")
        for outcome in await told.until_ended(*keys):
            assert "PodGroup was deleted" in (outcome.message or "")
        assert driver.group_follower.lists == lists + 1


async def test_what_is_made_while_a_list_is_read_is_not_taken_for_gone(world: World) -> None:
    async with world.driver() as (driver, told):
        known = world.group(2, sim={"run": "forever"})
        await driver.place(known, None)
        await told.until(lambda: told.reached(keys_of(known), Phase.STARTED))
        followers = (driver.group_follower, driver.pod_follower)
        lists = [follower.lists for follower in followers]
        listed, may_end = asyncio.Event(), asyncio.Event()
        async with unwatched(driver, followers[0], ""), unwatched(driver, followers[1], ""):
            for follower in followers:
                follower._api = cast("Api", SlowLists(follower._api, listed, may_end))
        async with asyncio.timeout(PATIENCE):
            await listed.wait()
        made = world.group(3, sim={"run": "forever"})
        await driver.place(made, None)
        may_end.set()
        everybody = [*keys_of(known), *keys_of(made)]
        await told.until(lambda: told.reached(everybody, Phase.STARTED))
        assert [follower.lists for follower in followers] == [count + 1 for count in lists]
        assert not [fact for fact in told.facts if fact.phase is Phase.FINISHED]
        await driver.stop(everybody, "done", 1)
        await told.until_ended(*everybody)


class SlowLists:
    """An API whose lists are old when they arrive."""

    def __init__(self, api: Api, listed: asyncio.Event, may_end: asyncio.Event) -> None:
        self._api = api
        self._listed = listed
        self._may_end = may_end

    async def page(self, kind: Kind, **query: str) -> Document:
        page = await self._api.page(kind, **query)
        if kind.plural == "pods":
            self._listed.set()
        await self._may_end.wait()
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)


@asynccontextmanager
async def unwatched(
    driver: KubernetesDriver, follower: Follower, version: str
) -> AsyncIterator[None]:
    """Nobody follows meanwhile; afterwards it is taken up from this version on."""
    place = [driver.group_follower, driver._nodes.follower, driver.pod_follower].index(follower)
    driver._followers[place].cancel()
    await asyncio.gather(driver._followers[place], return_exceptions=True)
    yield
    follower.forget_place(version)
    driver._followers[place] = asyncio.create_task(follower.run())


async def test_a_half_made_group_is_removed_after_a_while_and_nothing_of_others(
    world: World,
) -> None:
    others = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "theirs", "namespace": world.site.namespace},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await world.api.create(others)
    half, empty = world.group(2), world.group(2)
    for group, moment in ((half, 3), (empty, 2)):
        async with world.driver() as (driver, _):
            kill_at(driver._api, moment)
            with pytest.raises(Killed):
                await driver.place(group, None)
    assert len(await world.all(world.pods)) < 2  # the first request may have been cut off, too
    assert len(await world.all(world.pod_groups)) == 2
    soon = Patience(FAST.image, FAST.start, FAST.node, orphan=1.0)
    async with world.driver(patience=soon) as (driver, told):
        whole = world.group(2, sim={"run": "forever"})
        await driver.place(whole, None)
        async with asyncio.timeout(PATIENCE):
            while len(await world.all(world.pod_groups)) > 1:
                await asyncio.sleep(0.2)
        assert len(await world.all(world.pods)) == 2
        assert driver.known() == set(keys_of(whole))
        assert await world.api.get(world.pods, "theirs") is not None
        # Who comes late all the same is placed anew.
        await driver.place(half, None)
        await told.until(lambda: told.reached(keys_of(half), Phase.FINISHED))


async def test_an_attempt_that_was_settled_does_not_run_again(world: World) -> None:
    async with world.driver() as (driver, told):
        group = world.group(sim={"run": "0.1s"})
        (key,) = keys_of(group)
        await driver.place(group, None)
        await told.until_ended(key)
        await driver.settle([key])
        told.facts.clear()
        await driver.place(group, None)
        assert (await told.until_ended(key))[0].reason is FinishReason.NODE_LOST
        assert await world.all(world.pods) == []
