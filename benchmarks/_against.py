"""The engine with each of its kernels against another tree of coinml, in turns, on a CPU.

On a processor where torch's float32 runs below the rate of oneDNN's (AMD's Zen 4 and 5 with
AVX-512), float32 must be twice as fast as the other tree, bfloat16 3.5 times and int8 five times;
elsewhere the kernel that is chosen 1.3 times. The rates are measured here.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _embedding_inputs import COIN_CLIPS, COIN_VIDEOS, documented_loop, jobs_of

from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.kernel_cache import processor
from coinml.encoder.sampling import Sampling
from coinml.media import sample
from coinml.runtime.cpus import cpu_count

ROOT = Path(__file__).resolve().parents[1]
BELOW = 1.5
"""oneDNN's rate by torch's, from which torch's float32 is below the processor's rate."""

WAYS: Mapping[str, tuple[Mapping[str, str], float, float]] = {
    "float32": ({"dtype": "float32"}, 2.0, 0.9999),
    "bfloat16": ({"dtype": "bfloat16"}, 3.5, 0.999),
    "int8": ({}, 5.0, 0.99),
    "chosen": ({}, 0.0, 0.999),
}
"""Options of `load_encoder`, the required ratio where torch is below the rate, and the cosine."""

Check = Callable[..., None]


def against(
    tree: Path,
    base: Path,
    tiny: Path,
    files: Sequence[Path],
    sets: Path,
    *,
    rounds: int,
    videos: int,
    clips: int,
    check: Check,
) -> None:
    """Compare, and print the bars."""
    rates = {name: rate(product) for name, product in products().items()}
    print(f"\nagainst {tree}: {processor()}, {cpu_count()} cores")
    print(
        "  matrix products, one thread: "
        + ", ".join(f"{n} {r:.0f} GFLOP/s" for n, r in rates.items())
    )
    below = rates["oneDNN float32"] >= BELOW * rates["torch float32"]
    runs: dict[str, list[dict[str, Any]]] = {}
    vectors: dict[str, np.ndarray] = {}
    options_of = {name: options for name, (options, _, _) in WAYS.items()}
    options_of["int8"] = {"quantized": str(quantized(base, files, sets, clips=clips))}
    some = [str(files[number % len(files)]) for number in range(videos)]

    def run(name: str, where: Path, encoder: Path, **given: Any) -> None:
        place = sets / f"{name.replace(' ', '-')}-{len(runs.get(name, []))}"
        runs.setdefault(name, []).append(once(where, encoder, place, sets / "home", **given))
        vectors[name] = np.load(place / "vectors.npy")
        print(f"    {name}: {describe(runs[name][-1])}", flush=True)

    for _ in range(rounds):
        run("other", tree, base, files=some, clips=clips)
        for name, options in options_of.items():
            run(name, ROOT, base, files=some, clips=clips, options=options)
        run("chosen 25 %", ROOT, base, files=some, clips=clips, keep_tokens=0.25)
        many = some * max(1, 128 // len(some))
        for name, where in (("tiny other", tree), ("tiny", ROOT)):
            run(name, where, tiny, files=many, clips=clips)
    for name, (_, bar, cosine) in WAYS.items():
        ratio = median(runs["other"], "seconds") / median(runs[name], "seconds")
        least = (bar if below else 0.0) or (1.3 if name == "chosen" else 0.0)
        if least:
            check(f"other tree / {name}", ratio, least=least)
        else:
            print(f"  other tree / {name}: {ratio:.3g} (no bar: torch runs at this chip's rate)")
        check(f"cosine of {name}", least_cosine(vectors[name], vectors["other"]), least=cosine)
    ratio = median(runs["tiny other"], "seconds") / median(runs["tiny"], "seconds")
    check("tiny encoder: other tree / this", ratio, least=0.95)
    memory = median(runs["chosen"], "peak_mb") / median(runs["other"], "peak_mb")
    check("peak memory: this / other tree", memory, most=1.0)
    loop_s = loop_seconds(base, files)
    per_clip = median(runs["chosen"], "seconds") / runs["chosen"][0]["clips"]
    print(f"  documented loop / chosen: {loop_s / per_clip:.3g} (goal: 4)")
    for name in ("other", "chosen", "chosen 25 %"):
        took = median(runs[name], "seconds") / runs[name][0]["clips"]
        hours = COIN_VIDEOS * COIN_CLIPS * took / 3600
        print(f"  COIN ({COIN_VIDEOS:,} videos, {COIN_CLIPS} clips), {name}: {hours:.1f} hours")


def once(
    tree: Path,
    encoder: Path,
    place: Path,
    home: Path,
    *,
    files: Sequence[str],
    clips: int,
    options: Mapping[str, str] | None = None,
    keep_tokens: float = 1.0,
) -> dict[str, Any]:
    """One run in a process of its own."""
    given = {
        "encoder": str(encoder),
        "files": list(files),
        "clips": clips,
        "keep_tokens": keep_tokens,
        "options": dict(options or {}),
        "set": str(place),
    }
    script = str(Path(__file__).with_name("_engine_once.py"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(tree), "COINML_HOME": str(home)},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def quantized(base: Path, files: Sequence[Path], sets: Path, *, clips: int) -> Path:
    """VideoMAE-base in int8, with the scales of a clip of each file."""
    encoder = load_encoder(
        base, device="cpu", kernel="torch-float32", sampling=Sampling(clips=clips)
    )
    seen = [sample(file, encoder.clip_spec()).frames[0] for file in files]
    sets.mkdir(parents=True, exist_ok=True)
    path = sets / "quantized"
    path.write_bytes(encoder.quantize(seen)[1])
    return path


def describe(run: Mapping[str, Any]) -> str:
    return (
        f"{run['clips']} clips in {run['seconds']:.1f} s, {run['cpu_s'] / run['clips']:.3f} CPU s "
        f"each, loaded in {run['load_s']:.1f} s, {run['peak_mb']:.0f} MB, {run['dtype']}; "
        f"{run['kernel'] or 'no kernel named'}"
    )


def loop_seconds(base: Path, files: Sequence[Path]) -> float:
    """Seconds of a clip in the loop of transformers' documentation, with all cores."""
    encoder = load_encoder(base, device="cpu", kernel="torch-float32", sampling=Sampling(clips=2))
    torch.set_num_threads(cpu_count())
    loop = documented_loop(base, jobs_of(files, 1), encoder, decoder="pyav")
    loop()
    begun = time.perf_counter()
    loop()
    return (time.perf_counter() - begun) / 2


def products() -> dict[str, Callable[[], object]]:
    """The widest product of VideoMAE-base: 1568 tokens, 768 by 3072."""
    tokens, weight = torch.ones(1568, 768), torch.ones(3072, 768)
    half, half_weight = tokens.bfloat16(), weight.bfloat16()
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    linear, onednn = torch.nn.functional.linear, torch.ops.mkldnn._linear_pointwise
    return {
        "torch float32": lambda: linear(tokens, weight),
        "oneDNN float32": lambda: onednn(tokens, packed, None, "none", [], ""),
        "torch bfloat16": lambda: linear(half, half_weight),
    }


def rate(product: Callable[[], object]) -> float:
    """GFLOP a second in one thread, the best of several."""
    torch.set_num_threads(1)
    best = float("inf")
    for _ in range(20):
        begun = time.process_time()
        product()
        best = min(best, time.process_time() - begun)
    torch.set_num_threads(cpu_count())
    return 2 * 1568 * 768 * 3072 / best / 1e9


def least_cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / lengths).min())


def median(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)
