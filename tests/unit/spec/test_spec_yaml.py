"""YAML to values: the same as PyYAML's, within bounds; positions looked up afterwards."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cairn_common.spec import Limits, Problem, SpecError
from cairn_common.spec.positions import locate
from cairn_common.spec.yamltext import parse_yaml

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=25,
)


@given(values, st.booleans())
def test_values_are_those_of_pyyaml(value, flow):
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert parse_yaml(text).value == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: yes\nb: 0x1F\nc: 1_000\nd: 1.5\ne: ~\nf: 'yes'\ng: 1:30\nh: .inf\ni: 22.04\nj: 0o7\n",
        "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: {k: 4, <<: [*x, {m: 5}]}\n",
        "a: |\n  one\n  two\nb: >-\n  three\n  four\n",
        "? a\n: b\n",
        "a: !!str 12\nb: !!int '3'\nc: ! 12\n",
        "1: a\ntrue: b\n",
    ],
)
def test_notations_are_read_as_pyyaml_reads_them(text):
    assert parse_yaml(text).value == yaml.safe_load(text)


def test_a_merge_sign_that_merges_nothing_is_text():
    assert parse_yaml("- <<\n- {a: <<}\n").value == ["<<", {"a": "<<"}]


def test_dates_stay_text():
    assert parse_yaml("[2024-01-01]").value == ["2024-01-01"]


def test_duplicate_keys_warn_and_the_last_counts():
    document = parse_yaml("a:\n  b: 1\n  b: 2\n")
    assert document.value == {"a": {"b": 2}}
    assert document.warnings == ['workflow.yaml:3:3: duplicate key "b": the last one counts']


BOMB = "a: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(20)
)
MERGE_BOMB = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, MERGE_BOMB, "[" * 5000, "{a: " * 5000, "- " * 100_000, "[" + "a," * 50_000 + "]"],
    ids=["aliases", "merges", "lists", "mappings", "dashes", "many"],
)
def test_bombs_are_refused_at_once(text):
    start = time.monotonic()
    with pytest.raises(SpecError) as caught:
        parse_yaml(text, limits=Limits(max_nodes=20_000))
    assert time.monotonic() - start < 2
    assert caught.value.problems[0].line > 0


def test_nested_aliases_count_as_deep():
    chain = "x0: &x0 [1]\n" + "".join(f"x{i}: &x{i} [*x{i - 1}]\n" for i in range(1, 60))
    with pytest.raises(SpecError, match="nested deeper"):
        parse_yaml(chain)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5, unique=True))
def test_positions_are_those_of_the_text(keys):
    text = "root:\n" + "".join(f"  - {key}: [1, {{x: {key}}}]\n" for key in keys)
    wanted = [Problem("", ("root", i, key, 1, "x")) for i, key in enumerate(keys)]
    for i, problem in enumerate(locate(text, wanted)):
        assert problem.line == i + 2
        assert text.split("\n")[problem.line - 1][problem.column - 1] == keys[i]
