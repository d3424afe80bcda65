"""The verdict on one file, from a full decode in a process that may hang or crash."""

from __future__ import annotations

from pathlib import Path

from coinml.media.decode_pool import DecodePool
from coinml.media.full_decode import decode_fully
from coinml.media.records import Verdict


def check(path: str | Path, *, deadline_s: float | None = 30) -> Verdict:
    """Decode every frame of a file and return the verdict.

    With a deadline, the decode runs in a process that is killed at the deadline. For many files
    use a `DecodePool`, which starts its processes once.

    Args:
        path: The file.
        deadline_s: Seconds that the decode may take; None decodes in this process, which hangs
            or crashes with the decoder.

    Raises:
        InvalidInputError: There is no such file.
        LocalError: The file may not be read.
    """
    if deadline_s is None:
        return decode_fully(path)
    with DecodePool(workers=1) as pool:
        return pool.check(path, deadline_s=deadline_s)
