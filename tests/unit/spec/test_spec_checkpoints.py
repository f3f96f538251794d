"""Which folders can be checkpointed, and in which volume they are."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.spec import SpecError, load_workflow
from cairn_common.spec.checkpoints import OUTPUT, below, homes, normal, refusal


def workflow(*paths: str, extra: str = "", frequency: str = "1m") -> str:
    lines = [
        "workflow:\n  name: w\n  tasks:\n  - name: a\n    image: u\n    command: [x]",
        *([f"    {extra}"] if extra else []),
        "    checkpoint:",
        *(f"    - {{path: '{path}', url: s3://b/p, frequency: {frequency}}}" for path in paths),
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "path",
    [
        "/workspace",
        "/opt/app/ckpt/",
        "/tmp",
        "/root/x",
        "/usr/src/app",
        "/var/lib/app",
        "{{output}}",
        "{{output}}/a/../b",
        "/osmo/data/output/x",
        "/runs/{{workflow_id}}",
        "/procedure",
    ],
)
def test_folders_of_the_tasks_own_can_be(path: str) -> None:
    assert load_workflow(workflow(path)).warnings == ()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("work", "work is no absolute path"),
        ("", ". is no absolute path"),
        ("/", "/ belongs to the system"),
        ("/a/..", "/ belongs to the system"),
        ("/usr/bin/", "/usr/bin belongs to the system"),
        ("/proc/self", "/proc/self belongs to the system"),
        ("/dev/shm/x", "/dev/shm/x belongs to the system"),
        ("/osmo", "of which only {{output}} can be checkpointed"),
        ("{{input:0}}", "/osmo/data/input/0 is Cairn"),
        ("{{output}}/../..", "/osmo is Cairn"),
        ("/a:b", "has a colon"),
        ("/mnt/data", "/mnt/data and the volume mount /nfs:/mnt/data/deep lie in one another"),
        ("/mnt/data/deep/er", "lie in one another"),
        ("/cfg/a.txt", "is not a folder: files has a file at /cfg/a.txt"),
        ("/cfg/a.txt/b", "is not a folder: files has a file at /cfg/a.txt"),
    ],
)
def test_others_are_refused_with_the_place(path: str, words: str) -> None:
    extra = (
        "volumeMounts: ['/nfs:/mnt/data/deep']\n    files: [{path: /cfg/a.txt, contents: x}]\n"
        "    inputs: [{url: 's3://b/c'}]"
    )
    with pytest.raises(SpecError) as caught:
        load_workflow(workflow("/fine", path, extra=extra))
    (problem,) = caught.value.problems
    assert problem.message.startswith("Checkpoint path")
    assert words in problem.message
    assert problem.path == "workflow.tasks[0].checkpoint[1].path"
    assert problem.line


def test_a_file_may_lie_in_a_checkpointed_folder() -> None:
    load_workflow(workflow("/cfg", extra="files: [{path: /cfg/a.txt, contents: x}]"))


def test_a_pause_that_is_too_short_is_warned_of() -> None:
    (warning,) = load_workflow(workflow("/a", frequency="200ms")).warnings
    assert warning == "task a: a checkpoint every 0.2 s is made every 1 s"


parts = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4)
paths = st.lists(
    st.one_of(
        parts.map(lambda each: "/" + "/".join(each)),
        parts.map(lambda each: f"{OUTPUT}/" + "/".join(each)),
        st.just(OUTPUT),
    ),
    max_size=8,
)


@given(paths)
def test_every_path_is_in_exactly_one_volume(given_paths: list[str]) -> None:
    found = homes(given_paths)
    assert set(found) == set(given_paths)
    roots = {root for root, _ in found.values()}
    for path, (root, inner) in found.items():
        assert str(PurePosixPath(root, inner)) == path
        assert root == OUTPUT if below(path, OUTPUT) else root in found
    assert not any(below(one, other) for one in roots for other in roots if one != other)


@given(st.text(alphabet="/.ab", min_size=1, max_size=12))
def test_a_normal_path_stays_as_it_is(text: str) -> None:
    path = normal(text)
    assert normal(path) == path
    assert path.startswith("/") == text.startswith("/")
    if refusal(path) is None:
        assert ".." not in path.split("/")
