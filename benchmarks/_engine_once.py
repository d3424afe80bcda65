"""One run of the embedding engine in a process of its own, with this tree or an earlier one.

    PYTHONPATH=TREE python _engine_once.py '{"encoder": ..., "files": [...], ...}'

Prints what it took as JSON. It uses only what coinml had before kernels could be chosen.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling


def cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_mb() -> float:
    # Not `ru_maxrss`, which begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(given: dict) -> dict:
    begun = time.perf_counter()
    sampling = Sampling(clips=given["clips"], keep_tokens=given["keep_tokens"])
    options = given["options"]
    if "quantized" in options:
        sampling = replace(sampling, precision="int8")
        options["quantized"] = Path(options["quantized"])
    encoder = load_encoder(given["encoder"], device="cpu", sampling=sampling, **options)
    load_s = time.perf_counter() - begun
    jobs = [
        EmbedJob(video_id=f"{number:05d}", path=path, file_sha256=f"{number:064d}")
        for number, path in enumerate(given["files"])
    ]
    spec = SetSpec(encoder=encoder.spec, dataset="bench")
    embeddings = EmbeddingSet.open(given["set"], "bench", spec, create=True)
    before, begun = cpu_seconds(), time.perf_counter()
    report = embed(jobs, encoder, embeddings)
    seconds = time.perf_counter() - begun
    used = cpu_seconds() - before
    rows = embeddings.clips(["video_id", "clip", "embedding"]).to_pandas()
    vectors = np.stack(rows.sort_values(["video_id", "clip"])["embedding"]).astype(np.float32)
    np.save(Path(given["set"]) / "vectors.npy", vectors)
    return {
        "clips": report.clips,
        "load_s": load_s,
        "seconds": seconds,
        "cpu_s": used,
        "peak_mb": peak_mb(),
        "kernel": str(getattr(report, "kernel", "")),
        "dtype": encoder.dtype_name,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
