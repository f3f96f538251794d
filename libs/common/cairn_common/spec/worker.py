"""The process that renders and parses untrusted text: `python -m cairn_common.spec.worker`.

It reads requests from standard input and answers on standard output, both one socket. A request is
an 8-byte big-endian length and JSON; an answer has one more byte in between, see `_send`. Answers
are JSON on purpose: whoever breaks out of the template sandbox here can write lies about one
workflow, but nothing that its parent would execute. Before each request it limits its own address
space and sets an alarm that kills it; when its standard input ends, so does it.
"""

from __future__ import annotations

import gc
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from cairn_common.spec.limits import Limits
from cairn_common.spec.load import load_workflow
from cairn_common.spec.problems import SpecError
from cairn_common.spec.refusals import too_much_memory

_HEADER = 8
# Objects are collected by reference counts during a request; a full collection over millions of
# new dicts would cost more than the parse.
_BIG_REQUEST = 1 << 20


def main() -> int:
    """Serve requests until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    gc.freeze()
    gc.disable()
    _send(answers, {"ready": True})
    while (request := _receive(requests)) is not None:
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        _limit_memory(request["memory_bytes"])
        answer = _answer(request)
        _limit_memory(None)
        _send(answers, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if answer.get("exhausted"):
            # The heap is full of fragments of what did not fit: a new process is cleaner.
            # The parent knows, and starts one.
            return 0
        if len(request["text"]) > _BIG_REQUEST:
            gc.collect()
    return 0


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    file = request["file"]
    try:
        loaded = load_workflow(
            request["text"],
            file=file,
            set_variables=request["set_variables"],
            set_string_variables=request["set_string_variables"],
            env_vars=request["env_vars"],
            limits=Limits(**request["limits"]),
            templates=request["templates"],
        )
        spec = loaded.spec.model_dump_json(by_alias=True, exclude_defaults=True)
        rendered = None if loaded.rendered == loaded.template else loaded.rendered
        return {
            "spec": spec,
            "rendered": rendered,
            "warnings": loaded.warnings,
            "written_as_tasks": loaded.spec.written_as_tasks,
        }
    except SpecError as error:
        return {
            "problems": [problem.to_wire() for problem in error.problems],
            "rendered": error.rendered,
            "exhausted": too_much_memory(file) in error.problems,
        }
    except MemoryError:
        return {"problems": [too_much_memory(file).to_wire()], "rendered": None, "exhausted": True}


def _limit_memory(extra: int | None) -> None:
    """Allow the address space of now plus `extra` bytes; None lifts the limit."""
    soft = resource.RLIM_INFINITY
    if extra is not None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        soft = pages * resource.getpagesize() + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard not in (resource.RLIM_INFINITY, -1):
        soft = min(soft, hard) if soft != resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _receive(stream: BinaryIO) -> dict[str, Any] | None:
    header = stream.read(_HEADER)
    if len(header) < _HEADER:
        return None
    body = stream.read(int.from_bytes(header, "big"))
    request: dict[str, Any] = json.loads(body)
    return request


def _send(stream: BinaryIO, answer: dict[str, Any]) -> None:
    """Length, whether this process ends now (1) or goes on (0), and the answer."""
    body = json.dumps(answer).encode()
    ends = bytes([bool(answer.get("exhausted"))])
    stream.write(len(body).to_bytes(_HEADER, "big") + ends + body)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
