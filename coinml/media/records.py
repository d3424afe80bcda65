"""The records that the media functions take and return."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Snap = Literal["exact", "keyframe"]
"""Where a clip begins: at its `exact` time, or at the nearest `keyframe`."""

ShortPolicy = Literal["repeat_last", "wrap", "error"]
"""How a clip longer than the video is filled: by repeating the last frame, by starting over, or
not at all (an error)."""

DecoderName = Literal["auto", "pyav", "decord", "torchcodec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """The properties of a video by its header.

    Attributes:
        duration_s: Length in seconds by the header; by the packets where they tell otherwise
            (times that jump or begin late). None if neither states it.
        width: Width in pixels, after rotation.
        height: Height in pixels, after rotation.
        fps: Average frames per second, None where not stated.
        frames_claimed: Number of frames, None where not stated.
        codec: Name of the codec ("h264").
        rotation: Clockwise rotation for display: 0, 90, 180 or 270 degrees.
        mirrored: Left and right are exchanged for display, before the rotation.
    """

    duration_s: float | None
    width: int
    height: int
    fps: float | None
    frames_claimed: int | None
    codec: str
    rotation: int
    mirrored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a full decode.

    Attributes:
        file: The path as given.
        verdict: `unusable` if no frame decodes, `damaged` if frames are lost or decoding raises
            an error, otherwise `ok`.
        frames_claimed: Number of frames by the header, None where not stated.
        frames_decoded: Number of frames that decode.
        reason: Why the verdict is not `ok`, in words; for an `ok` file with fewer frames than its
            header states, the reason for that; otherwise None.
        duration_s: Decoded length in seconds: time from the first to the last frame plus one
            frame, with corrected times and without gaps that hold no film; None if no frame
            decodes.
        earliest_s: Smallest presentation time of a frame in seconds, as stated by the file; None
            if none is stated.
        latest_s: Greatest one.
        short_side_px: Shorter side of the first frame in pixels; None if no frame decodes.
    """

    file: str
    verdict: Literal["ok", "damaged", "unusable"]
    frames_claimed: int | None
    frames_decoded: int
    reason: str | None
    duration_s: float | None = None
    earliest_s: float | None = None
    latest_s: float | None = None
    short_side_px: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields that `coinml check --json` prints."""
        others = ("duration_s", "earliest_s", "latest_s", "short_side_px")
        return {name: value for name, value in asdict(self).items() if name not in others}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """How clips are placed in a video.

    The extent is divided into `clips` equal parts, with a clip of `frames` frames in the middle
    of each, or at another `place`. Clips longer than their parts overlap.

    With `exact`, a clip consists of the frames nearest to the wanted times.

    With `keyframe`, which decodes only a fraction of the frames:

    1. A clip begins at the key frame nearest to its exact start, early enough for the whole clip
       to fit in the extent. No two clips share a key frame; the sum of the shifts is minimal.
    2. If there are too few key frames, the remaining clips begin at the nearest reference frames.
    3. A clip's other frames are the reference frames nearest to the wanted times; if there is
       none within half a stride, the nearest frame of any kind.
    4. Reference frames are known for H.264 and HEVC. In other codecs, and in files without
       presentation times, all frames count as reference frames.
    5. In a video shorter than a clip, clips are placed as with `exact`.

    Attributes:
        clips: Number of clips per video.
        frames: Number of frames per clip.
        stride: Distance between a clip's frames, in frames at the video's average rate.
        snap: Where a clip begins.
        short: How a clip longer than the video is filled.
        place: Where in its part a clip lies, from 0 to 1. A single clip begins with the extent at
            0 and ends with it at 1.
    """

    clips: int = 8
    frames: int = 16
    stride: int = 4
    snap: Snap = "exact"
    short: ShortPolicy = "repeat_last"
    place: float = 0.5

    def __post_init__(self) -> None:
        for name in ("clips", "frames", "stride"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.snap not in get_args(Snap):
            raise InvalidInputError(f"snap {self.snap!r} is unknown; known: {get_args(Snap)}")
        if self.short not in get_args(ShortPolicy):
            raise InvalidInputError(
                f"short-video policy {self.short!r} is unknown; known: {get_args(ShortPolicy)}"
            )
        if not 0 <= self.place <= 1:
            raise InvalidInputError(f"place must be from 0 to 1, not {self.place}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledClips:
    """The clips of one video.

    Attributes:
        frames: uint8 (clips, frames, height, width, 3), RGB, turned upright.
        timestamps_s: float64 (clips, frames): presentation time of each frame in seconds, as
            stated by the file.
        decoder: The decoder of the pixels: `decord`, `pyav` or `torchcodec`.
        frames_decoded: Number of distinct frames read from the file.
        frames_substituted: Number of entries of `frames` whose frame did not decode and was
            replaced by the nearest decoded one. Repeats by the short-video policy do not count.
    """

    frames: NDArray[np.uint8]
    timestamps_s: NDArray[np.float64]
    decoder: str
    frames_decoded: int
    frames_substituted: int

    def without_frames(self) -> SampledClips:
        """The same without pixels, so that their memory can be freed."""
        return replace(self, frames=self.frames[:0].copy())

    def __repr__(self) -> str:
        return (
            f"SampledClips(frames={self.frames.shape}, decoder={self.decoder!r}, "
            f"frames_decoded={self.frames_decoded}, frames_substituted={self.frames_substituted})"
        )
