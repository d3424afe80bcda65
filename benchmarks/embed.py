"""The embedding engine compared with the limit of the hardware and with a plain loop.

On a CPU, with the tiny encoder and with VideoMAE-base (random weights):

- wall time of the engine against `max(bare forward, (forward CPU + decode CPU) / cores)`, and
  against the loop of transformers' documentation over the same files and clips. The engine's time
  includes the start of its decoding processes; the tiny encoder gets enough videos that this
  matters little, as in a run of thousands, and a short run is printed for comparison. Decoding and
  model are timed one after the other in this process, with new memory for each video.
- the time saved by feeding only a part of the tokens.

With `--against TREE`, on a CPU, only the engine with each kernel against another tree of coinml, as
a worktree of an earlier commit is: speed, agreement of the vectors, memory, hours for COIN.

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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _against import against
from _embedding_inputs import (
    COIN_CLIPS,
    COIN_VIDEOS,
    decode_limit,
    decoders,
    documented_loop,
    draw_videos,
    jobs_of,
    new_set,
    save_base,
)

from coinml.embedding.decode_pool_cache import decode_pool
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.sampling import Sampling
from coinml.media import sample
from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT
from coinml.runtime.cpus import cpu_count


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
        """Print a ratio with the required one, and by how much it is kept or missed."""
        kept = value <= most if most else value >= least
        bar = f"at most {most:g}" if most else f"at least {least:g}"
        self.missed += not kept
        apart = abs(value - (most or least))
        verdict = f"{'kept' if kept else 'MISSED'} by {apart:.2g}"
        print(f"  {what}: {value:.3g} ({bar}: {verdict})", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round with little work")
    parser.add_argument("--against", type=Path, metavar="TREE", help="compare with another tree")
    arguments = parser.parse_args()
    quick = arguments.quick
    bars = Bars()
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, torch {torch.__version__}"
    print(f"{cpu_count()} CPUs, {device}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = draw_videos(folder, seconds=8 if quick else 30)
        base = save_base(folder / "videomae-base")
        if arguments.against is not None:
            against(
                arguments.against.resolve(),
                base,
                TINY_CHECKPOINT,
                files,
                folder / "sets",
                rounds=1 if quick else 3,
                videos=1 if quick else 8,
                clips=2 if quick else COIN_CLIPS,
                check=bars.check,
            )
            return 1 if bars.missed else 0
        if on_gpu:
            on_a_gpu(base, files, videos=64 if quick else 512, rounds=1 if quick else 3, bars=bars)
        else:
            rounds = 1 if quick else 3
            tiny = Work(
                name="tiny",
                folder=TINY_CHECKPOINT,
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
                # The first, short run starts the decoding processes and is not timed.
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


def decode_all(jobs: Sequence[EmbedJob], encoder: ClipEncoder) -> tuple[list[torch.Tensor], float]:
    """All clips, resized for the encoder, and the CPU seconds of decoding."""
    pictures, seconds = [], 0.0
    for job in jobs:
        begun = time.process_time()
        clips = sample(job.path, encoder.clip_spec()).frames
        seconds += time.process_time() - begun
        pictures += [encoder.prepare(clip) for clip in clips]
    return pictures, seconds


def cpu_of_forward(encoder: ClipEncoder, jobs: Sequence[EmbedJob]) -> tuple[float, float]:
    """CPU seconds of resizing and of the model, with one thread."""
    sampled = [clip for job in jobs for clip in sample(job.path, encoder.clip_spec()).frames]
    begun = time.process_time()
    pictures = [encoder.prepare(clip) for clip in sampled]
    resized = time.process_time()
    encoder.encode_prepared(pictures)
    return resized - begun, time.process_time() - resized


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
    """Print medians; `others` has the number of clips of rows with another number."""
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        rate = (others or {}).get(name, clips) / median
        print(f"  {name:<24} {median:8.2f} s {rate:9.2f} clips/s  ({spread})", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
