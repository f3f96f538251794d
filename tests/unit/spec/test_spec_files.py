"""Whole files: the reference's tutorials, our own examples, and the schema that editors use."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from cairn_common.spec import build_graph, is_templated, load_workflow
from cairn_common.spec.schema import json_schema, schema_text

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT.parent / "shared" / "osmo" / "workflows"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
REFERENCE_FILES = sorted(REFERENCE.glob("*/*.yaml"))
needs_reference = pytest.mark.skipif(
    not REFERENCE_FILES,
    reason="the reference's files are somebody else's, so not in here: lay them beside this folder",
)


def _load(path: Path):
    text = path.read_text()
    set_variables = ["storage_url=s3://bucket"] if "storage_url" in text else []
    return load_workflow(text, file=path.name, set_variables=set_variables)


@needs_reference
def test_every_tutorial_of_the_reference_loads():
    assert len(REFERENCE_FILES) == 20
    for path in REFERENCE_FILES:
        loaded = _load(path)
        assert loaded.warnings == (), path.name
        assert build_graph(loaded.spec).task_count >= 1


@needs_reference
def test_the_schema_accepts_every_plain_tutorial():
    validator = jsonschema.Draft202012Validator(json_schema())
    plain = [p for p in REFERENCE_FILES if not is_templated(p.read_text())]
    assert len(plain) >= 15
    for path in plain:
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == [], path.name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_our_examples_load_without_warnings(path):
    loaded = _load(path)
    assert loaded.warnings == ()
    build_graph(loaded.spec)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_the_schema_accepts_our_plain_examples(path):
    if not is_templated(path.read_text()):
        jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


def test_the_committed_schema_is_the_generated_one():
    committed = (ROOT / "docs" / "workflow.schema.json").read_text()
    assert committed == schema_text(), (
        "run python -m cairn_common.spec.schema docs/workflow.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


def test_the_schema_refuses_what_the_language_refuses():
    validator = jsonschema.Draft202012Validator(json_schema())
    task = {"name": "a", "image": "u", "command": ["x"]}
    assert validator.is_valid({"workflow": {"name": "w", "tasks": [task]}})
    for wrong in (
        {"workflow": {"name": "w", "tasks": [{**task, "imagee": "u"}]}},
        {"workflow": {"name": "w", "tasks": [task], "groups": []}},
        {"workflow": {"name": "w", "tasks": [{**task, "inputs": [{"url": "http://x"}]}]}},
        {"workflow": {"name": "w", "tasks": [{**task, "command": "x"}]}},
        {"workflow": {"name": "w", "timeout": {"exec_timeout": "10h5m"}, "tasks": [task]}},
        {"workflow": {"name": "w", "tasks": [task]}, "other": 1},
    ):
        assert not validator.is_valid(wrong), wrong


def test_every_field_of_the_schema_is_described():
    for name, model in json_schema()["$defs"].items():
        for field, schema in model.get("properties", {}).items():
            assert schema.get("description"), f"{name}.{field}"
