"""Sampling 8 clips of 16 frames with coinml's decoder and with decord, one thread each.

The videos are synthetic, with an audio track: 360p H.264 by x264's defaults with long GOPs, with
short GOPs, and with key frames only. Both sides read the same files in turn, and `exact` must give
decord's pixels. decord gets the frame numbers; coinml's time includes finding them. Real clips are
measured too if `../shared/data` exists.

Prints the medians, their ratios with the required ones, and the lower bounds; the exit code is 1
if a ratio falls short.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from coinml import media
from coinml.errors import CoinmlError
from coinml.media.clip_placement import place_clips
from coinml.media.container import listen_to, open_video
from coinml.media.pyav_decoder import RangeDecoder, packet_ranges
from coinml.media.timeline import Timeline, read_timeline

try:
    import decord
except ImportError:
    sys.exit("decord is not installed here (it has wheels for x86-64 only): nothing to compare")

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPEATS = 9
REAL_REPEATS, MOST_REAL = 3, 6
"""Repeats per real clip, and clips per folder: real clips are many and long."""
HEIGHT, WIDTH, FPS = 360, 640, 30
SCENE_S = 20
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A synthetic file and the required ratios.

    Attributes:
        name: Name of the case.
        seconds: Length of the video.
        gop: Greatest distance between key frames, in frames.
        exact: Least ratio of decord's time to coinml's.
        keyframe: The same for clips that begin at key frames.
    """

    name: str
    seconds: int
    gop: int
    exact: float
    keyframe: float


CASES = (
    Case(name="GOP 250", seconds=120, gop=250, exact=1.2, keyframe=2.0),
    Case(name="GOP 150", seconds=60, gop=150, exact=1.2, keyframe=2.0),
    Case(name="GOP 12", seconds=40, gop=12, exact=1.0, keyframe=1.0),
    Case(name="key frames only", seconds=20, gop=1, exact=1.0, keyframe=1.0),
)


def main() -> int:
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            path = Path(folder) / f"{case.gop}.mp4"
            media.write_video(
                Path(folder) / "silent.mp4", draw(case.seconds), fps=FPS, gop=case.gop, crf=25
            )
            add_sound(Path(folder) / "silent.mp4", path)
            missed += compare(case.name, [path], case.exact, case.keyframe)
    for folder_name in ("misc", "fall", "fight", "asl_gesture"):
        files = sorted((REAL / folder_name).glob("*")) if REAL.is_dir() else []
        if files := [path for path in files if decord_reads(path)][:MOST_REAL]:
            missed += compare(f"real clips: {folder_name}", files, 1.0, 1.0, REAL_REPEATS)
    return 1 if missed else 0


def compare(
    name: str,
    files: list[Path],
    exact_at_least: float,
    keyframe_at_least: float,
    repeats: int = REPEATS,
) -> int:
    """Measure both sides on files; return the number of ratios that fall short."""
    specs = {snap: media.ClipSpec(snap=snap) for snap in ("exact", "keyframe")}
    numbers = {
        (path, snap): place_clips(read_timeline(path), spec)
        for path in files
        for snap, spec in specs.items()
    }
    check_pixels(specs, numbers)
    runs: dict[str, Callable[[Path], object]] = {
        "decord": lambda path: by_decord(path, numbers[path, "exact"]),
        "exact": lambda path: media.sample(path, specs["exact"], decoder="pyav"),
        "keyframe": lambda path: media.sample(path, specs["keyframe"], decoder="pyav"),
        "decord on keyframe's frames": lambda path: by_decord(path, numbers[path, "keyframe"]),
    }
    medians, processor = measure(runs, files, repeats)
    timelines = {path: read_timeline(path) for path in files}
    frames = sum(map(len, timelines.values()))
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    kbit_s = size_mb * 8000 / sum(t.period_s * len(t) for t in timelines.values())
    print(f"\n{name}: {len(files)} file(s), {frames} frames, {kbit_s:.0f} kbit/s with sound")
    print(f"  decord get_batch                {medians['decord'] * 1e3:8.1f} ms")
    missed = 0
    for snap, least in (("exact", exact_at_least), ("keyframe", keyframe_at_least)):
        ratio = medians["decord"] / medians[snap]
        missed += ratio < least
        print(
            f"  coinml {snap:<24} {medians[snap] * 1e3:8.1f} ms   {ratio:5.2f} x decord's speed"
            f" (at least {least:.1f}): {'ok' if ratio >= least else 'TOO SLOW'};"
            f" {processor['decord'] / processor[snap]:.2f} x by CPU time"
        )
    theirs = medians["decord on keyframe's frames"]
    print(
        f"  decord on keyframe's frames     {theirs * 1e3:8.1f} ms   "
        f"{theirs / medians['keyframe']:5.2f} x"
    )
    for snap in specs:
        wanted = {path: sorted(set(numbers[path, snap].ravel().tolist())) for path in files}
        print_bound(snap, timelines, wanted, medians[snap])
    return missed


def check_pixels(
    specs: dict[str, media.ClipSpec], numbers: dict[tuple[Path, str], NDArray[np.int64]]
) -> None:
    """Check that coinml samples the pixels of the frames that decord reads."""
    for (path, snap), places in numbers.items():
        ours = media.sample(path, specs[snap], decoder="pyav").frames
        theirs = by_decord(path, places)[np.unique(places, return_inverse=True)[1]]
        np.testing.assert_array_equal(ours, theirs.reshape(ours.shape), err_msg=path.name)


def print_bound(
    snap: str, timelines: dict[Path, Timeline], wanted: dict[Path, list[int]], median_s: float
) -> None:
    """Print the time of decoding alone, which bounds the time of sampling."""
    decoded, seconds = decode_only(timelines, wanted)
    print(
        f"  bound of {snap}: {decoded} frames decoded for {sum(map(len, wanted.values()))} "
        f"wanted; decoding alone takes {seconds * 1e3:.1f} ms, {seconds / median_s:.0%} of the time"
    )


def measure(
    runs: dict[str, Callable[[Path], object]], files: list[Path], repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each run over all files: wall time and CPU time.

    The runs alternate, so that a slow moment of the machine affects all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begun, begun_processor = time.perf_counter(), time.process_time()
            for path in files:
                run(path)
            seconds[name].append(time.perf_counter() - begun)
            processor[name].append(time.process_time() - begun_processor)
    by_clock, of_processor = (
        {name: statistics.median(values) for name, values in taken.items()}
        for taken in (seconds, processor)
    )
    return by_clock, of_processor


def by_decord(path: Path, places: NDArray[np.int64]) -> NDArray[np.uint8]:
    reader = decord.VideoReader(str(path), num_threads=1)
    pixels: NDArray[np.uint8] = reader.get_batch(np.unique(places).tolist()).asnumpy()
    return pixels


def decode_only(
    timelines: dict[Path, Timeline], wanted: dict[Path, list[int]]
) -> tuple[int, float]:
    """Number of frames that must be decoded, and the seconds to decode them without using them."""
    decoded = 0
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        came: list[int | None] = []
        for path, timeline in timelines.items():
            ticks = [timeline.pts[number] for number in wanted[path]]
            with open_video(path) as (container, stream):
                listen_to(container, stream)
                decoder = RangeDecoder(
                    container, stream, timeline, lambda _, pts, came=came: came.append(pts)
                )
                for packets in packet_ranges(timeline, ticks):
                    decoder.decode(packets)
        seconds.append(time.perf_counter() - begun)
        decoded = len(came)
    return decoded, statistics.median(seconds)


def decord_reads(path: Path) -> bool:
    """Whether decord reads this file's frames correctly and coinml does not scale them."""
    try:
        media.sample(path, media.ClipSpec(clips=1, frames=1), decoder="decord")
    except CoinmlError:
        return False
    return True


def draw(seconds: int) -> Iterator[NDArray[np.uint8]]:
    """Panning textured scenes with moving objects and camera noise."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-4, 5, (32, HEIGHT, WIDTH, 1), dtype=np.int16)
    for start in range(0, seconds, SCENE_S):
        scene = texture(rng, 2 * HEIGHT, 2 * WIDTH)
        objects = [
            (texture(rng, 96, 128), rng.uniform(0, 400, 2), rng.uniform(-4, 4, 2)) for _ in range(5)
        ]
        drift = rng.uniform(-2.5, 2.5, 2)
        for t in range(FPS * min(SCENE_S, seconds - start)):
            y, x = bounce(np.array([HEIGHT, WIDTH]) / 2 + drift * t, (HEIGHT, WIDTH))
            frame = scene[y : y + HEIGHT, x : x + WIDTH].astype(np.int16)
            for item, place, speed in objects:
                y, x = bounce(place + speed * t, (HEIGHT - 96, WIDTH - 128))
                frame[y : y + 96, x : x + 128] = item
            yield np.clip(frame + noise[t % 32], 0, 255).astype(np.uint8)


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    picture = np.zeros((height, width, 3))
    for size in (4, 8, 16, 32, 64):
        coarse = rng.normal(size=(height // size + 1, width // size + 1, 3)) * size**0.8
        picture += coarse.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    picture -= picture.min()
    return (picture * (255 / picture.max())).astype(np.uint8)


def bounce(place: NDArray[np.float64], room: tuple[int, int]) -> tuple[int, int]:
    y, x = (int(abs((p + size) % (2 * size) - size)) for p, size in zip(place, room, strict=True))
    return y, x


def add_sound(silent: Path, path: Path) -> None:
    """Copy a video and add an AAC track, as in downloaded files."""
    rate = 44_100
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        sound: Any = target.add_stream("aac", rate=rate, layout="mono")
        rng = np.random.default_rng(0)
        played = 0
        for packet in source.demux(video):
            if packet.dts is None:
                continue
            while played / rate < float(packet.dts * packet.time_base):
                samples = rng.normal(0, 0.05, (1, 1024)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, played, Fraction(1, rate)
                target.mux(sound.encode(frame))
                played += 1024
            packet.stream = copy
            target.mux(packet)
        target.mux(sound.encode(None))


if __name__ == "__main__":
    sys.exit(main())
