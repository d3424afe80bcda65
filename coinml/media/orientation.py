"""How a decoded picture is turned and mirrored for display."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray


class Orientation(NamedTuple):
    """What makes a stored picture upright.

    Attributes:
        mirrored: The left and right side are exchanged first.
        clockwise: Then it is turned by these degrees: 0, 90, 180 or 270.
    """

    mirrored: bool = False
    clockwise: int = 0

    @property
    def exchanges_sides(self) -> bool:
        """Whether columns become rows."""
        return self.clockwise in (90, 270)

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture as it is shown; a view of `pixels` (height, width, 3)."""
        import numpy as np

        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, k=-self.clockwise // 90) if self.clockwise else pixels


def orientation_of(frame: VideoFrame) -> Orientation:
    """By the frame's display matrix, rounded to quarter turns; none for a broken matrix."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV lists no side data where it does not know one kind of it (Exif).
        matrix = None
    if matrix is not None:
        # Row vectors: x' = a * x + c * y, y' = b * x + d * y.
        a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
        if a * d - b * c < 0:
            # With x negated first, what remains is a rotation.
            return Orientation(True, round(math.degrees(math.atan2(-b, -a)) / 90) % 4 * 90)
    # FFmpeg's counter-clockwise angle, -180 to 180, or NaN as a large number.
    angle = frame.rotation
    return Orientation(False, round(-angle / 90) % 4 * 90 if -360 <= angle <= 360 else 0)
