"""Every fault is named with its place, all of them at once."""

import json
import pickle

import pytest

from cairn_common.spec import ErrorCode, Limits, Problem, SpecError, load_workflow


def problems_of(text: str, **options) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        load_workflow(text, **options)
    return caught.value.problems


def in_task(extra: str) -> str:
    """A workflow of one task with more lines in it; they start at line 7, column 5."""
    head = (
        "workflow:\n  name: w\n  tasks:\n  - name: a\n    image: ubuntu:24.04\n    command: [x]\n"
    )
    return head + "".join(f"    {line}\n" for line in extra.split("\n"))


def in_workflow(extra: str) -> str:
    """A workflow with more lines at its level; they start at line 4, column 3."""
    tasks = "  tasks: [{name: a, image: u, command: [x]}]\n"
    return "workflow:\n  name: w\n" + tasks + "".join(f"  {line}\n" for line in extra.split("\n"))


TASK_FAULTS = [
    # extra lines, line, column, path below the task, part of the message, part of the hint, code
    ("imagee: u", 7, 5, "imagee", 'unknown field "imagee"', 'did you mean "image"?', "USAGE"),
    ("gpu: 1", 7, 5, "gpu", "unknown field", "belongs in workflow.resources.<name>", "USAGE"),
    ("volume_mounts: []", 7, 5, "volume_mounts", "unknown field", '"volumeMounts"', "USAGE"),
    ("args: echo", 7, 11, "args", "should be a list", 'args: ["bash"', "USAGE"),
    (
        "args: [a, true]",
        7,
        15,
        "args[1]",
        "should be a text, not true",
        'Quote it: "true"',
        "USAGE",
    ),
    ("args: [a: b]", 7, 12, "args[0]", "a mapping", "Quote the text", "USAGE"),
    ("environment: {A: null}", 7, 22, "environment.A", "is empty", "Give it a value", "USAGE"),
    ("environment: {'A=B': 1}", 7, 19, "environment.A=B", "not a name", "", "USER"),
    ("credentials: {c: {'': k}}", 7, 23, "credentials.c.", "not a name", "", "USER"),
    ("credentials: {c: keys}", 7, 22, "credentials.c", "absolute path", "/root/.osmo", "USER"),
    ("lead: maybe", 7, 11, "lead", "true or false", "", "USAGE"),
    ("resource: big", 7, 15, "resource", "Requesting undefined resource big.", "", "RESOURCE"),
    (
        "inputs: [{task: nope}]",
        7,
        21,
        "inputs[0].task",
        "Task input nope does not exist.",
        "",
        "SUBMISSION",
    ),
    (
        "inputs: [{tsak: a}]",
        7,
        14,
        "inputs[0]",
        "exactly one of task, url or dataset",
        '"task"',
        "USAGE",
    ),
    ("inputs: [a]", 7, 14, "inputs[0]", "exactly one", "- task: a", "USAGE"),
    ("inputs: [{url: http://x}]", 7, 20, "inputs[0].url", "Unknown URI scheme: http", "", "USER"),
    ("inputs: [{url: azure://x}]", 7, 20, "inputs[0].url", "azure://account/container", "", "USER"),
    ("inputs: [{url: file://x}]", 7, 20, "inputs[0].url", "file:///absolute/path", "", "USER"),
    (
        "inputs: [{url: s3://b, regex: '['}]",
        7,
        35,
        "inputs[0].regex",
        "Invalid regex: [",
        "",
        "USER",
    ),
    (
        "inputs: [{dataset: {name: x, regx: y}}]",
        7,
        34,
        "inputs[0].dataset.regx",
        "unknown",
        '"regex"',
        "USAGE",
    ),
    (
        "inputs: [{dataset: {name: x, localpath: y}}]",
        7,
        45,
        "inputs[0].dataset.localpath",
        "command line",
        "",
        "USAGE",
    ),
    ("outputs: [{task: a}]", 7, 15, "outputs[0]", "exactly one of url, dataset", "", "USAGE"),
    (
        "outputs: [{url: s3://b, dataset: {name: x}}]",
        7,
        15,
        "outputs[0]",
        "exactly one",
        "entry of its own",
        "USAGE",
    ),
    (
        "files: [{path: /osmo/x, contents: ''}]",
        7,
        20,
        "files[0].path",
        'to "/osmo" is forbidden',
        "",
        "USER",
    ),
    (
        "files: [{path: /a, contents: x}, {path: /a, contents: y}]",
        7,
        45,
        "files[1].path",
        "multiple files",
        "",
        "USER",
    ),
    ("files: [{path: /a}]", 7, 13, "files[0]", '"contents" is missing', "", "USAGE"),
    (
        "files: [{path: /a, localpath: x}]",
        7,
        24,
        "files[0].localpath",
        "local file",
        "command line",
        "USAGE",
    ),
    (
        "files: [{path: /a, contents: x, base64: true}]",
        7,
        34,
        "files[0].contents",
        "not base64",
        "",
        "USER",
    ),
    (
        "exitActions: {RETRY: 3}",
        7,
        19,
        "exitActions.RETRY",
        "Invalid exit action RETRY for task a.",
        "RESTART",
        "USER",
    ),
    (
        "exitActions: {COMPLETE: 5-1}",
        7,
        29,
        "exitActions.COMPLETE",
        "Invalid exit codes 5-1 for action COMPLETE for task a.",
        "0,2-5",
        "USER",
    ),
    (
        "exitActions: {FAIL: 1-9, RESTART: 9}",
        7,
        39,
        "exitActions.RESTART",
        "exit code 9",
        "one action only",
        "USER",
    ),
    (
        "volumeMounts: ['/a:/b:/c']",
        7,
        20,
        "volumeMounts[0]",
        "Invalid task volume mount: /a:/b:/c.",
        "",
        "USER",
    ),
    ("downloadType: fuse", 7, 19, "downloadType", "Valid types are: ['download']", "", "USAGE"),
    (
        "checkpoint: [{path: /a, url: s3://b, frequency: soon}]",
        7,
        53,
        "checkpoint[0].frequency",
        "Cannot recognize duration: soon",
        "",
        "USER",
    ),
    (
        "args: ['{{input:0}}']",
        7,
        13,
        "args[0]",
        "{{input:0}} is out of range",
        "Add the input",
        "SUBMISSION",
    ),
    (
        "args: ['a {{input:b}}']",
        7,
        15,
        "args[0]",
        "{{input:b}} names no input",
        "- task: b",
        "SUBMISSION",
    ),
    (
        "args:\n- |\n  one\n  two {{host:b}}",
        10,
        11,
        "args[0]",
        "{{host:b}} names no task",
        "",
        "SUBMISSION",
    ),
    ("environment: {A: '{{input:1}}'}", 7, 23, "environment.A", "out of range", "", "SUBMISSION"),
    (
        "inputs: [{task: a}]",
        7,
        21,
        "inputs[0].task",
        "Cycle in the workflow: a -> a",
        "its own output",
        "SUBMISSION",
    ),
]


@pytest.mark.parametrize("fault", TASK_FAULTS, ids=lambda fault: fault[0][:40])
def test_faults_in_a_task(fault):
    extra, line, column, path, message, hint, code = fault
    (problem,) = problems_of(in_task(extra))
    assert message in problem.message
    assert problem.path == f"workflow.tasks[0].{path}"
    assert (problem.line, problem.column) == (line, column)
    assert hint in problem.hint
    assert problem.code == code
    assert not problem.in_rendered


WORKFLOW_FAULTS = [
    ("groups: []", 3, 3, "workflow.tasks", "Cannot use both groups and tasks"),
    ("labels: {a: 1}", 4, 15, "workflow.labels.a", "Workflow label values must be strings."),
    ("labels: {a: ''}", 4, 15, "workflow.labels.a", 'label value "" is not a valid non-empty'),
    ("labels: {'a b': x}", 4, 12, "workflow.labels.a b", 'label key "a b" is not a valid'),
    (
        "timeout: {exec_timeout: 10h5m}",
        4,
        27,
        "workflow.timeout.exec_timeout",
        "Cannot recognize duration: 10h5m. Only support ISO 8601",
    ),
    ("timeout: {exec_timeot: 1h}", 4, 13, "workflow.timeout.exec_timeot", "unknown field"),
    (
        "resources: {big: {cpu: 1.5}}",
        4,
        26,
        "workflow.resources.big.cpu",
        "should be a whole number",
    ),
    (
        "resources: {big: {memory: 5Q}}",
        4,
        29,
        "workflow.resources.big.memory",
        "Resource memory field has invalid unit: Q",
    ),
    (
        "resources: {big: {storage: x}}",
        4,
        30,
        "workflow.resources.big.storage",
        "Resource storage field",
    ),
]


@pytest.mark.parametrize("fault", WORKFLOW_FAULTS, ids=lambda fault: fault[0])
def test_faults_in_a_workflow(fault):
    extra, line, column, path, message = fault
    (problem,) = problems_of(in_workflow(extra))
    assert message in problem.message
    assert (problem.path, problem.line, problem.column) == (path, line, column)


FILE_FAULTS = [
    ("", 1, 1, "Workflow spec not found.", "USER"),
    ("workflw:\n  name: a\n", 1, 1, "Workflow spec not found.", "USER"),
    ("workflow: {}\nworkflow: {}\n", 2, 1, 'Duplicate top-level key "workflow"', "USER"),
    ("workflow:\n\tname: a\n", 2, 1, "not properly formatted", "USAGE"),
    ("workflow:\n  name: [a\n", 3, 1, "not properly formatted", "USAGE"),
    ("workflow:\n  name: a\n---\nb: 1\n", 3, 1, "second document", "USAGE"),
    ("workflow:\n  name: \x01\n", 2, 9, "U+0001", "USAGE"),
    ("workflow: !!python/name:os.system x\n", 1, 11, "not allowed", "USAGE"),
    ("workflow: &a [*a]\n", 1, 15, "contains itself", "USAGE"),
    ("workflow: {[a]: b}\n", 1, 14, "cannot be a key", "USAGE"),
]


@pytest.mark.parametrize("fault", FILE_FAULTS, ids=lambda fault: repr(fault[0])[:30])
def test_faults_of_the_file(fault):
    text, line, column, message, code = fault
    (problem,) = problems_of(text)
    assert message in problem.message
    assert (problem.line, problem.column, problem.code) == (line, column, code)


def test_unknown_top_level_key():
    (problem,) = problems_of(in_workflow("") + "default_values: {}\n")
    assert problem.message == 'Unknown top-level key "default_values" found in the workflow spec.'
    assert (problem.line, problem.column) == (5, 1)
    assert problem.hint == 'did you mean "default-values"?'


def test_faults_of_groups():
    text = """\
workflow:
  name: w
  groups:
  - name: one
    tasks:
    - {name: a, image: u, command: [x]}
    - {name: b, image: u, command: [x], args: ["{{host:c}}"]}
  - name: two
    tasks: [{name: C_1, image: u, command: []}]
  - {name: three, tasks: []}
  - name: c-1
    tasks: [{name: c, image: "UPPER CASE", command: [x]}]
"""
    found = [(p.line, p.column, p.message) for p in problems_of(text)]
    assert found == [
        (4, 5, 'Group "one" has 0 leader(s) but must have exactly one.'),
        (7, 49, "{{host:c}} names a task of another group"),
        (9, 44, "Container C_1 should have at least one command."),
        (10, 5, 'Group "three" needs to have at least one task.'),
        (
            11,
            11,
            (
                'Multiple tasks/groups have the same name: "c-1". Note that names are not case '
                'sensitive and "-" and "_" count as the same.'
            ),
        ),
        (12, 30, "Could not parse docker image UPPER CASE. Please provide a valid image."),
    ]


def test_a_wrong_field_does_not_hide_faults_elsewhere():
    text = """\
workflow:
  name: 1w
  tasks:
  - name: a
    image: u
    command: x
    args: ["{{host:nope}}"]
  - name: b
    imagee: u
    command: [x]
    inputs: [{task: c}, {url: bad}]
    args: ["{{input:9}}", "{{host:nope}}"]
  - {name: c, image: u, command: [x], resource: big}
"""
    found = {p.path: p.message for p in problems_of(text)}
    assert set(found) == {
        "workflow.name",
        "workflow.tasks[0].command",
        "workflow.tasks[0].args[0]",
        "workflow.tasks[1].image",
        "workflow.tasks[1].imagee",
        "workflow.tasks[1].inputs[1].url",
        "workflow.tasks[1].args[1]",
        "workflow.tasks[2].resource",
    }, "{{input:9}} must not be judged while the inputs are broken"


def test_cycles_are_named():
    text = """\
workflow:
  name: w
  tasks:
  - {name: a, image: u, command: [x], inputs: [{task: c}]}
  - {name: b, image: u, command: [x], inputs: [{task: a}]}
  - {name: c, image: u, command: [x], inputs: [{task: b}]}
  - {name: d, image: u, command: [x], inputs: [{task: c}]}
"""
    (problem,) = problems_of(text)
    assert problem.message == "Cycle in the workflow: a -> b -> c -> a"
    assert (problem.line, problem.column) == (4, 55)


def test_positions_count_characters_not_bytes():
    (problem,) = problems_of(in_task("args: ['ü😀', '{{input:0}}']"))
    assert problem.column == 19


def test_the_report_reads_like_a_compiler():
    with pytest.raises(SpecError) as caught:
        load_workflow(in_task("imagee: u"), file="train.yaml")
    lines = str(caught.value).split("\n")
    assert lines == [
        'train.yaml:7:5: workflow.tasks[0].imagee: unknown field "imagee"',
        "     7 |     imagee: u",
        "       |     ^",
        '       = hint: did you mean "image"?',
        "1 problem found.",
    ]
    answer = json.loads(json.dumps(caught.value.to_dict()))
    assert answer["error_code"] == "USAGE"
    assert answer["problems"][0]["path"] == "workflow.tasks[0].imagee"
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_problems_of_a_template_are_marked_as_lines_of_the_rendered_text():
    loop = "{% for i in [1, 2] %}\n{% endfor %}"
    text = f"workflow:\n  name: {{{{ n }}}}\n{loop}\n  tsks: []\ndefault-values:\n  n: w\n"
    with pytest.raises(SpecError) as caught:
        load_workflow(text)
    problem = caught.value.problems[-1]
    assert problem.in_rendered
    assert caught.value.rendered is not None
    assert "tsks" in caught.value.rendered.split("\n")[problem.line - 1]
    assert "(rendered)" in str(caught.value)


def test_many_problems_are_counted_not_listed():
    tasks = "".join(f"  - {{name: t{i}, image: u, command: []}}\n" for i in range(500))
    found = problems_of(f"workflow:\n  name: w\n  tasks:\n{tasks}", limits=Limits(max_problems=10))
    assert len(found) == 11
    assert found[-1].message == "and 490 more problems"


def test_limits_of_an_installation():
    limits = Limits(max_tasks=1, max_exec_timeout=3600)
    text = in_workflow("timeout: {exec_timeout: 2h}").replace(
        "tasks: [", "tasks: [{name: b, image: u, command: [x]}, "
    )
    messages = [p.message for p in problems_of(text, limits=limits)]
    assert messages == [
        "Workflow cannot have more than 1 tasks.",
        "exec_timeout 2h is longer than this installation allows: 1h.",
    ]


def test_every_code_is_one_of_osmos():
    assert {code.value for code in ErrorCode} >= {"USAGE", "USER", "RESOURCE", "SUBMISSION"}
