"""Confines a process that decodes an untrusted file: no new processes, no network, no other files, limited memory and time.

A process calls `confine` once, after all imports and before it reads the first hostile byte. It uses three features of
the kernel, each only if it exists. Landlock (from Linux 5.13 on) blocks every file that is not named. A seccomp filter
(on x86-64 and aarch64) blocks system calls. ``no_new_privs`` keeps a set-user-ID program from regaining rights. All
three bind root too, unlike RLIMIT_NPROC. The module imports only the standard library.

Sources of the numbers: the kernel's ``unistd_64.h`` and ``asm-generic/unistd.h``, ``linux/landlock.h``,
``linux/seccomp.h`` and ``linux/filter.h``.

    >>> confine(readable=["clip.mp4"], opens=True)       # doctest: +SKIP
    ('no_new_privs', 'landlock', 'seccomp')
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import stat
import struct
from collections.abc import Mapping, Sequence

_NO_NEW_PRIVS = 38
_TSYNC = 1  # the filter applies to every thread of the process

# ---------------------------------------------------------------------------------------------------- Landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_ASK_VERSION = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
# The number of file rights in each version of Landlock; the first has 13, from EXECUTE to MAKE_SYM.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}

# ----------------------------------------------------------------------------------------------------- seccomp

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _MACHINE, _FIRST = 0, 4, 16  # offsets in `struct seccomp_data` (of the first argument: its lower half)
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
# By machine: AUDIT_ARCH, and the numbers of seccomp, clone, tgkill and prlimit64.
_MACHINES = {"x86_64": (0xC000003E, 317, 56, 234, 302), "aarch64": (0xC00000B7, 277, 220, 131, 261)}
_CLONE3 = 435
# The number on x86-64 and on aarch64; None if the architecture has no such call.
_PROCESSES: tuple[tuple[int | None, int | None], ...] = (
    (57, None), (58, None), (59, 221), (322, 281),  # fork vfork execve execveat
    (101, 117), (310, 270), (311, 271), (312, 272),  # ptrace process_vm_readv process_vm_writev kcmp
    (62, 129), (200, 130), (129, 138), (297, 240), (424, 424), (438, 438),  # kill tkill the sigqueueinfos pidfd_send_signal pidfd_getfd
    (434, 434), (141, 140), (203, 122),  # pidfd_open setpriority sched_setaffinity
)  # fmt: skip
_NETWORK: tuple[tuple[int | None, int | None], ...] = (
    (41, 198), (53, 199), (42, 203), (49, 200), (50, 201), (43, 202), (288, 242),  # socket socketpair connect bind listen accept accept4
    (44, 206), (46, 211), (307, 269),  # sendto sendmsg sendmmsg
    (29, 194), (64, 190), (68, 186), (240, 180),  # shmget semget msgget mq_open, which reach other processes and outlive this one
    (425, 425), (426, 426), (427, 427),  # io_uring, which does all of this without a system call
)  # fmt: skip
_KERNEL: tuple[tuple[int | None, int | None], ...] = (
    (321, 280), (298, 241), (323, 282), (250, 219), (248, 217), (249, 218),  # bpf perf_event_open userfaultfd keyctl add_key request_key
    (165, 40), (166, 39), (155, 41), (161, 51), (272, 97), (308, 268), (304, 265),  # mount umount2 pivot_root chroot unshare setns open_by_handle_at
    (428, 428), (429, 429), (430, 430), (432, 432), (442, 442),  # open_tree move_mount fsopen fsmount mount_setattr
    (175, 105), (313, 273), (246, 104), (320, 294), (169, 142), (170, 161), (227, 112),  # modules kexec reboot sethostname clock_settime
)  # fmt: skip
_CHANGES: tuple[tuple[int | None, int | None], ...] = (
    (90, None), (91, 52), (268, 53), (452, 452), (92, None), (93, 55), (94, None), (260, 54),  # chmod and chown
    (188, 5), (189, 6), (190, 7), (197, 14), (198, 15), (199, 16), (280, 88), (235, None), (132, None), (261, None),  # xattrs times
    (87, None), (263, 35), (84, None), (82, None), (264, 38), (316, 276), (86, None), (265, 37),  # unlink rmdir rename link
    (88, None), (266, 36), (83, None), (258, 34), (133, None), (259, 33), (76, 45),  # symlink mkdir mknod truncate
)  # fmt: skip
_OPENS: tuple[tuple[int | None, int | None], ...] = (
    (2, None), (85, None), (257, 56), (437, 437),  # open creat openat openat2
)  # fmt: skip


def limit(limits: Mapping[int, int], cpu_s: int) -> None:
    """Lower limits of this process (`resource`) and its processor time, and forbid core dumps; none is ever raised.

    At the hard limit of processor time the kernel sends SIGKILL, which may also come from another process. At the soft
    one, five seconds before, it sends SIGXCPU, which shows that the file was the cause.
    """
    for kind, value in {**limits, resource.RLIMIT_CORE: 0}.items():
        lower = _lower(value, resource.getrlimit(kind)[1])
        resource.setrlimit(kind, (lower, lower))
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    hard = _lower(cpu_s + 5, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (_lower(min(cpu_s, hard), soft), hard))


def _lower(value: int, before: int) -> int:
    return value if before == resource.RLIM_INFINITY else min(value, before)


def confine(
    readable: Sequence[str | os.PathLike[str]] = (),
    writable: Sequence[str | os.PathLike[str]] = (),
    *,
    opens: bool = False,
) -> tuple[str, ...]:
    """Give up everything but the threads, the memory and the open descriptors of this process.

    Args:
        readable: Files that may still be opened for reading; a folder stands for all files in it.
        writable: Existing files that may also be opened for writing. No file can be created, removed or renamed.
        opens: Whether the calls that open files stay allowed; without Landlock they then open any file.

    Returns:
        The features that this kernel has, of ``no_new_privs``, ``landlock`` and ``seccomp``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return ()
    had = ["no_new_privs"]
    if _landlock(libc, readable, writable):
        had.append("landlock")
    if _seccomp(libc, opens=opens):
        had.append("seccomp")
    return tuple(had)


def _landlock(
    libc: ctypes.CDLL, readable: Sequence[str | os.PathLike[str]], writable: Sequence[str | os.PathLike[str]]
) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return False
    handled = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    # Files; TCP from version 4 on; abstract sockets and signals to others from version 6 on.
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        for paths, rights in ((readable, _READ_FILE), (writable, _READ_FILE | _WRITE_FILE | _TRUNCATE)):
            for path in paths:
                _allow(libc, ruleset, path, rights & handled)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str | os.PathLike[str], rights: int) -> None:
    """Add a rule for one file, or for a folder and all files in it; a path that cannot be opened needs no rule."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            rights |= _READ_DIR
        libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _seccomp(libc: ctypes.CDLL, *, opens: bool) -> bool:
    machine = os.uname().machine
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        return False
    program = b"".join(_program(machine, opens=opens))
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    return bool(libc.syscall(_MACHINES[machine][1], 1, _TSYNC, described) == 0)


def _program(machine: str, *, opens: bool) -> list[bytes]:
    """The filter in the kernel's classic BPF: blocked calls fail with EPERM (clone3 with ENOSYS), others pass."""
    audit, _, clone, tgkill, prlimit = _MACHINES[machine]
    column = 0 if machine == "x86_64" else 1
    lists = (_PROCESSES, _NETWORK, _KERNEL, _CHANGES, () if opens else _OPENS)
    numbers = [pair[column] for given_up in lists for pair in given_up]
    fails = _step(_RETURN, _FAIL | errno.EPERM)
    program = [
        _step(_LOAD, _MACHINE),
        _step(_EQUAL, audit, then=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, otherwise=1),
        fails,
        # If clone3 is unknown, C libraries use the older clone, whose flags a filter can read.
        _step(_EQUAL, _CLONE3, otherwise=1),
        _step(_RETURN, _FAIL | errno.ENOSYS),
    ]
    for number in filter(None, numbers):
        program += [_step(_EQUAL, number, otherwise=1), fails]
    program += _first_argument(clone, _step(_ANY_BIT, _CLONE_THREAD, then=1))
    program += _first_argument(tgkill, _step(_EQUAL, os.getpid(), then=1))  # abort() signals its own process
    program += _first_argument(prlimit, _step(_EQUAL, 0, then=1))
    return [*program, _step(_RETURN, _ALLOW)]


def _first_argument(number: int, test: bytes) -> list[bytes]:
    """The steps for one call: it passes if ``test`` of its first argument jumps over the failure."""
    fails, passes = _step(_RETURN, _FAIL | errno.EPERM), _step(_RETURN, _ALLOW)
    return [_step(_EQUAL, number, otherwise=4), _step(_LOAD, _FIRST), test, fails, passes]


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction; a jump is the number of instructions to skip."""
    return struct.pack("=HBBI", code, then, otherwise, value)
