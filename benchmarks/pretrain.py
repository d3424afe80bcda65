"""Pre-training's clips a second against the plain loop of transformers, in turns.

    python benchmarks/pretrain.py [--width 384] [--layers 12] [--steps 4] [--batch 8] [--rounds 3]

Both sides train a VideoMAE of the same shape (224 pixels, 16 frames, a mask of 90 %) on the same
drawn videos of 360 rows, with AdamW. The plain loop is that of transformers' documentation: PyAV in
the same process, `VideoMAEImageProcessorPil`, `VideoMAEForPreTraining`, one clip of each video; it
is also timed with coinml's autocast. On a CPU coinml must be 1.5 times as fast as the plain loop in
float32; the exit code is 1 if it is not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEImageProcessorPil

from coinml.data.records import Dataset, Video
from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from coinml.ledger import FileFacts, Ledger
from coinml.media import write_video
from coinml.pretraining.model import autocast, find_autocast
from coinml.pretraining.options import PretrainOptions
from coinml.pretraining.pretrain import pretrain

BAR = 1.5
VIDEOS, SECONDS, FPS, ROWS, COLUMNS = 8, 8, 25, 360, 640
FRAMES, STRIDE, RATIO = 16, 4, 0.9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("width", 384), ("layers", 12), ("steps", 4), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = find_autocast("auto", device)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        files = draw(home)
        encoder = save_encoder(home / "encoder", width=given.width, layers=given.layers)
        found: dict[str, list[float]] = {}
        for number in range(given.rounds):
            sides = {
                "coinml": lambda out=home / str(number): ours(home, encoder, out, given),
                "plain loop, float32": lambda: plain(files, encoder, given, device, torch.float32),
                f"plain loop, {dtype}": lambda: plain(files, encoder, given, device, dtype),
            }
            for name, side in sides.items():
                found.setdefault(name, []).append(side())
    rates = {name: statistics.median(some) for name, some in found.items()}
    for name, rate in rates.items():
        print(f"| {name} | {rate:.2f} clips/s | {rates['coinml'] / rate:.2f} |")
    met = device.type != "cpu" or rates["coinml"] >= BAR * rates["plain loop, float32"]
    print(f"{'met' if met else 'MISSED'}: {BAR} times the plain loop on a CPU; device {device}")
    return 0 if met else 1


def draw(folder: Path) -> list[Path]:
    """Videos of moving noise, recorded in a ledger."""
    rng = np.random.default_rng(0)
    files = []
    with Ledger(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        ledger.register(dataset())
        for video in dataset().videos:
            small = rng.integers(0, 255, (ROWS // 8, COLUMNS // 8, 3), dtype=np.uint8)
            still = small.repeat(8, axis=0).repeat(8, axis=1)
            frames = (np.roll(still, 3 * t, axis=1) for t in range(SECONDS * FPS))
            path = write_video(folder / f"{video.video_id}.mp4", frames, fps=FPS)
            facts = FileFacts(path=str(path), size_bytes=path.stat().st_size, sha256=path.stem * 4)
            ledger.record_success("drawn", video.video_id, file=facts, attempt=None)
            files.append(path)
    return files


def dataset() -> Dataset:
    return Dataset(
        name="drawn",
        videos=tuple(
            Video(video_id=f"drawn{i:06d}", label="a", subset="training", split="train")
            for i in range(VIDEOS)
        ),
    )


def save_encoder(folder: Path, *, width: int, layers: int) -> Path:
    config = VideoMAEConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        decoder_hidden_size=width // 2,
        decoder_num_attention_heads=max(1, width // 128),
        decoder_intermediate_size=2 * width,
    )
    torch.manual_seed(0)
    VideoMAEForPreTraining(config).save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def processor() -> Any:
    return VideoMAEImageProcessorPil(image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD))


def ours(home: Path, encoder: Path, out: Path, given: argparse.Namespace) -> float:
    """Clips a second of coinml."""
    with Ledger(f"sqlite:///{home / 'ledger.db'}") as ledger:
        options = PretrainOptions(
            steps=given.steps, batch_clips=given.batch, crops=4, mask_ratio=RATIO, stride=STRIDE
        )
        report = pretrain(dataset(), ledger, options, parent=find_checkpoint(encoder), out=out)
    assert report.clips_per_s is not None
    return report.clips_per_s


def plain(
    files: list[Path],
    encoder: Path,
    given: argparse.Namespace,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Clips a second of a loop without coinml."""
    model = VideoMAEForPreTraining.from_pretrained(encoder).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    prepare, rng = processor(), np.random.default_rng(0)
    positions = (224 // 16) ** 2
    started, number = time.perf_counter(), 0
    for _ in range(given.steps):
        pixels, masks = [], []
        for _ in range(given.batch):
            start = int(rng.integers(SECONDS * FPS - FRAMES * STRIDE))
            clip = read_clip(files[number % len(files)], start)
            pixels.append(prepare(clip, return_tensors="pt")["pixel_values"][0])
            tube = np.zeros(positions, dtype=bool)
            tube[rng.permutation(positions)[: round(RATIO * positions)]] = True
            masks.append(np.tile(tube, FRAMES // 2))
            number += 1
        with autocast(dtype, device):
            loss = model(
                torch.stack(pixels).to(device),
                bool_masked_pos=torch.from_numpy(np.stack(masks)).to(device),
            ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return number / (time.perf_counter() - started)


def read_clip(path: Path, start: int) -> list[np.ndarray]:
    """Frames at a stride, from a seek to the key frame before the first."""
    wanted = {start + STRIDE * i for i in range(FRAMES)}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(start / FPS / stream.time_base), stream=stream)
        frames = []
        for frame in container.decode(stream):
            index = round(float(frame.time) * FPS)
            if index in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if index >= max(wanted):
                break
    return frames


if __name__ == "__main__":
    sys.exit(main())
