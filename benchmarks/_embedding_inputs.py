"""Inputs of the embedding benchmarks, and the measurements that the engine is compared with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder
from coinml.media import ClipSpec, DecodePool, sample, write_video
from coinml.runtime.cpus import cpu_count

COIN_VIDEOS, COIN_CLIPS = 11_827, 8
SIZE = (640, 360)
FILES = 4


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


def decode_limit(files: Sequence[Path], spec: ClipSpec, videos: int) -> float:
    """Videos per second of the decoding processes if the frames are discarded.

    Every worker always has a next request. The first and the last videos are not counted, since
    not all workers are busy then.
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
