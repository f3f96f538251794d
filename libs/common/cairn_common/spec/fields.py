"""The scalar types of the language: how each is read from YAML, written back, and described.

A type here is one `Annotated` alias: its validator (from `units` and `references`), the
serialiser that writes what the validator reads, and the JSON Schema an editor shows.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from cairn_common.spec.references import (
    NAME_PATTERN,
    URL_PATTERN,
    check_storage_url,
)
from cairn_common.spec.units import (
    ExitCodes,
    format_duration,
    format_exit_codes,
    format_quantity,
    parse_duration,
    parse_exit_codes,
    parse_quantity,
)

# A regular expression longer than this is not a file filter.
_MAX_REGEX = 4096


def _check_regex(text: str) -> str:
    if len(text) > _MAX_REGEX:
        raise ValueError(f"Invalid regex: longer than {_MAX_REGEX} characters")
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"Invalid regex: {text[:80]} ({error})") from None
    return text


def _scalar_to_text(value: Any) -> Any:
    """Environment values may be any scalar; OSMO writes Python's text of it (`True`, `1.5`)."""
    return str(value) if isinstance(value, (bool, int, float)) else value


def _read_quantity(value: object, info: ValidationInfo) -> int:
    return parse_quantity(value, info.field_name or "memory")


def _read_exit_codes(value: object) -> ExitCodes:
    # Read back from a Python value (model_copy, tests) as well as from text.
    if isinstance(value, tuple):
        value = format_exit_codes(value)
    return parse_exit_codes(value)


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]

Text = Annotated[str, BeforeValidator(_scalar_to_text)]

Regex = Annotated[
    str,
    AfterValidator(_check_regex),
    WithJsonSchema({"type": "string", "format": "regex"}),
]

StorageUrl = Annotated[
    str,
    AfterValidator(check_storage_url),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": URL_PATTERN,
            "examples": ["s3://bucket/path", "azure://account/container/path", "file:///data"],
        }
    ),
]

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "description": "seconds"},
                {
                    "type": "string",
                    "pattern": r"^([0-9]+(d|h|m|s|ms|us)|[0-9]+(\.[0-9]+)?|P.+)$",
                    "description": "a number with d, h, m, s, ms or us; or ISO 8601 (PT10S)",
                },
            ],
            "examples": ["30m", "12h", 90],
        }
    ),
]

Quantity = Annotated[
    int,
    BeforeValidator(_read_quantity),
    PlainSerializer(format_quantity, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "description": "bytes"},
                {
                    "type": "string",
                    "pattern": r"^[0-9]+(\.[0-9]+)?\s*(B|m|Ki?|Mi?|Gi?|Ti?)?$",
                    "description": "a number with B, Ki, Mi, Gi or Ti; K, M, G and T mean the same",
                },
            ],
            "examples": ["4Gi", "512Mi"],
        }
    ),
]

ExitCodeRanges = Annotated[
    ExitCodes,
    BeforeValidator(_read_exit_codes),
    PlainSerializer(format_exit_codes, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 65535},
                {
                    "type": "string",
                    "pattern": r"^\s*[0-9]+\s*(-\s*[0-9]+\s*)?(,\s*[0-9]+\s*(-\s*[0-9]+\s*)?)*$",
                },
            ],
            "examples": ["0,2-5", 137],
        }
    ),
]
