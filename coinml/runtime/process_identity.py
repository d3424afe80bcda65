"""Whose a lease or a run is: a process that can be told to be dead by whoever comes later."""

from __future__ import annotations

import functools
import os
import platform
import uuid
from pathlib import Path


def new_owner() -> str:
    """A name for one worker of this process, unlike any other's."""
    pid = os.getpid()
    return f"{_host()}|{pid}|{process_start(pid)}|{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether the process behind a name ran on this host and does so no more."""
    parts = owner.split("|")
    if len(parts) != 4 or parts[0] != _host():
        return False
    return process_start(int(parts[1])) != parts[2]


def process_start(pid: int) -> str:
    """When a process began, as an opaque word; "" when there is none.

    A process id is given out again sooner or later; the start tells its bearers apart.
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
        # A zombie holds its id until its parent looks, but does no work any more.
        return "" if state == "Z" else fields[18]
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""


@functools.cache
def _host() -> str:
    # Containers on one machine share its boot id, not its process ids: the namespace counts too.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot, namespace = f"{uuid.getnode():x}", ""
    return f"{platform.node()}/{boot}/{namespace}"
