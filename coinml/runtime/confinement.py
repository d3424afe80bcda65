"""Giving up this process's access to files, the network and other processes, on Linux.

There are two layers, each of which refuses to open a file: Landlock (Linux 5.13; TCP since 6.7)
and seccomp (x86-64 and arm64). A kernel or a container may lack either of them. The packages on
PyPI are an alpha (`landlock`) and one without a release since 2021 that needs a library of the
system (`pyseccomp`), so the system calls are made here.

`python -m coinml.runtime.confinement` confines itself, tries what is forbidden, and prints what it
found as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import socket
import struct
import sys
from typing import NamedTuple

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_VERSION = 1
_NO_NEW_PRIVILEGES = 38
_CONNECT_AND_BIND_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000

_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # Opening and changing what has a path.
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "open_by_handle_at": (304, 265),
    "truncate": (76, 45),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "utimensat": (280, 88),
    # The network, and sockets of other processes.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # Other programs and processes.
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # Parts of the kernel that decoding does not need.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "setns": (308, 268),
    "unshare": (272, 97),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
}
"""System calls that are refused: their numbers on x86-64 and arm64."""
_CLONE, _CLONE3, _PRLIMIT = (56, 220), (435, 435), (302, 261)


class _Instruction(NamedTuple):
    """An instruction of the filter (classic BPF)."""

    code: int
    if_true: int
    if_false: int
    value: int


def confine() -> list[str]:
    """Give up opening files, sockets, other programs and other processes, for good.

    Files and sockets that are open stay usable. Modules must be imported before. Threads that
    already run are confined by seccomp only. Paths can still be looked up (whether there is a file,
    and its size).

    Returns:
        The layers that this system has, such as `["Landlock 7", "seccomp"]`.
    """
    if not sys.platform.startswith("linux"):
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return []
    layers = []
    if (version := _landlock(libc)) > 0:
        layers.append(f"Landlock {version}")
    if _seccomp(libc):
        layers.append("seccomp")
    return layers


def _landlock(libc: ctypes.CDLL) -> int:
    """Forbid everything that Landlock can; its version, or 0 where there is none."""
    version = int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION)))
    if version < 1:
        return 0
    # Version 1 has 13 rights on files; 2, 3 and 5 add one each.
    rights = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    handled = [rights]
    if version >= 4:
        handled.append(_CONNECT_AND_BIND_TCP)
    if version >= 6:
        handled.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    ruleset = libc.syscall(
        _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)
    )
    if ruleset < 0:
        return 0
    try:
        # Without a rule, nothing that is handled is allowed.
        done = libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0)) == 0
    finally:
        os.close(ruleset)
    return version if done else 0


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Refuse the forbidden system calls with EACCES; whether that was possible."""
    machine = platform.machine()
    if machine not in _SECCOMP or struct.calcsize("P") != 8:
        return False
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _filter(machine))
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    number = ctypes.c_long(_SECCOMP[machine])
    return bool(libc.syscall(number, _SET_FILTER, _ALL_THREADS, program) == 0)


def _filter(machine: str) -> list[_Instruction]:
    load, jump_equal, jump_at_least, jump_bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    column = list(_SECCOMP).index(machine)
    argument = 16
    refuse = _Instruction(give, 0, 0, _ERRNO | errno.EACCES)
    allow = _Instruction(give, 0, 0, _ALLOW)
    number = _Instruction(load, 0, 0, 0)
    code = [
        _Instruction(load, 0, 0, 4),
        _Instruction(jump_equal, 1, 0, _ARCHITECTURE[machine]),
        _Instruction(give, 0, 0, _KILL),
        number,
    ]
    if machine == "x86_64":
        code += [_Instruction(jump_at_least, 0, 1, _X32), _Instruction(give, 0, 0, _KILL)]
    code += [
        # glibc then uses clone, whose flags can be read here.
        _Instruction(jump_equal, 0, 1, _CLONE3[column]),
        _Instruction(give, 0, 0, _ERRNO | errno.ENOSYS),
        # Threads, and no processes.
        _Instruction(jump_equal, 0, 4, _CLONE[column]),
        _Instruction(load, 0, 0, argument),
        _Instruction(jump_bits, 0, 1, _CLONE_THREAD),
        allow,
        refuse,
        # Its own limits, and not those of another process.
        _Instruction(jump_equal, 0, 4, _PRLIMIT[column]),
        _Instruction(load, 0, 0, argument),
        _Instruction(jump_equal, 0, 1, 0),
        allow,
        refuse,
    ]
    forbidden = [n for calls in _FORBIDDEN.values() if (n := calls[column]) is not None]
    for call in forbidden:
        code += [_Instruction(jump_equal, 0, 1, call), refuse]
    return [*code, allow]


def _main() -> None:
    """Confine this process, try what is forbidden, and print what happened."""
    layers = confine()
    open_to = []
    with contextlib.suppress(OSError), open(sys.executable, "rb"):  # noqa: PTH123
        open_to.append("files")
    with contextlib.suppress(OSError), socket.socket():
        open_to.append("network")
    print(json.dumps({"layers": layers, "open_to": open_to}))


if __name__ == "__main__":
    _main()
