"""Templates and tokens: what is filled in, what survives, what is refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.spec import (
    Limits,
    SpecError,
    find_tokens,
    is_templated,
    load_workflow,
    render,
    substitute,
)

TOKENS = [
    "{{output}}",
    "{{input:0}}",
    "{{input:task-a}}",
    "{{workflow_id}}",
    "{{host:b_1}}",
    "{{uuid}}",
]


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_survive_untouched(token):
    plain = f"a: '{token}'\n"
    assert not is_templated(plain)
    assert render(plain).text == plain
    assert render(f"a: '{token} {{{{ 1 + 1 }}}}'\n").text == f"a: '{token} 2'\n"
    assert render(f"a: {{{{ '{token}/x' }}}}").text == f"a: {token}/x"
    assert render(f"a: {{{{ v }}}}\ndefault-values:\n  v: '{token}'\n").text.startswith(
        f"a: {token}\n"
    )
    assert [t.text for t in find_tokens(plain)] == [token]


def test_shell_that_looks_like_jinja_is_left_alone():
    assert not is_templated("n=${#list[@]} {output} { { x } }")
    assert is_templated("{# a comment #}")


def test_values_and_their_order():
    text = "a: {{ x }} {{ y }} {{ z }}\ndefault-values:\n  x: 1\n  y: 2\n  z: 22.04\n"
    assert render(text).text.startswith("a: 1 2 22.04\n")
    again = render(text, set_variables=["x=3.50", "y=true"], set_string_variables=["z=007", "x=04"])
    assert again.text.startswith("a: 04 true 007\n")


def test_a_default_value_is_not_a_template_itself():
    text = "a: {{ x }}\ndefault-values:\n  x: '{{ y }} {% if %}'\n"
    assert render(text).text.startswith("a: {{ y }} {% if %}\n")


def test_line_numbers_hold_around_the_default_values():
    text = "default-values:\n  x: 1\n\nworkflow:\n  name: {{ x }}\n"
    assert render(text).text.split("\n")[3:5] == ["workflow:", "  name: 1"]


def test_all_undefined_variables_are_named():
    text = """\
a: {{ one }}
b: {{ two }} {{ one }}
c: {{ three | default('x') }} {% if four is defined %}{% endif %}
d: {{ output }}
"""
    with pytest.raises(SpecError) as caught:
        render(text)
    found = [(p.line, p.column, p.message.rpartition(": ")[2]) for p in caught.value.problems]
    assert found == [
        (1, 7, "'one' is undefined"),
        (2, 7, "'two' is undefined"),
        (4, 7, "'output' is undefined"),
    ]
    assert "--set one=" in caught.value.problems[0].hint
    assert "{{output}}" in caught.value.problems[2].hint
    assert "Jinja substitution failure: <class 'jinja2.exceptions.UndefinedError'>" in str(
        caught.value
    )


@pytest.mark.parametrize("name", ["output", "workflow_id", "uuid"])
def test_token_names_are_taken(name):
    for text in (
        f"a: {{{{ 1 }}}}\ndefault-values:\n  {name}: 1\n",
        f"workflow: {{}}\ndefault-values:\n  {name}: 1\n",
    ):
        with pytest.raises(SpecError) as caught:
            load_workflow(text)
        (problem,) = [p for p in caught.value.problems if "taken by" in p.message]
        assert (problem.line, problem.column) == (3, 3)
    with pytest.raises(SpecError, match="taken by the special token"):
        render("a: {{ x }}", set_variables=[f"{name}=1"])


def test_unused_variables_warn():
    assert render("a: {{ x }}", set_variables=["x=1", "z=2"]).warnings == (
        "--set z: no template uses it",
    )


def test_environment_for_every_task():
    text = """\
workflow:
  name: w
  tasks:
  - {name: a, image: u, command: [x], environment: {A: 1, B: true}}
  - {name: b, image: u, command: [x]}
"""
    spec = load_workflow(text, env_vars=["A=2=3", "C="]).spec
    assert spec.groups is not None
    assert [g.tasks[0].environment for g in spec.groups] == [
        {"A": "2=3", "B": "True", "C": ""},
        {"A": "2=3", "C": ""},
    ]
    with pytest.raises(SpecError, match="does not set"):
        load_workflow(text, env_vars=["A"])


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ range.__self__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{% set x = [] %}{{ x.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_templates_cannot_reach_python(text):
    with pytest.raises(SpecError, match="Jinja substitution failure"):
        render(text)


@given(st.text(alphabet="{}%#'\"._-|()[]~*+ abx_class\n0123456789", max_size=60))
def test_rendering_ends_with_a_text_or_a_spec_error(text):
    with contextlib.suppress(SpecError):
        result = render("{{" + text, limits=Limits(max_rendered_bytes=10_000))
        assert "<class" not in result.text or "<class" in text


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 10 ** 10000000000 }}",
        "{{ '%9999999999d' % 1 }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}",
        "{{ [0] * 10**9 }}",
        "{{ " + "(" * 3000 + " }}",
    ],
)
def test_what_can_be_bounded_in_process_is(text):
    with pytest.raises(SpecError):
        render(text)


def test_output_is_bounded():
    with pytest.raises(SpecError, match="exceeds 1,000 bytes"):
        render("{% for i in range(500) %}abc{% endfor %}", limits=Limits(max_rendered_bytes=1000))


def test_substitution():
    def resolver(token):
        return {"output": "/out", "input": f"/in/{token.argument}"}.get(token.kind)

    assert (
        substitute("{{output}} {{input:0}} {{uuid}} {{ output }}", resolver)
        == "/out /in/0 {{uuid}} {{ output }}"
    )


@given(st.lists(st.sampled_from([*TOKENS, "text", "{", "}}", "é"]), max_size=8))
def test_substituting_nothing_changes_nothing(parts):
    text = "".join(parts)
    assert substitute(text, lambda _: None) == text
    assert all(text[t.start : t.end] == t.text for t in find_tokens(text))


def test_a_file_that_is_rendered_already_is_taken_as_it_stands() -> None:
    text = (
        "workflow:\n  name: w\n  tasks:\n"
        "  - {name: t, image: x, command: [sh, /run.sh],"
        " files: [{path: /run.sh, contents: 'echo {{ x }} {% y %}'}]}\n"
    )
    spec = load_workflow(text, templates=False).spec
    assert spec.all_groups[0].tasks[0].files[0].contents == "echo {{ x }} {% y %}"
