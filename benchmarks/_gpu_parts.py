"""The parts of `gpu.py`: each measures one thing and writes its rows."""

from __future__ import annotations

import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import _embedding_inputs as inputs
import numpy as np
import torch
from _gpu_measures import (
    CLIP_FLOP,
    CLIPS,
    COIN_MINUTES,
    COIN_VIDEOS,
    CUDA,
    DEVICE,
    ROOT,
    TESTS,
    Check,
    ChildrenCPU,
    Table,
    ThreadTimes,
    cosine,
    one_thread,
    output,
    process_seconds,
    synchronize,
    timed,
    waits_in,
)

from coinml.embedding.decode_pool_cache import decode_pool
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.report import EmbedReport
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.media import DecodePool
from coinml.runtime.cpus import cpu_count


def machine(check: Check) -> None:
    import av
    import transformers

    table = check.table
    table.row("python, numpy", f"{sys.version.split()[0]}, {np.__version__}")
    versions = f"{torch.__version__}, {transformers.__version__}, {av.__version__}"
    table.row("torch, transformers, av", versions)
    about = "Model name|Thread|L3|MHz"
    described = output(f"lscpu | grep -E '{about}' | tr -s ' ' | tr '\\n' ';'")
    table.row("processors", cpu_count(), described)
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
    # Like the decoders' blocks: anonymous shared memory, mapped in this process.
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
            encoder = load_encoder(check.base, device=DEVICE, sampling=Sampling(keep_tokens=share))
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


def model(check: Check) -> None:
    table, encoder = check.table, check.encoder
    size = encoder.batch_clips if CUDA else 4
    pictures = [encoder.prepare(clip) for clip in check.sampled]
    pictures = (pictures * -(-size // len(pictures)))[:size]
    pixels = encoder._preprocessor.normalised(torch.stack(pictures), dtype=encoder._dtype)
    synchronize()  # It was created on another stream than the one that reads it.

    def alone() -> None:
        with encoder._queue.exclusive():
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
        other = load_encoder(check.base, device=DEVICE, sampling=Sampling(keep_tokens=share))
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
    memory = mmap.mmap(-1, check.sampled.nbytes)
    pinned = np.frombuffer(memory, dtype=np.uint8).reshape(check.sampled.shape)
    pinned[:] = check.sampled
    release = encoder.pin(memory)
    with one_thread():
        for name, frames in (("", check.sampled), (" from pinned memory", pinned)):
            clips = list(frames) * (1 if check.dry else 30)
            for threads in (1, 4):
                with ThreadPoolExecutor(threads) as pool:
                    list(pool.map(encoder.prepare, clips[:threads]))
                    before, begun = process_seconds(), time.perf_counter()
                    list(pool.map(encoder.prepare, clips))
                    synchronize()
                    took = time.perf_counter() - begun
                    cpu = (process_seconds() - before) / len(clips)
                what = f"bringing clips{name}, {threads} threads, clips/s"
                table.row(what, len(clips) / took, f"{cpu * 1e3:.2f} ms CPU a clip")
    if release is not None:
        release()


def engine(check: Check, snap: str) -> None:
    """Measure the engine and the decode limit alternately, since the machine's speed drifts."""
    table, spec = check.table, check.encoder.clip_spec(snap)
    each = (4, 8)[snap == "keyframe"] if check.dry else (18, 30)[snap == "keyframe"]
    videos = each * cpu_count()
    limits = [inputs.decode_limit(check.files, spec, videos)]
    table.row(f"decode limit, {snap}, clips/s", limits[0] * CLIPS)
    engines = []
    for _ in range(1 if check.dry else 2):
        pace = engine_pace(check, snap, round(limits[-1] * (2 if check.dry else 11)))
        limits.append(inputs.decode_limit(check.files, spec, videos))
        engines.append(pace)
        table.row(f"engine, {snap}, clips/s", pace * CLIPS)
        table.row(f"decode limit, {snap}, clips/s", limits[-1] * CLIPS)
    ours = statistics.mean(engines) * CLIPS
    # The mean of the limits before and after each run of the engine.
    decode = statistics.mean((a + b) / 2 for a, b in pairwise(limits)) * CLIPS
    check.rates[f"engine, {snap}"] = ours
    bound = min(check.rates.get("bare forward", decode), decode)
    table.bar(f"engine / min(model, decode limit), {snap}", ours / bound, least=0.95)
    table.bar(f"COIN in minutes, {snap}", COIN_VIDEOS * CLIPS / ours / 60, most=COIN_MINUTES[snap])


def engine_pace(check: Check, snap: str, videos: int) -> float:
    """Videos per second with warm decoders, without the run's start and end.

    The time of a run of few videos, which has the same start and end, is subtracted.
    """
    table = check.table
    few = 2 * cpu_count()
    with ChildrenCPU() as children, decode_pool(check.encoder) as pool:
        run_engine(check, snap, few, pool)
        short, *_ = run_engine(check, snap, few, pool)
        long, cpu, report, threads = run_engine(check, snap, few + videos, pool)
    theirs = children.seconds / (3 * few + videos)
    own = cpu / (few + videos)
    note = (
        f"{own * 1e3:.1f} own ({threads}); waits {report.decode_wait_s:.1f}, encodes "
        f"{report.encode_s:.1f}, writes {report.write_s:.2f} of {report.seconds:.1f} s; "
        f"{(few + videos) / long * CLIPS:.1f} clips/s with start and end"
    )
    table.row(f"engine, {snap}, decoders' CPU ms a video", theirs * 1e3, note)
    return videos / (long - short)


def run_engine(
    check: Check, snap: str, videos: int, pool: DecodePool
) -> tuple[float, float, EmbedReport, str]:
    """Embed a number of videos.

    Returns:
        Seconds, this process's CPU seconds, the report, CPU milliseconds per video by thread.
    """
    jobs = inputs.jobs_of(check.files, videos)
    spec = SetSpec(encoder=check.encoder.spec, dataset="bench", snap=snap)
    with tempfile.TemporaryDirectory(dir=check.folder) as root:
        embeddings = EmbeddingSet.open(root, "bench", spec, create=True)
        before, begun = process_seconds(), time.perf_counter()
        with ThreadTimes() as threads:
            report = embed(jobs, check.encoder, embeddings, pool=pool)
        took = time.perf_counter() - begun
    if report.embedded != videos or report.failed:
        raise RuntimeError(f"the engine failed: {report}")
    return took, process_seconds() - before, report, threads.summary(videos)


def loop(check: Check) -> None:
    jobs: list[EmbedJob] = inputs.jobs_of(check.files, 1 if check.dry else 4)
    for decoder in inputs.decoders():
        work = inputs.documented_loop(check.base, jobs, check.encoder, decoder=decoder, half=CUDA)
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
