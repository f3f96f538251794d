"""The JSON Schema of the language, for editors: `python -m cairn_common.spec.schema FILE`.

It is generated from the models, so it cannot say anything else than they do. Editors with the
YAML language server take it up from a first line `# yaml-language-server: $schema=...`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cairn_common.spec.models import WorkflowFile

_INTRODUCTION = (
    "A workflow of Cairn, in the language of OSMO. Durations are numbers with d, h, m, s, ms or "
    "us, seconds without a unit, or ISO 8601. Amounts of memory and storage are numbers with B, "
    "Ki, Mi, Gi or Ti (K, M, G and T mean the same), bytes without a unit. The schema is about "
    "plain files: one with Jinja templates is checked after they are filled in."
)


def json_schema() -> dict[str, Any]:
    """The schema of a workflow file, JSON Schema draft 2020-12."""
    schema = WorkflowFile.model_json_schema(by_alias=True, mode="validation")
    workflow = schema["$defs"]["WorkflowSpec"]
    workflow["oneOf"] = [{"required": ["tasks"]}, {"required": ["groups"]}]
    _accept_numbers_as_text(schema)
    schema.pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cairn workflow",
        "description": _INTRODUCTION,
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _accept_numbers_as_text(node: Any) -> None:
    """Where the language takes a number for a text (`args: [1]`), so must the schema."""
    if isinstance(node, list):
        for item in node:
            _accept_numbers_as_text(item)
    elif isinstance(node, dict):
        plain = (
            node.get("type") == "string"
            and not {"pattern", "enum", "const", "format"} & node.keys()
        )
        if plain:
            node["type"] = ["string", "number"]
        for item in node.values():
            _accept_numbers_as_text(item)


def schema_text() -> str:
    """The file as it is kept in the repository."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the schema to the named file, or to standard output."""
    if arguments:
        Path(arguments[0]).write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
