"""Names that identify a process, so that others can tell whether it has died."""

from __future__ import annotations

import functools
import os
import platform
import pwd
import uuid
from pathlib import Path

from coinml.runtime.escaping import printable


def new_owner() -> str:
    """A unique name for one worker of this process: host, process id, start time, nonce."""
    pid = os.getpid()
    return f"{_host()}|{pid}|{process_start(pid)}|{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether the process behind a name ran on this host and has ended."""
    if not is_here(owner):
        return False
    _, pid, start, _ = owner.split("|")
    return process_start(int(pid)) != start


def is_here(owner: str) -> bool:
    """Whether the process behind a name ran or runs on this host, since it was last started."""
    parts = owner.split("|")
    return len(parts) == 4 and parts[0] == _host() and parts[1].isdecimal()


def process_start(pid: int) -> str:
    """When a process started, as an opaque string; "" when there is none.

    Process ids are reused; the start time tells two processes with one id apart.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""
    except ProcessLookupError:
        return ""
    else:
        state, *fields = stat.rpartition(")")[2].split()
        # A zombie keeps its id until its parent reaps it, but has ended.
        return "" if state == "Z" else fields[18]
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""


@functools.cache
def _host() -> str:
    # Containers on one machine share its boot id but not its process ids, so the PID namespace
    # is part of the name.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot, namespace = f"{uuid.getnode():x}", ""
    return f"{platform.node()}/{boot}/{namespace}"


def user_name() -> str:
    """The user of this process by the system's account, whatever the environment says."""
    try:
        return printable(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return f"user {os.getuid()}"
