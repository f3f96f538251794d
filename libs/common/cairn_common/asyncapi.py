"""The catalogue of events as an AsyncAPI 3 document: `python -m cairn_common.asyncapi` prints it.

FastStream generates one too, but its channels have no parameters and its messages no headers,
which are what a subscriber has to know: what the tokens of a subject mean, and where a
CloudEvent's attributes are. Everything here is derived from the models in `events.catalogue`.

Source: AsyncAPI 3.0.0; CloudEvents 1.0.2 with the NATS protocol binding.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any, Final

import yaml
from pydantic.json_schema import models_json_schema

from cairn_common.events import CATALOGUE, PARTITIONS, Event, TaskLog
from cairn_common.events.catalogue import BridgeEvent, ClusterEvent, WorkflowEvent
from cairn_common.events.envelope import SPEC_VERSION
from cairn_common.events.subjects import STREAMS, Stream

VERSION: Final = "1.0.0"
"""Of the catalogue: the first number changes only if an event is removed or means another thing."""

_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "partition": {
        "description": f"CRC-32 of the workflow's id modulo {PARTITIONS}: the engine's unit of "
        "work. Subscribe with * for all.",
    },
    "workflow": {"description": "The workflow's id.", "examples": ["hello-1"]},
    "cluster": {"description": "The cluster's name.", "examples": ["local"]},
    "task": {"description": "The task's name."},
}
_REF_TEMPLATE: Final = "#/components/schemas/{model}"


def asyncapi_document() -> dict[str, Any]:
    """The document."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in CATALOGUE.values()], ref_template=_REF_TEMPLATE
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Cairn events",
            "version": VERSION,
            "description": "What happens to workflows, tasks and clusters, as CloudEvents on NATS "
            "JetStream. The catalogue changes only by adding events and optional fields: ignore "
            "what you do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "{host}",
                "protocol": "nats",
                "description": "NATS with JetStream.",
                "variables": {"host": {"default": "127.0.0.1:4222"}},
            }
        },
        "channels": {kind: _channel(model) for kind, model in CATALOGUE.items()},
        "operations": {
            f"receive.{kind}": {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{kind}"},
                "summary": _summary(model),
                "messages": [{"$ref": f"#/channels/{kind}/messages/{model.__name__}"}],
            }
            for kind, model in CATALOGUE.items()
        },
        "components": {
            "messages": {model.__name__: _message(model) for model in CATALOGUE.values()},
            "parameters": _PARAMETERS,
            "messageTraits": {"cloudEvent": {"headers": _headers()}},
            "schemas": schemas["$defs"],
        },
    }


def _channel(model: type[Event]) -> dict[str, Any]:
    address, names = _address(model)
    stream = _stream(model.type)
    return {
        "address": address,
        "title": model.type,
        "description": f"{_description(model)}\n\nKept in the stream {stream.name} "
        f"for up to {stream.max_age_seconds // 3600} hours.",
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in names},
        "messages": {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"}},
        "x-jetstream": {"stream": stream.name, "filter": f"{model.type}{'.*' * len(names)}"},
    }


def _address(model: type[Event]) -> tuple[str, tuple[str, ...]]:
    """The subject as a pattern, and its parameters; see `events.subjects` for its shape."""
    names: tuple[str, ...]
    if issubclass(model, TaskLog):
        names = ("partition", "workflow", "task")
    elif issubclass(model, WorkflowEvent):
        names = ("partition", "workflow")
    elif issubclass(model, BridgeEvent):
        names = ("cluster", "workflow")
    elif issubclass(model, ClusterEvent):
        names = ("cluster",)
    else:
        raise TypeError(f"{model.__name__} has no subject that is known here")
    return ".".join([model.type, *(f"{{{name}}}" for name in names)]), names


def _stream(kind: str) -> Stream:
    return next(stream for stream in STREAMS if f"{kind}.>" in stream.subjects)


def _message(model: type[Event]) -> dict[str, Any]:
    return {
        "name": model.type,
        "title": model.__name__,
        "summary": _summary(model),
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"$ref": _REF_TEMPLATE.format(model=model.__name__)},
    }


def _headers() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time"],
        "properties": {
            "ce-specversion": {"type": "string", "const": SPEC_VERSION},
            "ce-id": {**text, "description": "The same id of one source is the same event."},
            "ce-type": {"type": "string", "enum": list(CATALOGUE)},
            "ce-source": {**text, "description": "Who says it, e.g. /engine or /bridge/local."},
            "ce-subject": {**text, "description": "The workflow or cluster that it is about."},
            "ce-time": {"type": "string", "format": "date-time"},
            "content-type": {"type": "string", "const": "application/json"},
            "traceparent": {**text, "description": "W3C trace context of the workflow."},
            "Nats-Msg-Id": {**text, "description": "For JetStream's own deduplication."},
        },
    }


def _description(model: type[Event]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _summary(model: type[Event]) -> str:
    return _description(model).partition("\n")[0]


if __name__ == "__main__":
    yaml.safe_dump(asyncapi_document(), sys.stdout, sort_keys=False, allow_unicode=True, width=100)
