"""Loading an embedding set of COIN's size as a matrix: 11,827 videos of 8 clips, 768 dimensions.

Each load is a new process: coinml with the parts as written by a run and after `compact`, and
plain pandas for comparison (read_parquet of each part, concat, groupby, mean). Prints medians and
ratios; the exit code is 1 if coinml takes 2 s or 1 GB or more. `--videos N` makes a smaller set,
for a quick run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from coinml.embedding_sets import EmbeddingSet, VideoRows
from coinml.embedding_sets.compaction import compact
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.spec import EncoderSpec

CLIPS, DIM, FRAMES = 8, 768, 16
PART_VIDEOS = 256
MOST_S, MOST_BYTES = 2.0, 1e9

_MEASURE = """
import json, resource, sys, time
{imports}
path, = sys.argv[1:]
begun, cpu_begun = time.perf_counter(), time.process_time()
{load}
seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
digest = [float(matrix.sum(dtype="float64")), list(matrix.shape), str(matrix.dtype)]
print(json.dumps({{"seconds": seconds, "cpu": cpu, "peak": peak, "digest": digest}}))
"""

COINML = _MEASURE.format(
    imports="import pandas, pyarrow.parquet; from coinml.embedding_sets import find_set",
    load='matrix = find_set(path, "coin").videos().filter(regex="^e[0-9]").to_numpy()',
)

PANDAS = _MEASURE.format(
    imports="import pathlib, numpy, pandas, pyarrow.parquet",
    load="""
parts = sorted(pathlib.Path(path).glob("coin/*/part-*.parquet"))
table = pandas.concat([pandas.read_parquet(part) for part in parts])
vectors = pandas.DataFrame(numpy.stack(table["embedding"]).astype("float32"))
matrix = vectors.groupby(table["video_id"].to_numpy()).mean().to_numpy()
""",
)


def main() -> int:
    options = _options()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as root:
        embeddings = make_set(root, options.videos)
        clips = options.videos * CLIPS
        print(f"{options.videos:,} videos, {clips:,} clips of {DIM}, medians of {options.repeats}")
        results = {}
        for state in ("as a run leaves them", "compacted"):
            sizes = embeddings.part_sizes()
            print(f"\n{len(sizes)} parts {state}, {sum(sizes.values()) / 1e6:.0f} MB")
            ours, theirs = measure(root, options.repeats)
            results[state] = ours
            show("coinml", ours)
            show("pandas", theirs)
            print(
                f"ratio    {theirs['seconds'] / ours['seconds']:.1f} x the time, "
                f"{theirs['peak'] / ours['peak']:.1f} x the memory"
            )
            if state != "compacted":
                compact(embeddings)
    holds = all(one["seconds"] < MOST_S and one["peak"] < MOST_BYTES for one in results.values())
    print(f"\nunder {MOST_S:g} s and {MOST_BYTES / 1e9:g} GB: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=11_827, help="videos in the set")
    parser.add_argument("--repeats", type=int, default=5, help="loads of each kind")
    return parser.parse_args()


def make_set(root: str, videos: int) -> EmbeddingSet:
    """A set of random vectors, in parts as written by a run."""
    encoder = EncoderSpec(
        encoder="random",
        architecture="videomae",
        weights_sha256="0" * 64,
        resize=224,
        crop=(224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        dim=DIM,
    )
    spec = SetSpec(encoder=encoder, dataset="coin")
    embeddings = EmbeddingSet.open(root, "coin", spec, create=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(videos)
    for start in range(0, videos, PART_VIDEOS):
        embeddings.append(
            [random_rows(number, rng) for number in order[start : start + PART_VIDEOS]]
        )
    return embeddings


def random_rows(number: int, rng: np.random.Generator) -> VideoRows:
    return VideoRows(
        video_id=f"{number:011d}",
        file_sha256=f"{number:064x}",
        timestamps_s=np.sort(rng.uniform(0, 140, (CLIPS, FRAMES)), axis=1),
        decoder="pyav",
        frames_decoded=CLIPS * FRAMES,
        frames_substituted=0,
        dtype="float32",
        embeddings=rng.standard_normal((CLIPS, DIM), dtype=np.float32),
    )


def measure(root: str, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of both sides, measured in turn; both must give the same matrix."""
    found: dict[str, list[dict[str, float]]] = {COINML: [], PANDAS: []}
    digests = set()
    for _ in range(repeats):
        for script, runs in found.items():
            answer, wall_s = fresh_process(script, root)
            total, shape, dtype = answer.pop("digest")
            digests.add((round(total, 1), *shape, dtype))
            runs.append({**answer, "wall": wall_s})
    if len(digests) != 1:
        raise SystemExit(f"the two sides do not give the same matrix: {digests}")
    ours, theirs = (
        {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for runs in found.values()
    )
    return ours, theirs


def fresh_process(script: str, root: str) -> tuple[dict, float]:
    """The measurements of a new interpreter, and the seconds of the whole process."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, root],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return json.loads(done.stdout), time.perf_counter() - begun


def show(name: str, medians: dict[str, float]) -> None:
    print(
        f"{name:<8} {medians['seconds']:.2f} s to load ({medians['cpu']:.2f} s of CPU; "
        f"{medians['wall']:.2f} s with the start of Python and its imports), "
        f"{medians['peak'] / 1e6:,.0f} MB at most"
    )


if __name__ == "__main__":
    sys.exit(main())
