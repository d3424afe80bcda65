"""The interface of a decoder: read chosen frames of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from coinml.errors import CoinmlError, LocalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coinml.media.open_file import VideoPath
    from coinml.media.timeline import Timeline

Keep = Callable[[int, "NDArray[np.uint8]"], None]
"""Called with a frame's number on the timeline and its upright pixels, uint8 (height, width, 3)."""


class DecoderUnsuitedError(CoinmlError):
    """This decoder cannot read the right frames of this file; another may."""


class DecoderMissingError(LocalError):
    """This decoder is not installed or does not load."""


class Decoder(Protocol):
    """Reads chosen frames of a file."""

    name: str

    def read(self, path: VideoPath, timeline: Timeline, numbers: Sequence[int], keep: Keep) -> None:
        """Call `keep` with each frame in `numbers` (ascending) that decodes.

        Raises:
            DecoderUnsuitedError: Another decoder should try.
            CorruptVideoError: The file does not open.
            DecoderMissingError: The decoder is not installed or does not load.
        """
        ...
