"""Ways to bring decoded frames to an encoder's input size, in CPU milliseconds a clip of 16 frames.

    python benchmarks/resize.py

Each way starts from the decoder's YUV pictures and ends with 224 x 224 RGB. "Apart" is the mean
distance of the pixels, of 255, from the processor of transformers (PIL on the full RGB picture).
Pictures are those of real clips if `../shared/data` exists, and drawn ones. One thread.

coinml converts with swscale at the full size and resizes with torch. The exit code is 1 if another
way is cheaper whose pixels are as near to the processor's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from transformers import VideoMAEImageProcessorPil

from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.resampling import resample

FRAMES, SIDE, ROUNDS = 16, 224, 7
NEAR = 0.1
"""Mean distance up to which a way is as near to the processor as coinml's, whose distance is 0."""
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips"
PREPROCESSOR = Preprocessor(resize=SIDE, crop=(SIDE, SIDE))
REFORMATTER = VideoReformatter()
Pictures = Sequence[av.VideoFrame]


def main() -> int:
    torch.set_num_threads(1)
    print("| pictures | way | CPU ms a clip | apart | |\n| --- | --- | --- | --- | --- |")
    is_cheapest = True
    for name, frames in pictures():
        wanted = by_processor(frames)
        found = {way: measured(work, frames) for way, work in WAYS.items()}
        todays = found["full size, torch"][0]
        for way, (cpu_ms, pixels) in found.items():
            apart = float(np.abs(pixels.astype(float) - wanted).mean())
            is_better = apart < NEAR and cpu_ms < todays
            is_cheapest &= not is_better
            verdict = "cheaper and near" if is_better else "" if apart < NEAR else "not near"
            print(f"| {name} | {way} | {cpu_ms:.1f} | {apart:.2f} | {verdict} |", flush=True)
    return 0 if is_cheapest else 1


def pictures() -> list[tuple[str, Pictures]]:
    """The first frames of a few files, and drawn ones, as the decoder returns them."""
    found: list[tuple[str, Pictures]] = [
        (f"drawn, {width} x {height}", drawn(height, width))
        for height, width in ((360, 640), (720, 1280), (240, 320))
    ]
    for pattern in ("fall/*", "fight/*", "misc/*"):
        for path in sorted(REAL.glob(pattern))[:1]:
            with av.open(str(path)) as container:
                frames = list(islice(container.decode(video=0), FRAMES))
            if len(frames) == FRAMES:
                found.append((f"real, {frames[0].width} x {frames[0].height}", frames))
    return found


def drawn(height: int, width: int) -> Pictures:
    """Soft shapes with fine noise, as YUV."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width]
    frames = []
    for t in range(FRAMES):
        waves = [
            128 + 100 * np.sin(columns / (11 + 3 * c) + t / 3) * np.cos(rows / (17 - 2 * c))
            for c in range(3)
        ]
        picture = np.stack(waves, axis=-1) + rng.normal(0, 4, (height, width, 3))
        rgb = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format="rgb24")
        frames.append(rgb.reformat(format="yuv420p"))
    return frames


def converted(frames: Pictures, **wanted: Any) -> np.ndarray:
    """RGB of shape (N, height, width, 3) by swscale."""
    return np.stack(
        [REFORMATTER.reformat(f, format="rgb24", **wanted).to_ndarray() for f in frames]
    )


def by_torch(frames: Pictures) -> np.ndarray:
    return PREPROCESSOR.resized(torch.from_numpy(converted(frames))).numpy()


def by_products(frames: Pictures) -> np.ndarray:
    """Resize what the crop keeps by two matrix products, as on a GPU."""
    rgb = torch.from_numpy(converted(frames))
    size, rows, columns = placed(frames)
    return resample(rgb, size, rows, columns, interpolation="bilinear").numpy()


def by_swscale(interpolation: Interpolation) -> Callable[[Pictures], np.ndarray]:
    def resize(frames: Pictures) -> np.ndarray:
        (height, width), rows, columns = placed(frames)
        small = converted(frames, width=width, height=height, interpolation=interpolation)
        return np.ascontiguousarray(small[:, slice(*rows), slice(*columns)].transpose(0, 3, 1, 2))

    return resize


def placed(frames: Pictures) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Size before the crop, and the rows and columns that the crop keeps."""
    size = PREPROCESSOR.target_size(frames[0].height, frames[0].width)
    top, left = ((length - SIDE) // 2 for length in size)
    return size, (top, top + SIDE), (left, left + SIDE)


WAYS: dict[str, Callable[[Pictures], np.ndarray]] = {
    "full size, torch": by_torch,
    "full size, crop by two matrix products": by_products,
    "swscale to the size, area": by_swscale(Interpolation.AREA),
    "swscale to the size, bilinear": by_swscale(Interpolation.BILINEAR),
    "swscale to the size, bicubic": by_swscale(Interpolation.BICUBIC),
}


def by_processor(frames: Pictures) -> np.ndarray:
    given = list(converted(frames))
    made = VideoMAEImageProcessorPil()(
        [given], do_normalize=False, do_rescale=False, return_tensors="np"
    )
    return np.asarray(made["pixel_values"][0])


def measured(work: Callable[[Pictures], np.ndarray], frames: Pictures) -> tuple[float, np.ndarray]:
    """The least CPU milliseconds of some rounds, and the result."""
    result = work(frames)
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        result = work(frames)
        seconds.append(time.process_time() - start)
    return 1000 * min(seconds), result


if __name__ == "__main__":
    sys.exit(main())
