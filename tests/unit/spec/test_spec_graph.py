"""The graph: edges between groups, an order that respects them, cycles found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.spec import SpecError, WorkflowSpec, build_graph, load_workflow


def task(name: str, *inputs: str, lead: bool = False) -> dict[str, object]:
    return {
        "name": name,
        "image": "u",
        "command": ["x"],
        "lead": lead,
        "inputs": [{"task": i} for i in inputs],
    }


def test_groups_and_indices():
    spec = WorkflowSpec.model_validate(
        {
            "name": "w",
            "groups": [
                {"name": "late", "tasks": [task("a", "c", lead=True), task("b", "d", "other-3:x")]},
                {"name": "early", "tasks": [task("c", lead=True), task("d")]},
            ],
        }
    )
    graph = build_graph(spec)
    assert [g.name for g in graph.groups] == ["late", "early"]
    assert [[t.index for t in g.tasks] for g in graph.groups] == [[0, 1], [2, 3]]
    assert [t.inputs for t in graph.groups[0].tasks] == [(2,), (3,)]
    assert graph.groups[0].upstream == (1,)
    assert graph.groups[1].downstream == (0,)
    assert graph.order == (1, 0)
    assert graph.roots == (1,)
    assert graph.task_count == 4


def test_tasks_become_groups_with_a_lead():
    spec = load_workflow("workflow: {name: w, tasks: [{name: a, image: u, command: [x]}]}").spec
    assert spec.tasks is None
    assert spec.groups is not None
    assert spec.groups[0].name == "a-group"
    assert spec.groups[0].tasks[0].lead
    assert "default" in spec.resources
    assert spec.task_location(0, 0) == ("workflow", "tasks", 0)


def test_specifications_survive_as_json():
    text = (
        "workflow: {name: w, timeout: {exec_timeout: 90m}, resources: {r: {memory: 1.5Gi}}, "
        "tasks: [{name: a, image: u, command: [x], resource: r, exitActions: {FAIL: '1-3,7'}}]}"
    )
    spec = load_workflow(text).spec
    again = WorkflowSpec.model_validate_json(
        spec.model_dump_json(by_alias=True, exclude_defaults=True)
    )
    assert again.marked_as_tasks() == spec
    assert again.groups is not None
    assert again.groups[0].tasks[0].exit_actions == {"FAIL": ((1, 3), (7, 7))}


@st.composite
def dags(draw):
    """Tasks in a hidden order, each reading from some before it, written down in another order."""
    count = draw(st.integers(1, 12))
    edges = [draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(count)]
    return edges, draw(st.permutations(range(count)))


@given(dags())
def test_the_order_respects_every_edge(dag):
    edges, written = dag
    tasks = [task(f"t{i}", *(f"t{j}" for j in sorted(edges[i]))) for i in written]
    graph = build_graph(WorkflowSpec.model_validate({"name": "w", "tasks": tasks}))
    place = {g: n for n, g in enumerate(graph.order)}
    assert sorted(graph.order) == list(range(len(tasks)))
    for group in graph.groups:
        assert {graph.groups[u].tasks[0].name for u in group.upstream} == {
            f"t{j}" for j in edges[written[group.index]]
        }
        assert all(place[u] < place[group.index] for u in group.upstream)
        assert all(group.index in graph.groups[d].upstream for d in group.downstream)


@given(dags(), st.data())
def test_a_cycle_is_always_found_and_is_one(dag, data):
    edges, _ = dag
    last = len(edges) - 1
    chain = data.draw(st.integers(0, last))
    tasks = [task(f"t{i}", *(f"t{j}" for j in edges[i])) for i in range(last + 1)]
    tasks += [task("x", "y"), task("y", "x", f"t{chain}")]
    with pytest.raises(SpecError, match="Cycle in the workflow: x -> y -> x") as caught:
        build_graph(WorkflowSpec.model_validate({"name": "w", "tasks": tasks}))
    assert len(caught.value.problems) == 1


def test_large_chains_take_linear_time():
    count = 20_000
    tasks = [task(f"t{i}", *([f"t{i - 1}"] if i else [])) for i in range(count)]
    spec = WorkflowSpec.model_validate({"name": "w", "tasks": tasks})
    assert build_graph(spec).order == tuple(range(count))
    ring = [task("t0", f"t{count - 1}"), *tasks[1:]]
    with pytest.raises(SpecError, match=r"t0 -> t1 -> .* more \.\.\. -> .* -> t0"):
        build_graph(WorkflowSpec.model_validate({"name": "w", "tasks": ring}))
