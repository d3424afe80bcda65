"""Checks everything that coinml does on a GPU within minutes and prints one table.

    PYTHONPATH=. python benchmarks/gpu.py [--seconds 480] [--out FOLDER] [--dry]

It needs torch, transformers, numpy, pyarrow and PyAV, and neither a network nor a checkpoint: the
videos are generated and the weights are random. Each part has its own time limit, and a part that
fails does not stop the others. The table is written to FOLDER/gpu.json after each part and printed
at the end. The exit code is 1 if a requirement is missed or a part fails, and 3 if the time is up.

- machine: versions, speed of copies between host and device, attention kernels.
- waits: how often a launch makes the calling thread wait for the GPU.
- model: the model alone, and its vectors against the CPU's.
- resize: copying clips to the device and resizing them.
- exact, keyframe: the engine against min(model, decode limit), and the extrapolation to COIN.
- loop: the loop of transformers' documentation over the same files.
- tests, heads, nvdec: the CUDA tests, heads trained on the GPU, hardware decoding.

`--dry` runs a small version on a CPU, to test the check itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import _embedding_inputs as inputs
import _gpu_parts as parts
from _gpu_measures import CLIPS, CUDA, DEVICE, Check, Table

from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.media import sample


class OutOfTimeError(Exception):
    """A part has exceeded its time limit."""


def main() -> int:
    begun = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    seconds = float(os.environ.get("GPU_CHECK_S", 480))
    parser.add_argument("--seconds", type=float, default=seconds, help="overall time limit")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default="", help="comma-separated parts to run")
    parser.add_argument("--dry", action="store_true", help="a small version on a CPU")
    options = parser.parse_args()
    dry = options.dry or os.environ.get("GPU_CHECK_DRY") == "1"
    if not CUDA and not dry:
        print("torch sees no GPU here; --dry runs the check on a CPU", file=sys.stderr)
        return 2
    table = Table(options.out / "gpu.json")
    ends = begun + options.seconds
    watch_the_clock(table, options.seconds)
    wanted = [name for name in options.only.split(",") if name] or list(PARTS)
    with tempfile.TemporaryDirectory() as temporary:
        check = prepare(Path(temporary), table, dry=dry, ends=ends)
        table.row("preparing took s", time.perf_counter() - begun)
        for name in wanted:
            run_part(check, name)
        table.row("everything took s", time.perf_counter() - begun)
    table.write()
    table.show()
    return 1 if table.missed else 0


def run_part(check: Check, name: str) -> None:
    work, limit = PARTS[name]
    table = check.table
    limit = min(limit, check.left - 5)
    print(f"\n== {name} ({limit:.0f} s at most, {check.left:.0f} s left in all)", flush=True)
    if limit < 5:
        table.fail(name, "no time left")
        return
    begun = time.perf_counter()
    try:
        with_limit(lambda: work(check), limit)
    except Exception as err:
        traceback.print_exc()
        table.fail(name, f"{type(err).__name__}: {str(err)[:200]}")
    table.row(f"[{name}] took s", time.perf_counter() - begun)
    table.write()


def with_limit(work: Callable[[], object], seconds: float) -> None:
    def ring(*_: object) -> None:
        raise OutOfTimeError(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def watch_the_clock(table: Table, seconds: float) -> None:
    """End the process when its time is up, even if a call into CUDA never returns."""

    def end() -> None:
        table.fail("the whole check", f"more than {seconds:.0f} s")
        table.write()
        table.show()
        os._exit(3)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def prepare(folder: Path, table: Table, *, dry: bool, ends: float) -> Check:
    """Generate the videos and the weights, and load the encoder."""
    seconds = 8 if dry else 60
    drawn = ThreadPoolExecutor(1).submit(inputs.draw_videos, folder, seconds=seconds)
    base = save_tiny(folder / "base") if dry else inputs.save_base(folder / "base")
    encoder = load_encoder(base, device=DEVICE, sampling=Sampling(clips=CLIPS))
    files = drawn.result()
    sampled = sample(files[0], encoder.clip_spec()).frames
    return Check(table, folder, base, files, encoder, sampled, dry, ends)


def save_tiny(folder: Path) -> Path:
    from transformers import VideoMAEConfig, VideoMAEImageProcessorPil, VideoMAEModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    VideoMAEModel(VideoMAEConfig(intermediate_size=64, **sizes)).save_pretrained(folder)
    VideoMAEImageProcessorPil().save_pretrained(folder)
    return folder


PARTS: dict[str, tuple[Callable[[Check], None], float]] = {
    "machine": (parts.machine, 30),
    "waits": (parts.waits, 25),
    "model": (parts.model, 40),
    "resize": (parts.resize, 20),
    "exact": (partial(parts.engine, snap="exact"), 90),
    "keyframe": (partial(parts.engine, snap="keyframe"), 90),
    "tests": (parts.tests, 110),
    "nvdec": (parts.nvdec, 30),
    "loop": (parts.loop, 40),
    "heads": (parts.heads, 30),
}


if __name__ == "__main__":
    sys.exit(main())
