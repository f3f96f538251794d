"""Nothing of a test cluster outlives the tests, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from cairn_standalone.state import Identity

_OWNER = """
import sys, time
from pathlib import Path
from testcluster.processes import Process
process = Process("part", ["/bin/sh", "-c", "sleep 600"], Path(sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


def test_a_part_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent)},
    )
    with owner:
        assert owner.stdout is not None
        part = Identity.of(int(owner.stdout.readline()))
        assert part is not None
        assert part.alive
        owner.send_signal(signal.SIGKILL)
    assert part.wait(10)
