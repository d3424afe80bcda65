"""Decoding processes that stay from shard to shard."""

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
"""Idle processes hold memory for decoded frames, gigabytes where there are many of them."""


def decode_pool(encoder: ClipEncoder, *, workers: int | None = None) -> DecodePool:
    """Decoding processes whose frames an encoder's device reads directly where it can.

    Args:
        encoder: What the frames are for.
        workers: Their number; as many as there are processors if None.
    """
    return DecodePool(workers=workers or cpu_count(), pin=encoder.pin)


class KeptDecoders:
    """Hands out decoding processes and keeps them for a while afterwards; threads may use it.

    Args:
        keep_s: Seconds until processes that nobody uses are ended.
    """

    def __init__(self, keep_s: float = _KEEP_S) -> None:
        self._keep_s = keep_s
        self._idle: tuple[str, DecodePool] | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    @contextmanager
    def pool(self, encoder: ClipEncoder) -> Iterator[DecodePool]:
        """Those that are idle, or new ones.

        If the block fails they are ended: what was asked of them for it would be decoded for
        nothing.
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
        """End those that are idle."""
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
            self._timer = threading.Timer(self._keep_s, self._end, [pool])
            self._timer.daemon = True
            self._timer.start()
        if extra is not None:
            extra[1].close()

    def _end(self, pool: DecodePool) -> None:
        with self._lock:
            if self._idle is None or self._idle[1] is not pool:
                return
            self._idle = None
        pool.close()
