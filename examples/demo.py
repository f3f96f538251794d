"""What `make demo` shows: the whole system on this machine, a real workflow, its logs and results.

Everything lives in a temporary folder and is gone at the end.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).parent
CAIRN = Path(sys.executable).parent / "cairn"


def say(text: str) -> None:
    """A heading, bold on a terminal."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def cairn(*arguments: str, quiet: bool = False) -> str:
    """Run a command as a person would type it; show it and what it prints.

    Raises:
        SystemExit: it failed.
    """
    if not quiet:
        say(f"$ cairn {shlex.join(arguments)}")
    result = subprocess.run(
        [CAIRN, *arguments], text=True, stdout=subprocess.PIPE if quiet else None, check=False
    )
    if result.returncode:
        raise SystemExit(f"the demo stops here: cairn {arguments[0]} gave {result.returncode}")
    return result.stdout or ""


def main() -> None:
    """Tell the story once."""
    with tempfile.TemporaryDirectory(prefix="cairn-demo-") as home:
        os.environ["CAIRN_HOME"] = home
        os.environ.pop("CAIRN_URL", None)
        started = time.monotonic()
        cairn("up", "--detach")
        try:
            tell(Path(home))
        finally:
            cairn("down")
    say(f"That was all of it, in {time.monotonic() - started:.0f} seconds.")


def tell(home: Path) -> None:
    """Submit, read the log as it comes, look, follow another one, find the results."""
    workflow = str((EXAMPLES / "pipeline.yaml").relative_to(Path.cwd()))
    cairn("workflow", "submit", workflow)
    cairn("workflow", "logs", "pipeline-1")  # streams while it runs, ends with it
    cairn("workflow", "query", "pipeline-1")
    facts = json.loads(
        cairn("workflow", "query", "pipeline-1", "--format-type", "json", quiet=True)
    )
    if facts["status"] != "COMPLETED":
        raise SystemExit(f"the workflow ended {facts['status']}")
    cairn("workflow", "submit", str(Path(workflow).with_name("serial.yaml")), "--follow")
    say("What the tasks left in the store:")
    for file in sorted((home / "store").rglob("*")):
        if file.is_file():
            print(f"  {file.relative_to(home)}  {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
