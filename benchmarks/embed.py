"""The embedding engine compared with the limit of the hardware and with a plain loop.

On a CPU, with the tiny encoder and with VideoMAE-base (random weights):

- wall time of the engine against `max(bare forward, (forward CPU + decode CPU) / cores)`, and
  against the loop of transformers' documentation over the same files and clips. The engine's time
  includes the start of its decoding processes; the tiny encoder gets enough videos that this
  matters little, as in a run of thousands, and a short run is printed for comparison. Decoding and
  model are timed one after the other in this process, with new memory for each video.
- the time saved by feeding only a part of the tokens.

On a GPU: clips per second of bare forward, engine and loop, with VideoMAE-base.

Both sides of each ratio are measured in turn in one run. Medians are printed with the required
ratio, and the exit code is 1 if one is missed. `--quick` runs one round with little work.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coinml.embedding.decode_pool_cache import decode_pool
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.sampling import Sampling
from coinml.media import ClipSpec, DecodePool, sample, write_video
from coinml.miniature.tiny_encoder import ENCODER
from coinml.runtime.cpus import cpu_count

COIN_VIDEOS, COIN_CLIPS = 11_827, 8
SIZE = (640, 360)
FILES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One encoder and the number of videos to embed."""

    name: str
    folder: Path
    videos: int
    clips: int
    rounds: int
    short: int
    """Number of videos of a short run, in which the start matters; 0: no short run."""
    sample: int
    """Number of videos where the time per video is constant: for the loop and the forward CPU."""


class Bars:
    """The required ratios and whether all were met."""

    def __init__(self) -> None:
        self.missed = 0

    def check(self, what: str, value: float, *, most: float = 0.0, least: float = 0.0) -> None:
        """Print a ratio with the required one."""
        kept = value <= most if most else value >= least
        bar = f"at most {most:g}" if most else f"at least {least:g}"
        self.missed += not kept
        print(f"  {what}: {value:.3g} ({bar}: {'kept' if kept else 'MISSED'})", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, little work")
    quick = parser.parse_args().quick
    bars = Bars()
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, torch {torch.__version__}"
    print(f"{cpu_count()} CPUs, {device}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = draw_videos(folder, seconds=8 if quick else 30)
        base = save_base(folder / "videomae-base")
        if on_gpu:
            on_a_gpu(base, files, videos=64 if quick else 512, rounds=1 if quick else 3, bars=bars)
        else:
            rounds = 1 if quick else 3
            tiny = Work(
                name="tiny",
                folder=ENCODER,
                videos=8 if quick else 128,
                clips=4 if quick else 8,
                rounds=rounds,
                short=4 if quick else 32,
                sample=4,
            )
            large = Work(
                name="base",
                folder=base,
                videos=2 if quick else 6,
                clips=1 if quick else 2,
                rounds=rounds,
                short=0,
                sample=1,
            )
            for work in (tiny, large):
                on_a_cpu(work, files, folder / f"sets-{work.name}", bars)
        kept_tokens(base, rounds=1 if quick else 9, bars=bars)
    return 1 if bars.missed else 0


def on_a_cpu(work: Work, files: Sequence[Path], sets: Path, bars: Bars) -> None:
    encoder = load_encoder(work.folder, device="cpu", sampling=Sampling(clips=work.clips))
    jobs = jobs_of(files, work.videos)
    cores, share = cpu_count(), work.videos / work.sample
    seconds: dict[str, list[float]] = {}
    print(f"\n{work.name}: {work.videos} videos of {work.clips} clips, CPU, float32")
    embed(jobs[:2], encoder, new_set(sets / "warm", encoder))
    for number in range(work.rounds):
        pictures, decode_cpu = decode_all(jobs, encoder)
        torch.set_num_threads(cores)
        put(seconds, "bare forward", timed(lambda p=pictures: encoder.encode_prepared(p)))
        torch.set_num_threads(1)
        resize_cpu, model_cpu = cpu_of_forward(encoder, jobs[: work.sample])
        torch.set_num_threads(cores)
        put(seconds, "decode CPU", decode_cpu)
        put(seconds, "resize CPU", resize_cpu * share)
        put(seconds, "model CPU", model_cpu * share)
        del pictures
        embeddings = new_set(sets / str(number), encoder)
        before = cpu_seconds()
        put(seconds, "engine", timed(lambda e=embeddings: embed(jobs, encoder, e)))
        put(seconds, "engine CPU", cpu_seconds() - before)
        if work.short:
            few, embeddings = jobs[: work.short], new_set(sets / f"short-{number}", encoder)
            put(seconds, "short run", timed(lambda f=few, e=embeddings: embed(f, encoder, e)))
        for decoder in decoders():
            loop = documented_loop(work.folder, jobs[: work.sample], encoder, decoder=decoder)
            put(seconds, f"documented loop, {decoder}", share * timed(loop))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    clips = {"short run": work.short * work.clips}
    table(seconds, clips=work.videos * work.clips, others=clips)
    forward_cpu = medians["resize CPU"] + medians["model CPU"]
    bound = max(medians["bare forward"], (forward_cpu + medians["decode CPU"]) / cores)
    strict = max(medians["bare forward"], (medians["model CPU"] + medians["decode CPU"]) / cores)
    print(f"  bound: max(bare forward, (forward CPU + decode CPU) / {cores}) = {bound:.2f} s")
    bars.check("engine / bound", medians["engine"] / bound, most=1.05)
    print(f"  engine / bound without the resizing: {medians['engine'] / strict:.3g}")
    if work.short:
        ratio = medians["short run"] / (bound * work.short / work.videos)
        print(f"  engine / bound with {work.short} of the videos: {ratio:.3g}")
    overhead = medians["engine CPU"] / (forward_cpu + medians["decode CPU"])
    print(f"  engine CPU / (forward CPU + decode CPU): {overhead:.3g}")
    for decoder in decoders():
        ratio = medians[f"documented loop, {decoder}"] / medians["engine"]
        print(f"  documented loop, {decoder} / engine: {ratio:.3g}")


def on_a_gpu(base: Path, files: Sequence[Path], *, videos: int, rounds: int, bars: Bars) -> None:
    encoder = load_encoder(base, device="cuda", sampling=Sampling(clips=COIN_CLIPS))
    jobs = jobs_of(files, videos)
    clips = videos * COIN_CLIPS
    print(f"\nbase: {videos} videos of {COIN_CLIPS} clips, {encoder.dtype_name}")
    print(f"batches of {encoder.batch_clips} clips")
    sampled = sample(files[0], encoder.clip_spec()).frames
    pictures = [encoder.prepare(clip) for clip in sampled] * (1024 // COIN_CLIPS)
    encoder.encode_prepared(pictures)
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        put(rates, "bare forward", 1024 / timed(lambda: encoder.encode_prepared(pictures)))
        limit = decode_limit(files, encoder.clip_spec(), videos)
        put(rates, "decode limit", limit * COIN_CLIPS)
        with tempfile.TemporaryDirectory() as sets, decode_pool(encoder) as pool:
            for count in (pool.workers, videos):
                # Once for nothing, to start the decoders, as in a run of thousands.
                embeddings = new_set(Path(sets) / f"{number}-{count}", encoder)
                some = partial(embed, jobs[:count], encoder, embeddings, pool=pool)
                took = timed(some)
            put(rates, "engine", clips / took)
        few = jobs[:16]
        loop = documented_loop(base, few, encoder, decoder="decord", half=True)
        put(rates, "documented loop, decord, float16", len(few) * COIN_CLIPS / timed(loop))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        spread = f"{min(rates[name]):.1f} to {max(rates[name]):.1f}"
        print(f"  {name:<34} {rate:9.1f} clips/s  ({spread})")
    limit = min(medians["bare forward"], medians["decode limit"])
    bars.check("engine / min(bare forward, decode limit)", medians["engine"] / limit, least=0.95)
    loop_rate = medians["documented loop, decord, float16"]
    bars.check("engine / documented loop", medians["engine"] / loop_rate, least=10)
    minutes = COIN_VIDEOS * COIN_CLIPS / medians["engine"] / 60
    print(f"  COIN ({COIN_VIDEOS:,} videos, {COIN_CLIPS} clips) at this rate: {minutes:.0f} min")


def kept_tokens(base: Path, *, rounds: int, bars: Bars) -> None:
    """Speed-up of the forward pass with a part of the tokens, VideoMAE-base."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoders = {
        share: load_encoder(base, sampling=Sampling(keep_tokens=share))
        for share in (1.0, 0.25, 0.10)
    }
    clips = 64 if device == "cuda" else 1
    frames = np.random.default_rng(0).integers(0, 255, (16, 224, 224, 3), dtype=np.uint8)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for share, encoder in encoders.items():
            pictures = [encoder.prepare(frames)] * clips
            repeats = 1 if share == 1 else 4
            took = timed(
                lambda e=encoder, p=pictures, r=repeats: [e.encode_prepared(p) for _ in range(r)]
            )
            if number:
                put(seconds, f"keep {share:g}", took / repeats)
    print(f"\nkept tokens: VideoMAE-base, forward of {clips} clips, {device}")
    table(seconds, clips=clips)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for share, least in ((0.25, 4.0), (0.10, 7.0)):
        ratio = medians["keep 1"] / medians[f"keep {share:g}"]
        bars.check(f"all tokens / {share:.0%} of them", ratio, least=least)


def documented_loop(
    folder: Path,
    jobs: Sequence[EmbedJob],
    encoder: ClipEncoder,
    *,
    decoder: str,
    half: bool = False,
) -> Callable[[], object]:
    """The loop of transformers' documentation: its processor and model, one video at a time."""
    from transformers import VideoMAEImageProcessorPil, VideoMAEModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = encoder.device
    processor = VideoMAEImageProcessorPil.from_pretrained(folder)
    dtype = torch.float16 if half else torch.float32
    model = VideoMAEModel.from_pretrained(folder, dtype=dtype).to(device).eval()

    def loop() -> list[np.ndarray]:
        vectors = []
        for job in jobs:
            for video in clips_of(job, encoder, decoder):
                inputs = processor(list(video), return_tensors="pt").to(device, dtype)
                with torch.no_grad():
                    tokens = model(**inputs).last_hidden_state
                vectors.append(tokens.mean(1).float().cpu().numpy())
        return vectors

    return loop


def clips_of(job: EmbedJob, encoder: ClipEncoder, decoder: str) -> Sequence[np.ndarray]:
    """A video's clips, the same for both decoders."""
    if decoder == "pyav":
        return list(sample(job.path, encoder.clip_spec(), decoder="pyav").frames)
    import decord

    reader = decord.VideoReader(job.path, num_threads=1)
    frames, stride, clips = encoder.spec.frames, encoder.spec.stride, encoder.spec.clips
    length = (frames - 1) * stride + 1
    part = len(reader) / clips
    starts = [max(0, round(part * (number + 0.5) - length / 2)) for number in range(clips)]
    wanted = [min(start + stride * i, len(reader) - 1) for start in starts for i in range(frames)]
    pixels = reader.get_batch(wanted).asnumpy()
    return list(pixels.reshape(clips, frames, *pixels.shape[1:]))


def decode_all(jobs: Sequence[EmbedJob], encoder: ClipEncoder) -> tuple[list[torch.Tensor], float]:
    """Every clip at the encoder's size, and the CPU seconds that decoding took."""
    pictures, seconds = [], 0.0
    for job in jobs:
        begun = time.process_time()
        clips = sample(job.path, encoder.clip_spec()).frames
        seconds += time.process_time() - begun
        pictures += [encoder.prepare(clip) for clip in clips]
    return pictures, seconds


def decode_limit(files: Sequence[Path], spec: ClipSpec, videos: int) -> float:
    """Videos a second that the decoders do where nothing is done with the frames.

    The workers are warm, there is always a next request for each, and neither the first nor the
    last videos count, when not every worker is busy.
    """
    workers = cpu_count()
    room = threading.Semaphore(2 * workers)
    ended: list[float] = []
    failed: list[BaseException] = []

    def count(done: Future[Any]) -> None:
        ended.append(time.perf_counter())
        if (error := done.exception()) is not None:
            failed.append(error)
        room.release()

    with DecodePool(workers=workers) as pool:
        for number in range(videos):
            room.acquire()
            pool.submit_sample(files[number % len(files)], spec).add_done_callback(count)
        for _ in range(2 * workers):
            room.acquire()
    if failed:
        raise failed[0]
    steady = sorted(ended)[min(2 * workers, videos // 3) : -min(workers, videos // 3)]
    return (len(steady) - 1) / (steady[-1] - steady[0])


def cpu_of_forward(encoder: ClipEncoder, jobs: Sequence[EmbedJob]) -> tuple[float, float]:
    """CPU seconds of resizing and of the model, one thread."""
    sampled = [clip for job in jobs for clip in sample(job.path, encoder.clip_spec()).frames]
    begun = time.process_time()
    pictures = [encoder.prepare(clip) for clip in sampled]
    resized = time.process_time()
    encoder.encode_prepared(pictures)
    return resized - begun, time.process_time() - resized


def decoders() -> list[str]:
    try:
        import decord  # noqa: F401
    except ImportError:
        return ["pyav"]
    return ["pyav", "decord"]


def draw_videos(folder: Path, *, seconds: int, fps: int = 25) -> list[Path]:
    """Write a few 360p files like YouTube's: H.264 with long GOPs and B-frames."""

    def draw(seed: int) -> Path:
        rng = np.random.default_rng(seed)
        width, height = SIZE
        coarse = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
        frames = (np.roll(picture, (t, 2 * t), axis=(0, 1)) for t in range(seconds * fps))
        path = folder / f"video{seed}.mp4"
        return write_video(path, frames, fps=fps, gop=150, b_frames=3, crf=28)

    with ThreadPoolExecutor(FILES) as pool:
        return list(pool.map(draw, range(FILES)))


def save_base(folder: Path) -> Path:
    """Save VideoMAE-base with random weights."""
    from transformers import VideoMAEConfig, VideoMAEImageProcessorPil, VideoMAEModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    VideoMAEModel(VideoMAEConfig()).save_pretrained(folder)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    VideoMAEImageProcessorPil(image_mean=mean, image_std=std).save_pretrained(folder)
    return folder


def jobs_of(files: Sequence[Path], count: int) -> list[EmbedJob]:
    """The wanted number of jobs, each one of the files under its own id."""
    return [
        EmbedJob(
            video_id=f"video{number}",
            path=str(files[number % len(files)]),
            file_sha256=f"{number:064d}",
        )
        for number in range(count)
    ]


def new_set(folder: Path, encoder: ClipEncoder) -> EmbeddingSet:
    spec = SetSpec(encoder=encoder.spec, dataset="bench")
    return EmbeddingSet.open(str(folder), "bench", spec, create=True)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its decoding processes that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def put(seconds: dict[str, list[float]], name: str, value: float) -> None:
    seconds.setdefault(name, []).append(value)


def table(
    seconds: dict[str, list[float]], *, clips: int, others: Mapping[str, int] | None = None
) -> None:
    """Print medians; `others` has the clips of what went over fewer."""
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        rate = (others or {}).get(name, clips) / median
        print(f"  {name:<24} {median:8.2f} s {rate:9.2f} clips/s  ({spread})", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
