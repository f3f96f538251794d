"""Checks of a submission against an installation: features, capacity, local files."""

import base64
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.spec import (
    ErrorCode,
    Feature,
    NodeCapacity,
    SpecError,
    check_capacity,
    inline_local_files,
    load_workflow,
    unsupported,
    used_features,
)
from cairn_common.spec.localpath import _quoted

GI = 1 << 30
EVERYTHING = """\
workflow:
  name: w
  labels: {team: x}
  timeout: {queue_timeout: 1h}
  resources:
    default: {gpu: 1, platform: a40, nodesExcluded: [n1], topology: [{key: rack}]}
  groups:
  - name: g
    tasks:
    - name: a
      lead: true
      image: u
      command: [x]
      inputs:
      - task: b
      - task: other-1:b
      - dataset: {name: d}
      - url: s3://b
      - url: gs://b
      - url: azure://a/c
      - url: swift://e/a/b
      - url: tos://e/b
      - url: file:///d
      outputs: [{dataset: {name: d}}, {update_dataset: {name: d}}]
      files: [{path: /f, contents: ""}]
      credentials: {c: /c, d: {ENV: key}}
      exitActions: {FAIL: 1}
      checkpoint: [{path: /p, url: s3://b, frequency: 1m}]
      volumeMounts: [/v]
      privileged: true
      hostNetwork: true
      kpis: [{index: i, path: p}]
      cacheSize: 1Gi
    - {name: c, image: u, command: [x]}
  - name: h
    tasks: [{name: b, image: u, command: [x]}]
"""


def test_the_whole_language_is_known_as_features():
    loaded = load_workflow(EVERYTHING)
    assert {feature for feature, _ in used_features(loaded.spec)} == set(Feature)
    assert unsupported(loaded.spec, frozenset(Feature)) == []


def test_what_is_not_executed_is_refused_by_name_and_place():
    loaded = load_workflow(EVERYTHING)
    problems = loaded.locate(unsupported(loaded.spec, frozenset(Feature) - {Feature.DATASET_INPUT}))
    (problem,) = problems
    assert problem.path == "workflow.groups[0].tasks[0].inputs[2].dataset"
    assert problem.message == "dataset inputs are not executed by this installation yet"
    assert "storage URL" in problem.hint
    assert (problem.line, problem.column) == (17, 18)


NODES = [
    NodeCapacity("small", 4, 0, 8 * GI, 50 * GI, frozenset({"cpu"})),
    NodeCapacity("large", 16, 2, 64 * GI, 500 * GI, frozenset({"cpu", "a40"})),
]


def _capacity(resources: str, tasks: str = "[{name: a, image: u, command: [x], resource: r}]"):
    form = "groups" if "tasks:" in tasks else "tasks"
    text = f"workflow:\n  name: w\n  resources:\n    r: {resources}\n  {form}: {tasks}\n"
    loaded = load_workflow(text)
    return loaded.locate(check_capacity(loaded.spec, NODES))


def test_what_fits_is_accepted():
    assert _capacity("{}") == []
    assert _capacity("{cpu: 16, gpu: 2, memory: 64Gi, storage: 500Gi, platform: a40}") == []


def test_what_fits_no_node_is_refused_with_the_table():
    (problem,) = _capacity("{cpu: 17, memory: 1Gi}")
    assert problem.code is ErrorCode.RESOURCE
    assert problem.path == "workflow.resources.r"
    assert problem.line == 4
    assert "large" in problem.message
    assert "cpu 17 <= 16" in problem.message
    assert "cpu 17 <= 4" in problem.message


def test_unknown_platforms_and_excluded_nodes():
    (problem,) = _capacity("{platform: nope}")
    assert problem.message == "Platform nope does not exist in pool default!"
    assert problem.hint == "Available platforms: a40, cpu."
    (problem,) = _capacity("{gpu: 1, nodesExcluded: [large]}")
    assert "gpu 1 <= 0" in problem.message
    (problem,) = _capacity("{cpu: 0}")
    assert "more than 0" in problem.message


def test_a_group_must_fit_all_nodes_together():
    tasks = ", ".join(
        f"{{name: t{i}, image: u, command: [x], resource: r, lead: {str(not i).lower()}}}"
        for i in range(6)
    )
    (problem,) = _capacity("{cpu: 4}", f"[{{name: g, tasks: [{tasks}]}}]")
    assert "together: cpu 24 <= 20" in problem.message
    assert problem.path == "workflow.groups[0]"


LOCAL = """\
# a comment that stays
workflow:
  name: w
  tasks:
  - name: a
    image: u
    command: [sh, /run.sh]
    files:
    - path: /run.sh    # and this
      localpath: run.sh
    - localpath: data.bin
      path: /data
    - {path: /x, localpath: run.sh}
    - {localpath: data.bin, path: /y}
"""


def test_local_files_become_contents(tmp_path: Path):
    script = 'echo "é\\n😀"\t\n\n# \u2028 {{output}}\n'
    (tmp_path / "run.sh").write_text(script)
    (tmp_path / "data.bin").write_bytes(b"\xff\x00")
    text = inline_local_files(LOCAL, tmp_path)
    assert "# a comment that stays" in text
    assert "# and this" in text
    files = load_workflow(text).spec.all_groups[0].tasks[0].files
    assert [f.contents for f in files] == [script, "/wA=", script, "/wA="]
    assert [f.base64 for f in files] == [False, True, False, True]
    assert inline_local_files("workflow: {}", tmp_path) == "workflow: {}"


def test_local_files_that_are_not_there(tmp_path: Path):
    (tmp_path / "data.bin").mkdir()
    with pytest.raises(SpecError) as caught:
        inline_local_files(LOCAL, tmp_path)
    found = [(p.line, p.column, p.message) for p in caught.value.problems]
    assert found[0] == (10, 18, "localpath run.sh: does not exist")
    assert found[1][:2] == (11, 18)
    assert "is a folder" in found[1][2]
    assert caught.value.problems[0].path == "workflow.tasks[0].files[0].localpath"


def test_a_local_file_already_marked_as_base64(tmp_path: Path):
    (tmp_path / "f").write_text("abc")
    text = "workflow: {tasks: [{files: [{path: /f, localpath: f, base64: true}]}]}"
    entry = yaml.safe_load(inline_local_files(text, tmp_path))["workflow"]["tasks"][0]["files"][0]
    assert base64.b64decode(entry["contents"]) == b"abc"


@given(st.text())
def test_any_text_can_be_quoted(text):
    assert yaml.load(f"a: {_quoted(text)}", Loader=yaml.CSafeLoader) == {"a": text}
