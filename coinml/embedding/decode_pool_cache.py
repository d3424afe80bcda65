"""Decoding processes that are reused from shard to shard."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coinml.media import DecodePool
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    from coinml.encoder.clip_encoder import ClipEncoder

_KEEP_S = 30.0
"""Idle processes hold memory for decoded frames: gigabytes, if there are many processes."""


def decode_pool(encoder: ClipEncoder, *, workers: int | None = None) -> DecodePool:
    """Decoding processes whose frames the encoder's device reads directly where it can.

    Args:
        encoder: The encoder that will take the frames.
        workers: Number of processes; if None, the number of CPUs.
    """
    return DecodePool(workers=workers or cpu_count(), pin=encoder.pin)


class DecodePoolCache:
    """Lends out a decode pool and keeps it open for a while afterwards; thread-safe.

    Args:
        keep_s: Seconds until an unused pool is closed.
    """

    def __init__(self, keep_s: float = _KEEP_S) -> None:
        self._keep_s = keep_s
        self._idle: tuple[str, DecodePool] | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    @contextmanager
    def pool(self, encoder: ClipEncoder) -> Iterator[DecodePool]:
        """The idle pool for the encoder's device, or a new one.

        If the block fails, the pool is closed: its pending requests are no longer needed.
        """
        device = str(encoder.device)
        pool = self._take(device) or decode_pool(encoder)
        try:
            yield pool
        except BaseException:
            pool.close()
            raise
        self._keep(device, pool)

    def close(self) -> None:
        """Close the idle pool."""
        with self._lock:
            idle, self._idle = self._idle, None
            if self._timer is not None:
                self._timer.cancel()
        if idle is not None:
            idle[1].close()

    def _take(self, device: str) -> DecodePool | None:
        with self._lock:
            if self._idle is None or self._idle[0] != device:
                return None
            pool, self._idle = self._idle[1], None
            if self._timer is not None:
                self._timer.cancel()
        return pool

    def _keep(self, device: str, pool: DecodePool) -> None:
        self.close()
        with self._lock:
            extra, self._idle = self._idle, (device, pool)
            self._timer = threading.Timer(self._keep_s, self._close_if_idle, [pool])
            self._timer.daemon = True
            self._timer.start()
        if extra is not None:
            extra[1].close()

    def _close_if_idle(self, pool: DecodePool) -> None:
        with self._lock:
            if self._idle is None or self._idle[1] is not pool:
                return
            self._idle = None
        pool.close()
