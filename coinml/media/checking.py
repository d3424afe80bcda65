"""The verdict on one file, whatever its decode does to the process that it runs in."""

from __future__ import annotations

from pathlib import Path

from coinml.media.decode_pool import DecodePool
from coinml.media.full_decode import decode_fully
from coinml.media.records import Verdict


def check(path: str | Path, *, deadline_s: float | None = 30) -> Verdict:
    """Decode every frame of a file and say whether it is fit for use.

    With a deadline the decode runs in a process of its own that is killed when time is up;
    for many files a `DecodePool` spares the start of a process each.

    Args:
        path: The file.
        deadline_s: Seconds the decode may take; None decodes in this process, which a
            hanging or crashing decoder then takes with it.

    Raises:
        InvalidInputError: There is no such file.
        LocalError: This machine does not let us read it.
    """
    if deadline_s is None:
        return decode_fully(path)
    with DecodePool(workers=1) as pool:
        return pool.check(path, deadline_s=deadline_s)
