"""What a supervised process runs first: it ties itself to the supervisor, then becomes the part.

Run as a program (`python -I -S launch.py ...`), with the standard library only: it is the few lines
between fork and exec that Python's `preexec_fn` cannot run safely once the parent has threads. It
becomes the part by `exec`, so the pid that the supervisor saw first is the part's pid.

    launch.py --parent PID --death-signal N --as plain|namespace:NAME|user:NAME -- PROGRAM [ARG...]

**Death signal.** The kernel sends it when the thread that started us ends, however that happens.
It is cleared by a change of credentials, so it is asked for last; and the parent may have died
before we asked, so it is compared with the one we were told about.

**Identity.** PostgreSQL refuses to run as uid 0, and `initdb` wants a uid that has a name. As root,
the usual answer (a system user, and folders opened for it) changes the rights of other people's
folders. Two ways do not:

* `namespace`: a user namespace in which our real uid is called by another number. The process sees
  geteuid() != 0; its files stay owned by us; outside the namespace it has no capability at all.
* `user`: for kernels and containers that refuse namespaces. The process becomes NAME and keeps one
  capability, CAP_DAC_OVERRIDE, so that it can reach its data below folders that are closed to
  others. It can read no more than a process of root could.

Exit codes: 120 the parent is gone, 121 the identity cannot be had, 126 the program cannot be run.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

PARENT_GONE = 120
NO_IDENTITY = 121
CANNOT_RUN = 126

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _call(function: str, *arguments: int | bytes | ctypes.Array[ctypes.c_uint32]) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def enter_namespace(name: str) -> None:
    """Call our uid and gid by those of the account `name`, in a user namespace of our own."""
    account = pwd.getpwnam(name)
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{account.pw_uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{account.pw_gid} {gid} 1")


def become_user(name: str) -> None:
    """Become the account `name`, keeping only the capability to reach our own closed folders."""
    account = pwd.getpwnam(name)
    _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << _CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)
    _call("capset", header, sets)
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def main(arguments: list[str]) -> int:
    """Do what the module says; returns only when it cannot."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    program = arguments[split + 1 :]
    kind, _, name = options.get("--as", "plain").partition(":")
    try:
        if kind == "namespace":
            enter_namespace(name)
        elif kind == "user":
            become_user(name)
    except (OSError, KeyError) as error:
        sys.stderr.write(f"cannot run {program[0]} as {kind} {name}: {error}\n")
        return NO_IDENTITY
    _call("prctl", _PR_SET_PDEATHSIG, int(options["--death-signal"]), 0, 0, 0)
    if os.getppid() != int(options["--parent"]):
        return PARENT_GONE
    # Python ignores SIGPIPE and SIGXFSZ; what is ignored stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(program[0], program)  # noqa: S606 - this is what it is for
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error}\n")
    return CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
