"""Puts the stand-ins of `cairn_runtime.tools` where tasks find them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from cairn_runtime.tools import nc


def install(folder: Path) -> None:
    """Writes each as a program of its own, run by this interpreter whatever a task's PATH is."""
    folder.mkdir(exist_ok=True)
    source = Path(nc.__file__)
    shutil.copyfile(source, folder / source.name)
    program = folder / "nc"
    # Not the environment's own link to it: that may lie below /tmp, which tasks do not see.
    interpreter = Path(sys.executable).resolve()
    command = f"{shlex.quote(str(interpreter))} -I -S"
    program.write_text(
        f'#!/bin/sh\nexec {command} "$(dirname "$0")/{source.name}" "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
