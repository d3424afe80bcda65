"""One check of everything that coinml does on a GPU, in one run of minutes, with one table.

    PYTHONPATH=. python benchmarks/gpu.py [--seconds 480] [--out FOLDER] [--dry]

It needs torch, transformers, numpy, pyarrow and PyAV, and neither a network nor a checkpoint: the
videos are drawn and the weights are random. Each part has a time limit of its own and fails alone;
the table is rewritten to FOLDER/gpu.json after each part and printed at the end. The exit code is 1
if a bar is missed or a part fails, and 3 if the time is up before the end.

- machine: versions, copies between host and device, SDPA's choice of kernel.
- waits: how often a launch makes the calling thread wait for the GPU.
- model: the model alone, and its vectors beside the CPU's.
- resize: bringing clips to the device and to the encoder's size.
- exact, keyframe: the engine against min(model, decode limit), and COIN extrapolated.
- loop: the loop of transformers' documentation over the same files.
- tests, heads, nvdec: the CUDA tests, heads trained on the GPU, hardware decoding.

`--dry` runs all of it small and on a CPU, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import embed as plain
import numpy as np
import torch

from coinml.embedding.engine import EmbedJob, embed
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.media import ClipSpec, DecodePool, sample
from coinml.runtime.cpus import processors

ROOT = Path(__file__).resolve().parents[1]
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
COIN_VIDEOS, CLIPS = plain.COIN_VIDEOS, plain.COIN_CLIPS
CLIP_FLOP = 360.7e9
"""Operations of VideoMAE-base for a clip of 1,568 tokens."""
COIN_MINUTES = {"exact": 10.0, "keyframe": 5.0}
TESTS = "tests/unit/encoder/test_encoder_cuda.py"


class OutOfTimeError(Exception):
    """A part has used up its time."""


@dataclass
class Table:
    """Rows for people and for a file, and whether every bar was met."""

    file: Path
    rows: list[tuple[str, Any, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def row(self, what: str, value: Any, note: str = "") -> None:
        """A figure that no bar is set for."""
        value = float(f"{value:.4g}") if isinstance(value, float) else value
        self.rows.append((what, value, note))
        print(f"    {what}: {value}  {note}", flush=True)

    def bar(
        self, what: str, value: float, *, least: float | None = None, most: float | None = None
    ) -> None:
        """A figure that has to be so large, or so small."""
        met = not math.isnan(value)
        if least is not None:
            met, asked = met and value >= least, f"at least {least:g}"
        else:
            assert most is not None
            met, asked = met and value <= most, f"at most {most:g}"
        if not met:
            self.missed.append(what)
        self.row(what, float(value), f"({asked}: {'met' if met else 'MISSED'})")

    def fail(self, what: str, reason: str) -> None:
        """A part that could not be run to its end."""
        self.missed.append(what)
        self.row(what, "FAILED", reason)

    def write(self) -> None:
        """Put what there is into the file."""
        self.file.write_text(json.dumps(self.rows, indent=1, default=str), encoding="utf-8")

    def show(self) -> None:
        """Print everything, the last thing to be seen."""
        print("\n" + "=" * 110)
        for what, value, note in self.rows:
            print(f"{what:<56} {value!s:>14}  {note}")
        print(f"\nmissed: {', '.join(self.missed) or 'nothing'}", flush=True)


@dataclass
class Check:
    """What the parts share.

    Attributes:
        rates: Clips a second by name, for ratios between parts.
    """

    table: Table
    folder: Path
    base: Path
    files: list[Path]
    encoder: ClipEncoder
    sampled: Any
    dry: bool
    ends: float
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the time of the whole check is up."""
        return self.ends - time.perf_counter()


def main() -> int:
    begun = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    seconds = float(os.environ.get("GPU_CHECK_S", 480))
    parser.add_argument("--seconds", type=float, default=seconds, help="for everything")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default="", help="parts, with commas between them")
    parser.add_argument("--dry", action="store_true", help="small, on a CPU")
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


def prepare(folder: Path, table: Table, *, dry: bool, ends: float) -> Check:
    """Draw the videos, make the weights, load the encoder."""
    seconds = 8 if dry else 60
    drawn = ThreadPoolExecutor(1).submit(plain.draw_videos, folder, seconds=seconds)
    base = save_tiny(folder / "base") if dry else plain.save_base(folder / "base")
    encoder = load_encoder(base, device=DEVICE, clips=CLIPS)
    files = drawn.result()
    sampled = sample(files[0], encoder.clip_spec()).frames
    return Check(table, folder, base, files, encoder, sampled, dry, ends)


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
    """End the process when its time is up, even where a call into CUDA never returns."""

    def end() -> None:
        table.fail("the whole check", f"more than {seconds:.0f} s")
        table.write()
        table.show()
        os._exit(3)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


# The parts


def machine(check: Check) -> None:
    import av
    import transformers

    table = check.table
    table.row("python, numpy", f"{sys.version.split()[0]}, {np.__version__}")
    versions = f"{torch.__version__}, {transformers.__version__}, {av.__version__}"
    table.row("torch, transformers, av", versions)
    about = "Model name|Thread|L3|MHz"
    described = output(f"lscpu | grep -E '{about}' | tr -s ' ' | tr '\\n' ';'")
    table.row("processors", processors(), described)
    table.row("memory", output("grep MemTotal /proc/meminfo | tr -s ' '"))
    if not CUDA:
        return
    driver = output("nvidia-smi --query-gpu=driver_version --format=csv,noheader")
    name, cudnn = torch.cuda.get_device_name(), torch.backends.cudnn.version()
    table.row("gpu", name, f"driver {driver}, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    host_copies(table)
    attention_kernels(table)


def host_copies(table: Table) -> None:
    size = 256 << 20
    there = torch.empty(size, dtype=torch.uint8, device="cuda")
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    plain_memory = torch.ones(size, dtype=torch.uint8)
    gigabytes = size / 1e9
    row = table.row
    row("host to device, pinned, GB/s", gigabytes / timed(lambda: there.copy_(pinned)))
    row("host to device, pageable, GB/s", gigabytes / timed(lambda: there.copy_(plain_memory)))
    with one_thread():
        took = timed(lambda: pinned.copy_(plain_memory))
    row("host to pinned, one thread, GB/s", gigabytes / took)
    # As the decoders' blocks are: shared memory without a name, in this process' page tables.
    import mmap

    descriptor = os.memfd_create("gpu-check")
    os.ftruncate(descriptor, size)
    shared = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    block = torch.frombuffer(shared, dtype=torch.uint8)
    begun = time.perf_counter()
    failed = torch.cuda.cudart().cudaHostRegister(block.data_ptr(), size, 0)
    row("registering 256 MiB of shared memory, ms", (time.perf_counter() - begun) * 1e3, failed)
    row("the same, torch says pinned", block.is_pinned())
    row("host to device, registered, GB/s", gigabytes / timed(lambda: there.copy_(block)))
    begun = time.perf_counter()
    torch.cuda.cudart().cudaHostUnregister(block.data_ptr())
    row("unregistering it, ms", (time.perf_counter() - begun) * 1e3)


def attention_kernels(table: Table) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attend

    heads = torch.randn(16, 12, 1568, 64, device="cuda", dtype=torch.bfloat16)
    table.row("SDPA chooses", str(SDPBackend(torch._fused_sdp_choice(heads, heads, heads))))
    for kind in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(kind):
            took = timed(lambda: attend(heads, heads, heads))
        table.row(f"{kind.name}, TFLOP/s", 16 * 4 * 1568**2 * 768 / took / 1e12)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    took = timed(lambda: square @ square, 10)
    table.row("bfloat16 matrix product, TFLOP/s", 2 * 8192**3 / took / 1e12)


def waits(check: Check) -> None:
    table = check.table
    table.row("clips a batch", check.encoder.batch_clips)
    for share in (1.0, 0.25):
        encoder = check.encoder
        if share != 1:
            encoder = load_encoder(check.base, device=DEVICE, keep_tokens=share)
        pictures = [encoder.prepare(clip) for clip in check.sampled]
        encoder.encode_prepared(pictures)
        if not CUDA:
            continue
        found = waits_in(lambda e=encoder, p=pictures: e.encode_prepared(p))
        table.bar(f"waits in a launch, {share:.0%} of the tokens", len(found), most=0)
        if found:
            table.row("  at", ", ".join(found))
    if CUDA:
        found = waits_in(lambda: check.encoder.prepare(check.sampled[0]))
        table.row("waits in bringing a clip", len(found), ", ".join(found))


def waits_in(work: Callable[[], object]) -> list[str]:
    """Places in the code at which work waits for the GPU, unless for an event."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    hits = [warning for warning in seen if "synchroniz" in str(warning.message)]
    return [f"{Path(hit.filename).name}:{hit.lineno}" for hit in hits]


def model(check: Check) -> None:
    table, encoder = check.table, check.encoder
    size = encoder.batch_clips if CUDA else 4
    pictures = [encoder.prepare(clip) for clip in check.sampled]
    pictures = (pictures * -(-size // len(pictures)))[:size]
    pixels = encoder._preprocessor.normalised(torch.stack(pictures), dtype=encoder._dtype)
    synchronize()  # It was made on another stream than the one that reads it.

    def alone() -> None:
        with encoder._queue.turn():
            encoder._backbone(pixels)

    rate(check, f"model alone, batches of {size}", alone, size)
    many = pictures * (2 if check.dry else 8)
    whole = partial(encoder.encode_prepared, many, batch_clips=size)
    rate(check, "bare forward", whole, len(many))
    if CUDA:
        on_cpu = load_encoder(check.base, device="cpu", dtype="float32")
        few = list(check.sampled[:2])
        apart = cosine(encoder.encode(few), on_cpu.encode(few))
        table.bar("cosine to the CPU", apart, least=0.999)
    for share in (0.25, 0.10):
        other = load_encoder(check.base, device=DEVICE, keep_tokens=share)
        few_tokens = partial(other.encode_prepared, many)
        rate(check, f"bare forward, {share:.0%} of the tokens", few_tokens, len(many))


def rate(check: Check, name: str, work: Callable[[], object], clips: int) -> None:
    took = timed(work)
    check.rates[name] = clips / took
    flops = clips / took * CLIP_FLOP / 1e12
    check.table.row(
        f"{name}, clips/s", clips / took, "" if "tokens" in name else f"{flops:.0f} TFLOP/s"
    )


def resize(check: Check) -> None:
    table, encoder = check.table, check.encoder
    clip = torch.from_numpy(np.ascontiguousarray(check.sampled[0])).to(DEVICE)
    resized = encoder._preprocessor.resized
    took = timed(lambda: [resized(clip) for _ in range(20)]) / 20
    table.row("resize on the device, ms a clip", took * 1e3)
    clips = list(check.sampled) * (1 if check.dry else 30)
    with one_thread():
        for threads in (1, 4):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(encoder.prepare, clips[:threads]))
                before, begun = process_seconds(), time.perf_counter()
                list(pool.map(encoder.prepare, clips))
                synchronize()
                took = time.perf_counter() - begun
                cpu = (process_seconds() - before) / len(clips)
            name = f"bringing clips, {threads} threads, clips/s"
            table.row(name, len(clips) / took, f"{cpu * 1e3:.2f} ms CPU a clip")


def engine(check: Check, snap: str) -> None:
    table, spec = check.table, check.encoder.clip_spec(snap)
    limits, engines = [], []
    most_limits = 24 if check.dry else 192
    rounds = 1 if check.dry else 2
    for number in range(rounds):
        limit, cpu = decode_limit(check.files, spec, most=most_limits)
        limits.append(limit)
        table.row(
            f"decode limit {number + 1}, {snap}, clips/s", limit * CLIPS, f"{cpu:.3f} CPU s a video"
        )
        short = workers_worth(2)
        long = max(short * 2, round(limit * (2 if check.dry else 13)))
        seconds = {}
        for videos in (short, long):
            seconds[videos] = run_engine(check, snap, videos, tell=videos == long)
        pace = (long - short) / max(seconds[long] - seconds[short], 1e-9)
        engines.append(pace)
        whole = long / seconds[long]
        table.row(
            f"engine {number + 1}, {snap}, clips/s",
            pace * CLIPS,
            f"{long} less {short} videos; {whole * CLIPS:.1f} with start and end",
        )
    decode, ours = statistics.median(limits) * CLIPS, statistics.median(engines) * CLIPS
    forward = check.rates.get("bare forward", math.nan)
    table.row(f"decode limit, {snap}, clips/s", decode)
    table.row(f"engine, {snap}, clips/s", ours)
    check.rates[f"engine, {snap}"] = ours
    bound = min(forward, decode) if not math.isnan(forward) else decode
    table.bar(f"engine / min(model, decode limit), {snap}", ours / bound, least=0.95)
    minutes = COIN_VIDEOS * CLIPS / ours / 60
    table.bar(f"COIN in minutes, {snap}", minutes, most=COIN_MINUTES[snap])


def workers_worth(times: int) -> int:
    """Number of videos that keep every decoder busy so many times."""
    return times * processors()


def decode_limit(files: Sequence[Path], spec: ClipSpec, *, most: int) -> tuple[float, float]:
    """How fast the decoders are where nothing is done with the frames.

    The workers are warm, there is always a next request for each, and neither the first nor the
    last videos count, when not every worker is busy.

    Returns:
        Videos a second, and the CPU seconds of a video.
    """
    workers = processors()
    total = max(most, 6 * workers)
    room = threading.Semaphore(2 * workers)
    ended: list[float] = []
    failed: list[BaseException] = []

    def count(done: Future[Any]) -> None:
        ended.append(time.perf_counter())
        if (error := done.exception()) is not None:
            failed.append(error)
        room.release()

    before = children_seconds()
    with DecodePool(workers=workers) as pool:
        for number in range(total):
            room.acquire()
            pool.submit_sample(files[number % len(files)], spec).add_done_callback(count)
        for _ in range(2 * workers):
            room.acquire()
    if failed:
        raise failed[0]
    cpu = (children_seconds() - before) / total
    steady = sorted(ended)[2 * workers : -workers]
    return (len(steady) - 1) / (steady[-1] - steady[0]), cpu


def run_engine(check: Check, snap: str, videos: int, *, tell: bool) -> float:
    """Embed so many videos; the seconds that it took."""
    jobs = plain.jobs_of(check.files, videos)
    spec = SetSpec(encoder=check.encoder.spec, dataset="bench", snap=snap)
    with tempfile.TemporaryDirectory(dir=check.folder) as root:
        embeddings = EmbeddingSet.open(root, "bench", spec, create=True)
        before, begun = process_seconds(), time.perf_counter()
        with ThreadTimes() as threads:
            report = embed(jobs, check.encoder, embeddings)
        took = time.perf_counter() - begun
        cpu = process_seconds() - before
    if report.embedded != videos or report.failed:
        raise RuntimeError(f"the engine failed: {report}")
    if tell:
        check.table.row(
            f"engine's own CPU, {snap}, ms a video",
            cpu / videos * 1e3,
            f"{threads.summary(videos)}; waits {report.decode_wait_s:.1f}, encodes "
            f"{report.encode_s:.1f}, writes {report.write_s:.2f} of {report.seconds:.1f} s",
        )
    return took


def loop(check: Check) -> None:
    jobs: list[EmbedJob] = plain.jobs_of(check.files, 1 if check.dry else 4)
    for decoder in plain.decoders():
        work = plain.documented_loop(check.base, jobs, check.encoder, decoder=decoder, half=CUDA)
        begun = time.perf_counter()
        work()
        pace = len(jobs) * CLIPS / (time.perf_counter() - begun)
        check.table.row(f"documentation's loop, {decoder}, clips/s", pace)
        if "engine, exact" in check.rates:
            ratio = check.rates["engine, exact"] / pace
            least = 10 if CUDA else 0
            check.table.bar(f"engine / documentation's loop, {decoder}", ratio, least=least)


def tests(check: Check) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
    environment = {**os.environ, "COINML_FAIL_WITHOUT_CUDA": "1" if CUDA else "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    print(done.stdout[-5000:], done.stderr[-1500:])
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    check.table.row(TESTS, last.strip("= "))
    if done.returncode:
        check.table.fail("the CUDA tests", f"exit code {done.returncode}")


def heads(check: Check) -> None:
    from coinml.heads.attentive import train_attentive
    from coinml.heads.mlp import train_mlp

    train, val = samples(600, seed=0), samples(200, seed=1)
    with one_thread():
        for name, fit in (("mlp", train_mlp), ("attentive", train_attentive)):
            fitted = [
                fit(train, val, epochs=4, batch_size=64, device=place)
                for place in ("cpu", DEVICE, DEVICE)
            ]
            asked = [
                head.predict_proba(val.clips if head.takes_clips else val.x) for head in fitted
            ]
            right = [float((given.argmax(1) == val.y).mean()) for given in asked]
            same = bool((asked[1] == asked[2]).all())
            note = f"{right[0]:.3f} on the CPU; repeats bit by bit: {same}"
            check.table.row(f"{name}: accuracy on {DEVICE}", right[1], note)
            check.table.bar(f"{name}: apart from the CPU's", abs(right[1] - right[0]), most=0.05)


def samples(count: int, *, seed: int) -> Any:
    from coinml.embedding_sets.table import Samples

    centres = np.random.default_rng(7).normal(size=(20, 64))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 20, count)
    clips = (centres[y][:, None] + rng.normal(size=(count, 8, 64))).astype(np.float16)
    clips[::7, 6:] = np.nan
    return Samples(
        ids=tuple(map(str, range(count))),
        x=np.nanmean(clips.astype(np.float32), 1),
        y=y,
        classes=tuple(f"class {number}" for number in range(20)),
        clips=clips,
    )


def nvdec(check: Check) -> None:
    import av
    from av.codec import hwaccel

    check.table.row("PyAV's hardware devices", ", ".join(map(str, hwaccel.hwdevices_available())))

    def frames(path: Path, hardware: bool) -> int:
        way = hwaccel.HWAccel("cuda", allow_software_fallback=False) if hardware else None
        with av.open(str(path), hwaccel=way) as container:
            return sum(1 for _ in container.decode(video=0))

    for hardware in (False, True) if CUDA else (False,):
        for threads in (1, 8):
            with ThreadPoolExecutor(threads) as pool:
                files = (check.files * threads)[:threads]
                before, begun = process_seconds(), time.perf_counter()
                count = sum(pool.map(partial(frames, hardware=hardware), files))
                took = time.perf_counter() - begun
                cpu = (process_seconds() - before) / count
            name = f"{'NVDEC' if hardware else 'CPU'}, {threads} at once, frames/s"
            check.table.row(name, count / took, f"{cpu * 1e6:.0f} us CPU a frame")


PARTS: dict[str, tuple[Callable[[Check], None], float]] = {
    "machine": (machine, 30),
    "waits": (waits, 25),
    "model": (model, 40),
    "resize": (resize, 20),
    "exact": (partial(engine, snap="exact"), 90),
    "keyframe": (partial(engine, snap="keyframe"), 90),
    "tests": (tests, 110),
    "nvdec": (nvdec, 30),
    "loop": (loop, 40),
    "heads": (heads, 30),
}


# Helpers


class ThreadTimes:
    """CPU seconds of this process by kind of thread, sampled while its block runs."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, str], float] = {}
        self._first: dict[tuple[int, str], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> ThreadTimes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def summary(self, videos: int) -> str:
        """Milliseconds a video of each kind."""
        kinds: Counter[str] = Counter()
        for key, seconds in self._seconds.items():
            kinds[key[1]] += seconds - self._first[key]
        parts = [f"{name} {s / videos * 1e3:.1f}" for name, s in kinds.most_common() if s > 0]
        return ", ".join(parts)

    def _watch(self) -> None:
        tick = os.sysconf("SC_CLK_TCK")
        known = {thread.native_id for thread in threading.enumerate()}
        while True:
            named = {thread.native_id: thread.name for thread in threading.enumerate()}
            for task in Path("/proc/self/task").iterdir():
                number = int(task.name)
                try:
                    fields = (task / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                kind = named.get(number, "native").split("-")[0].split("_")[0]
                seconds = (int(fields[11]) + int(fields[12])) / tick
                old = number in known or number not in named
                self._first.setdefault((number, kind), seconds if old else 0.0)
                self._seconds[number, kind] = seconds
            if self._over.wait(0.25):
                return


class one_thread:
    """A block in which torch uses one thread on the CPU."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)


def save_tiny(folder: Path) -> Path:
    from transformers import VideoMAEConfig, VideoMAEImageProcessorPil, VideoMAEModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    VideoMAEModel(VideoMAEConfig(intermediate_size=64, **sizes)).save_pretrained(folder)
    VideoMAEImageProcessorPil().save_pretrained(folder)
    return folder


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of some work, after one round that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        work()
        synchronize()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def process_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def output(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
