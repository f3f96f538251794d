"""Which cluster takes a gang, who has fallen silent, and what a move costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.events import Checkpoint, FinishReason, GroupPlacement, NodeInfo
from cairn_common.pools import Credential, Platform, Pool
from cairn_common.spec.features import Feature
from cairn_common.status import TaskStatus
from cairn_engine.core import (
    Accepted,
    Clusters,
    Due,
    Finished,
    Hearing,
    Lose,
    Policy,
    Relocate,
    Started,
    State,
    need_of,
)
from cairn_engine.core.gangs import Kind, Need, room_for
from cairn_engine.core.inputs import Place, Stop
from cairn_engine.core.plan import complete_body
from cairn_engine.settings import EngineSettings
from simulation.world import Chaos, World
from unit.engine.test_engine_core import CHAIN, DUO, Story, group, spec, task

GI = 1 << 30
POOL = "default"
W = "w-1"


def node(name: str = "n", *, cpu: int = 8, gpu: int = 0, used: int = 0, **more: Any) -> NodeInfo:
    return NodeInfo(
        name=name, cpu=cpu, gpu=gpu, memory=64 * GI, storage=64 * GI, used_cpu=used, **more
    )


def clusters(
    *,
    pins: dict[str, str] | None = None,
    states: dict[str, State] | None = None,
    terms: dict[str, Pool] | None = None,
    features: dict[str, list[str]] | None = None,
    **nodes: list[NodeInfo],
) -> Clusters:
    """Clusters by name that serve the pool, each with these nodes."""
    made = Clusters(pins)
    made.register({name: ((states or {}).get(name, State.ACTIVE), [POOL]) for name in nodes})
    for name, some in nodes.items():
        pool = {POOL: terms[name]} if terms and name in terms else {}
        made.announce(name, some, pool, (features or {}).get(name))
    return made


def need(*, count: int = 1, near: dict[str, int] | None = None, **kind: Any) -> Need:
    return Need(((Kind(**kind), count),), tuple((near or {}).items()))


def test_without_a_registered_cluster_work_waits_at_home() -> None:
    assert Clusters().choose(POOL, "local", need()) == "local"
    assert Clusters({POOL: "east"}).choose(POOL, "east", need()) == "east"


def test_one_cluster_is_no_choice() -> None:
    one = clusters(east=[node()])
    assert one.only(POOL) == "east"
    assert not one.choosing
    assert one.choose(POOL, "local", need(cpu=999)) == "east"


def test_the_gang_goes_where_it_fits_at_all_then_where_it_fits_now() -> None:
    some = clusters(east=[node(gpu=8, used=8)], west=[node()])
    assert some.choose(POOL, "west", need(gpu=8)) == "east"
    assert some.choose(POOL, "east", need(cpu=1)) == "west"
    # Eight tasks of 4 cores fit no node count of west, and nowhere now: east is the only one.
    assert (
        clusters(east=[node(cpu=32, used=32)], west=[node()]).choose(
            POOL, "west", need(cpu=4, count=8)
        )
        == "east"
    )


def test_inputs_attract_as_long_as_there_is_room() -> None:
    near = {"west": 3, "east": 1}
    some = clusters(east=[node(cpu=64)], west=[node(cpu=8)])
    assert some.choose(POOL, "east", need(cpu=4, near=near)) == "west"
    assert some.choose(POOL, "east", need(cpu=4, near=near)) == "west"
    assert some.choose(POOL, "east", need(cpu=4, near=near)) == "east"


def test_what_was_offered_counts_until_the_cluster_says_what_is_free() -> None:
    some = clusters(east=[node()], west=[node()])
    taken = [some.choose(POOL, "east", need(cpu=4)) for _ in range(4)]
    assert sorted(map(str, taken)) == ["east", "east", "west", "west"]
    some.announce("west", [node()], {}, None)
    assert some.choose(POOL, "east", need(cpu=4)) == "west"


def test_rights_platforms_and_features_decide_where_it_fits() -> None:
    trusted = Pool(platforms={"robot": Platform(privileged_allowed=True)})
    plain, robots = node(), node(used=7, platforms=["robot"])
    some = clusters(east=[robots], west=[plain], terms={"east": trusted, "west": Pool()})
    assert some.choose(POOL, "west", need(privileged=True)) == "east"
    assert some.choose(POOL, "west", need(platform="robot")) == "east"
    able = clusters(east=[node(used=7)], west=[node()], features={"east": ["topology"], "west": []})
    assert able.choose(POOL, "west", need(topology=("rack",))) == "east"
    keeps = Pool(credentials={"aws": Credential(secret="aws", keys=["id"])})
    some = clusters(east=[node(used=7)], west=[node()], terms={"east": keeps, "west": Pool()})
    assert some.choose(POOL, "west", need(credentials=(("aws", ("id",)),))) == "east"
    other = clusters(east=[node(pools=["else"])], west=[node(used=8)])
    assert other.choose(POOL, "east", need(cpu=1)) == "west"


def test_a_bound_pool_knows_no_other_cluster() -> None:
    bound = clusters(pins={POOL: "west"}, east=[node(cpu=64)], west=[node()])
    assert bound.choose(POOL, "west", need(cpu=1)) == "west"
    bound.hear({"west"}, set())
    assert bound.choose(POOL, "west", need(cpu=1)) == "west"
    assert bound.may_stay(POOL, "west")


def test_who_is_silent_or_drained_gets_nothing_while_there_is_another() -> None:
    some = clusters(east=[node(cpu=64)], west=[node()])
    some.hear({"east"}, set())
    assert some.choose(POOL, "east", need()) == "west"
    assert not some.may_stay(POOL, "east")
    some.hear({"east", "west"}, set())
    assert some.choose(POOL, "west", need()) == "west", "both may be back in a moment"
    assert some.may_stay(POOL, "east")
    drained = clusters(states={"east": State.DRAINING}, east=[node()])
    assert drained.choose(POOL, "east", need()) is None
    assert drained.may_stay(POOL, "east")
    removed = clusters(states={"east": State.REMOVED}, east=[node()])
    assert removed.choose(POOL, "east", need()) is None
    assert not removed.may_stay(POOL, "east")
    assert removed.gone == {"east"}


def test_the_version_tells_of_what_matters_only() -> None:
    some = clusters(east=[node()], west=[node()])
    version = some.version
    some.announce("east", [node(used=1)], {}, None)
    some.hear(set(), set())
    assert some.version == version
    some.hear({"east"}, set())
    some.hear({"east"}, {"east"})
    assert some.version == version + 2


@given(
    st.lists(st.tuples(st.integers(1, 16), st.integers(0, 16)), min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(1, 16), st.integers(1, 3)), max_size=8),
)
def test_a_gang_is_never_given_to_a_cluster_that_cannot_hold_it_if_another_can(
    sizes: list[tuple[int, int]], gangs: list[tuple[int, int]]
) -> None:
    nodes = {f"c{n}": [node(cpu=cpu, used=min(used, cpu))] for n, (cpu, used) in enumerate(sizes)}
    once, again = clusters(**nodes), clusters(**nodes)
    for cpu, count in gangs:
        chosen = once.choose(POOL, "c0", need(cpu=cpu, count=count))
        assert chosen == again.choose(POOL, "c0", need(cpu=cpu, count=count))
        able = {f"c{n}" for n, (has, _) in enumerate(sizes) if cpu * count <= has}
        assert chosen in (able or nodes)


def test_silence_counts_only_while_somebody_listens() -> None:
    hearing = Hearing(missed_beats=3, lost_after=60)
    hearing.keep(frozenset({"east", "west"}))
    assert not hearing.silent, "an engine that starts has heard nobody yet"
    hearing.heard("west", 20)
    hearing.listened(16)
    assert hearing.silent == {"east"}, "west beats less often"
    hearing.listened(45)
    assert (hearing.silent, hearing.lost) == ({"east", "west"}, {"east", "west"})
    hearing.heard("east")
    assert hearing.silent == {"west"}
    hearing.keep(frozenset({"east"}))
    assert not hearing.silent


def two(workflow: Any, max_retries: int = 2) -> Story:
    """A story with clusters `a`, which takes the first gang, and `b`."""
    return Story(workflow, max_retries, ("a", "b"))


def silence(story: Story, *names: str, lost: bool = False) -> None:
    story.world.clusters.hear(names, names if lost else ())


def test_a_move_is_a_new_attempt_and_no_retry() -> None:
    story = two(CHAIN, max_retries=1)
    story.accept("a")
    silence(story, "a")
    effects = story.say(Relocate(W, 0))
    assert effects == [
        Stop(W, "a", ((0, "a", 0),), "moved from cluster a to cluster b", 0.0),
        Place(W, "b", 0, ((0, 1),), 0),
    ]
    assert story.task("a", 0).status is TaskStatus.RESCHEDULED
    assert story.say(Relocate(W, 0)) == [], "once is enough"
    # What the old cluster says now is told to stop, and changes nothing.
    late = story.say(Started(*story.key("a", 0), story.world.now, "n"))
    assert [type(each) for each in late] == [Stop]
    assert story.task("a").status is TaskStatus.PROCESSING
    # One retry was allowed, and one is left.
    story.finish("a", None, 1, FinishReason.NODE_LOST)
    story.wait(5)
    assert story.task("a").attempt == 2
    story.finish("a", None, 2, FinishReason.NODE_LOST)
    assert story.task("a").status is TaskStatus.FAILED_BACKEND_ERROR


def test_a_moved_task_may_be_restarted_in_place_as_often_as_before() -> None:
    body = {"workflow_uuid": "u", "workflow": W, "tasks": [
        {"index": 0, "name": "a", "restart": {"exit_codes": [(1, 1)], "limit": 3}},
    ]}  # fmt: skip
    (moved,) = complete_body(body, {0: 1}, {}, {0: 4})["tasks"]
    assert moved["restart"] == {"exit_codes": [(1, 1)], "limit": 4}
    (first,) = complete_body(body, {0: 0}, {}, {})["tasks"]
    assert first["restart"]["limit"] == 3


def test_a_gang_with_one_task_on_a_node_stays() -> None:
    story = two(spec(DUO))
    story.accept("other")
    story.start("lead")
    silence(story, "a")
    assert story.say(Relocate(W, 0)) == []
    assert story.task("other").status is TaskStatus.SCHEDULING


def test_a_gang_moves_as_a_whole() -> None:
    story = two(spec(DUO))
    story.accept("other")
    silence(story, "a")
    (stop, place) = story.say(Relocate(W, 0))
    assert {each[1] for each in stop.attempts} == {"lead", "other"}
    assert place.attempts == ((0, 1), (1, 1))
    assert story.group("duo").cluster == "b"


def test_an_offer_that_a_silent_cluster_did_not_answer_goes_elsewhere() -> None:
    story = two(CHAIN)
    silence(story, "a")
    effects = story.wait(Policy().offer_interval + 1)
    assert [each.cluster for each in effects if isinstance(each, Place)] == ["b"]


def test_what_runs_is_lost_only_when_its_cluster_is() -> None:
    story = two(CHAIN)
    story.start("a")
    silence(story, "a")
    assert story.say(Lose(W, 0)) == []
    silence(story, "a", lost=True)
    stop, *_ = story.say(Lose(W, 0))
    assert (stop.cluster, stop.attempts) == ("a", ((0, "a", 0),))
    assert story.task("a", 0).reason == FinishReason.BACKEND_ERROR.value
    effects = story.wait(5)
    assert [each.cluster for each in effects if isinstance(each, Place)] == ["b"]
    # The cluster returns and says how the old attempt ended: it may forget it, no more.
    story.say(Finished(*story.key("a", 0), story.world.now, FinishReason.EXITED, 0))
    assert story.task("a").attempt == 1


def test_without_any_cluster_that_takes_work_a_group_waits_for_one() -> None:
    story = two(CHAIN)
    world = story.world
    story.accept("a")
    world.clusters.register({n: (State.REMOVED, [POOL]) for n in ("a", "b")})
    effects = story.say(Relocate(W, 0))
    assert [type(each) for each in effects] == [Stop]
    assert (story.task("a").attempt, story.task("a").cluster) == (1, None)
    assert story.wait(Policy().offer_interval * 2) == []
    world.clusters.register({"a": (State.REMOVED, [POOL]), "b": (State.ACTIVE, [POOL])})
    assert story.say(Relocate(W, 0)) == [Place(W, "b", 0, ((0, 1),), 2)]
    assert story.say(Accepted(*story.key("a", 1), world.now)) == []
    assert story.say(Due(W, 0)) == []


def test_who_waits_for_a_cluster_follows_a_gang_that_has_one() -> None:
    story = two(spec(DUO))
    world = story.world
    world.clusters.register({n: (State.REMOVED, [POOL]) for n in ("a", "b")})
    story.say(Relocate(W, 0))
    story.finish("other", None, 1, FinishReason.NODE_LOST)  # its retry finds a cluster first
    world.clusters.register({"a": (State.REMOVED, [POOL]), "b": (State.ACTIVE, [POOL])})
    (place,) = story.wait(3)
    assert (place.cluster, place.attempts) == ("b", ((1, 2),))
    story.start("other", 2)
    assert story.say(Relocate(W, 0)) == [Place(W, "b", 0, ((0, 1),), 2)]


def test_a_need_follows_from_the_body() -> None:
    asked = task("x", resource="big", credentials={"aws": {"ID": "id"}, "token": "/t"})
    workflow = spec(group("g", {**asked, "lead": True}, {**asked, "name": "y"}))
    workflow = workflow.model_validate(
        {**workflow.model_dump(by_alias=True), "resources": {"big": {"cpu": 3, "gpu": 1}}}
    )
    world = World(0, Chaos(), sites=("a", "b"))
    body = world.submit(workflow).bodies[0]
    found = need_of(body, ["b", "a", "b"])
    assert found.near == (("a", 1), ("b", 2))
    ((kind, count),) = found.kinds
    assert (kind.cpu, kind.gpu, count) == (3, 1, 2)
    assert kind.credentials == (("aws", ("id",)), ("token", ()))


def test_checkpoints_travel_to_the_cluster_and_ask_for_one_that_makes_them() -> None:
    save = {"path": "{{output}}/a", "url": "s3://b/{{workflow_id}}", "frequency": "90s"}
    workflow = spec(
        group("g", {**task("x"), "lead": True, "checkpoint": [{**save, "regex": "x"}, save]})
    )
    body = World(0, Chaos()).submit(workflow).bodies[0]
    placement = GroupPlacement.model_validate(complete_body(body, {0: 0}, {}))
    first, second = placement.tasks[0].checkpoints
    assert first == Checkpoint(
        path="{{output}}/a", url="s3://b/{{workflow_id}}", frequency=90.0, regex="x"
    )
    assert second.regex is None
    kinds = need_of(body).kinds
    assert kinds[0][0].features == {Feature.CHECKPOINT}
    assert room_for(kinds, POOL, None, [node()], frozenset({"checkpoint"})).fits
    assert not room_for(kinds, POOL, None, [node()], frozenset()).fits


def test_an_event_of_before_there_were_checkpoints_is_still_read() -> None:
    workflow = spec(group("g", {**task("x"), "lead": True}))
    body = complete_body(World(0, Chaos()).submit(workflow).bodies[0], {0: 0}, {})
    assert "checkpoints" not in body["tasks"][0]
    assert GroupPlacement.model_validate(body).tasks[0].checkpoints == []


@pytest.mark.parametrize(
    ("pools", "pins", "home"),
    [
        ({}, {}, "local"),
        ({"default": "east"}, {"default": "east"}, "east"),
        ({"default": {"max_retries": 1}}, {}, "local"),
        ({"default": {"cluster": "east", "max_retries": 1}}, {"default": "east"}, "east"),
    ],
)
def test_settings_bind_pools_or_do_not(pools: Any, pins: dict[str, str], home: str) -> None:
    settings = EngineSettings(_env_file=None, pools=pools)
    assert settings.pins == pins
    assert settings.pool("default").cluster == home
    assert settings.pool("other").cluster == "other"
