"""Reading a workflow's local files into it, which only its author's own machine can do.

`files: [{localpath: run.sh, path: /tmp/run.sh}]` becomes the same entry with `contents`. The text
is edited in place by the positions of its YAML events, so comments, order and every other line
stay as they were; a double-quoted scalar holds any text on one line.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from pathlib import Path

from cairn_common.spec.positions import Place, walk
from cairn_common.spec.problems import ErrorCode, Location, Problem, SpecError
from cairn_common.spec.yamltext import parse_yaml

MAX_LOCAL_FILE = 8 * 1024 * 1024
_ESCAPED = re.compile('["\\\\\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]')


def inline_local_files(text: str, base_dir: Path, *, file: str = "workflow.yaml") -> str:
    """The same workflow with the contents of its local files in it.

    Relative paths start at `base_dir`, the folder of the workflow file. A file that is not UTF-8 is
    written as base64. `text` must be plain YAML: fill in templates first. Raises SpecError for
    paths that are missing, no regular file, unreadable or larger than `MAX_LOCAL_FILE` bytes.
    """
    if "localpath" not in text:
        return text
    parse_yaml(text, file=file)
    problems: list[Problem] = []
    edits: list[tuple[int, int, str]] = []
    for location, entry, flow in _file_entries(text):
        place = entry.get("localpath")
        if place is None or place.key is None:
            continue
        data = _read(base_dir, place.text)
        if "contents" in entry:
            data = "has both localpath and contents"
        if isinstance(data, str):
            problem = Problem(
                f"localpath {place.text}: {data}",
                (*location, "localpath"),
                ErrorCode.USAGE,
                f"Paths start at the folder of the workflow file, {base_dir}.",
                file,
            )
            source = text.split("\n")[place.start.line]
            problems.append(problem.at(place.start.line + 1, place.start.column + 1, source))
            continue
        start, end = place.key.index, place.end.index
        tail = "\n" if text[start:end].endswith("\n") else ""
        separator = ", " if flow else "\n" + " " * place.key.column
        flagged = "base64" in entry and entry["base64"].text.lower() in {"true", "yes", "on"}
        fields = _fields(data, already_base64=flagged)
        edits.append((start, end, separator.join(fields) + tail))
    if problems:
        raise SpecError(problems)
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return text


def _read(base_dir: Path, given: str) -> bytes | str:
    """The bytes of a local file, or what is wrong with it."""
    path = base_dir / given
    try:
        if path.is_dir():
            return "is a folder; only files can be put into a task this way"
        if not path.is_file():
            return "does not exist" if not path.exists() else "is not a regular file"
        if path.stat().st_size > MAX_LOCAL_FILE:
            return f"is larger than {MAX_LOCAL_FILE:,} bytes; bring it as an input"
        return path.read_bytes()
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"


def _fields(data: bytes, *, already_base64: bool) -> list[str]:
    """The YAML fields that stand for a file's bytes."""
    if not already_base64:
        try:
            return [f"contents: {_quoted(data.decode('utf-8'))}"]
        except UnicodeDecodeError:
            pass  # no text: base64
    encoded = f'contents: "{base64.b64encode(data).decode("ascii")}"'
    return [encoded] if already_base64 else [encoded, "base64: true"]


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar on one line."""
    special = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return '"' + _ESCAPED.sub(lambda m: special.get(m[0]) or f"\\u{ord(m[0]):04x}", text) + '"'


def _file_entries(text: str) -> list[tuple[Location, dict[str, Place], bool]]:
    """The entries of all `files` lists: location, fields by name, and whether in flow style."""
    fields: dict[Location, dict[str, Place]] = defaultdict(dict)
    entries: list[tuple[Location, dict[str, Place], bool]] = []
    for place in walk(text):
        location = place.location
        if location[-3:-2] == ("files",):
            fields[location[:-1]][str(location[-1])] = place
        elif location[-2:-1] == ("files",):
            entries.append((location, fields.pop(location, {}), place.flow))
    return entries
