"""The Linux calls that Python 3.11 does not offer: namespaces, mounts and a few of prctl.

Each wrapper raises `OSError` with the kernel's errno and the object of the call, so that a
refused mount is reported with its path. Constants are from <sched.h>, <sys/mount.h>,
<linux/mount.h> and <linux/prctl.h>.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19

_MNT_DETACH = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_SYS_MOUNT_SETATTR = 442  # one number on every architecture

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, data: str = ""
) -> None:
    """mount(2); `kind` is the file system's type, `data` its options."""
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        target,
    )


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """Shows `source` at `target`, with the mounts below it when `recursive`."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))


def make_read_only(target: str) -> None:
    """Makes a mount and all mounts below it read-only. Needs Linux 5.12 (ENOSYS before).

    mount_setattr(2) only adds the flag: a remount would have to repeat every flag that a user
    namespace has locked, and is refused when it forgets one.
    """
    attributes = _MountAttr(attr_set=_MOUNT_ATTR_RDONLY)
    _check(
        _libc.syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(target.encode()),
            ctypes.c_uint(_AT_RECURSIVE),
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
        ),
        target,
    )


def detach(target: str) -> None:
    """Takes a mount and all below it out of sight; it ends when nothing uses it any more."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.pivot_root(new_root.encode(), put_old.encode()), new_root)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): enters the namespace that `descriptor` (below /proc/<pid>/ns) refers to."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def _prctl(option: int, value: int | bytes) -> int:
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    zero = ctypes.c_ulong(0)
    return int(_libc.prctl(ctypes.c_int(option), argument, zero, zero, zero))


def die_with_parent(signal: int) -> None:
    """Has the kernel send us `signal` when the process that is now our parent ends."""
    _check(_prctl(_PR_SET_PDEATHSIG, signal), "PR_SET_PDEATHSIG")


def hide_from_others() -> None:
    """Nobody without CAP_SYS_PTRACE may read this process's environment, memory or files."""
    _check(_prctl(_PR_SET_DUMPABLE, 0), "PR_SET_DUMPABLE")


def become_subreaper() -> None:
    """Makes orphaned descendants our children instead of the machine's init's."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER")


def set_process_name(name: str) -> None:
    """What `ps -o comm` shows, cut to 15 bytes by the kernel."""
    _check(_prctl(_PR_SET_NAME, name.encode()), "PR_SET_NAME")


_KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31})
"""What a container engine leaves to root, less mknod: chown, dac_override, fowner, fsetid, kill,
setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, audit_write, setfcap. With these
`tar`, `apt-get` and `su` work, and nothing can be mounted."""


def drop_capabilities() -> None:
    """Takes from root, at its next exec, all but `_KEPT_CAPABILITIES`.

    The bounding set limits what a program run by uid 0 gains from exec. An ordinary user in a
    user namespace needs no such call: exec clears its capabilities.
    """
    capability = 0
    while True:
        if capability not in _KEPT_CAPABILITIES and _prctl(_PR_CAPBSET_DROP, capability) < 0:
            return  # EINVAL: past the last capability that this kernel knows
        capability += 1
