"""Trains the tiny VideoMAE of this package: `python -m coinml.miniature.pretrain`.

Training is supervised, on drawn clips of random combinations of surface, tool and motion. Linear
heads classify all three from the mean token, which is coinml's embedding of a clip, and from each
token: tool and motion from tokens that the tool touches, the surface from the others. The loss per
token lets a model of a million weights train in an hour on two cores. Combinations and seeds of
the miniature's six tasks are never drawn.

A stopped run resumes from `checkpoint.pt` in the output folder.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from coinml.encoder.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessor
from coinml.miniature.model_card import write_card
from coinml.miniature.pretraining_clips import FRAMES, ClipBatch, draw_clips
from coinml.miniature.scenes import MOTIONS, SURFACES, TOOLS
from coinml.runtime.atomic_files import written_whole
from coinml.runtime.devices import find_device

ATTRIBUTES = {"surface": SURFACES, "tool": TOOLS, "motion": MOTIONS}
IMAGE_SIZE, PATCH_SIZE, TUBELET = 80, 16, 4
GRID = IMAGE_SIZE // PATCH_SIZE
HIDDEN, LAYERS, HEADS = 128, 4, 4
WARMUP_STEPS = 200
CHECKPOINT_STEPS = 250
HELD_OUT_SEED, HELD_OUT_CLIPS = 1, 512
"""Clips of seed 0 are for training, those of seed 1 are held out."""


class Pretraining(nn.Module):
    """The encoder with the linear heads of its training, which are discarded afterwards."""

    def __init__(self) -> None:
        from transformers import VideoMAEConfig, VideoMAEModel

        super().__init__()
        self.encoder = VideoMAEModel(
            VideoMAEConfig(
                image_size=IMAGE_SIZE,
                patch_size=PATCH_SIZE,
                num_frames=FRAMES,
                tubelet_size=TUBELET,
                hidden_size=HIDDEN,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                intermediate_size=4 * HIDDEN,
                use_mean_pooling=False,
            )
        )
        sizes = [len(values) for values in ATTRIBUTES.values()]
        self.clip_heads = nn.ModuleList(nn.Linear(HIDDEN, size) for size in sizes)
        self.token_heads = nn.ModuleList(nn.Linear(HIDDEN, size) for size in sizes)
        self.preprocessor = Preprocessor(resize=IMAGE_SIZE, crop=(IMAGE_SIZE, IMAGE_SIZE))

    def tokens(self, frames: Tensor) -> Tensor:
        """Encode clips, uint8 (N, T, height, width, 3), to tokens (N, tokens, HIDDEN)."""
        small = self.preprocessor.resized(frames.flatten(0, 1)).float() / 255
        mean, std = (
            torch.tensor(values, device=small.device).view(3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        pixels = ((small - mean) / std).view(*frames.shape[:2], *small.shape[1:])
        tokens: Tensor = self.encoder(pixel_values=pixels).last_hidden_state
        return tokens

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Sum of the cross-entropies of the three attributes, from the clip and its tokens."""
        tokens, labels, touched = self.tokens(batch["frames"]), batch["labels"], batch["touched"]
        clip = tokens.mean(dim=1)
        loss = tokens.new_zeros(())
        for index, (clip_head, token_head) in enumerate(
            zip(self.clip_heads, self.token_heads, strict=True)
        ):
            loss = loss + functional.cross_entropy(clip_head(clip), labels[:, index])
            # Tokens that the tool touches show tool and motion, the others the surface.
            informative = touched if index else ~touched
            target = labels[:, index, None].expand_as(touched)[informative]
            loss = loss + functional.cross_entropy(token_head(tokens[informative]), target)
        return loss


def pretrain(
    out: Path,
    *,
    steps: int = 3500,
    batch_size: int = 32,
    lr: float = 2e-3,
    seed: int = 0,
    device: str = "auto",
    stop_after: int | None = None,
) -> dict[str, float] | None:
    """Train, save the encoder and its model card to `out`, and return its accuracies.

    Args:
        out: Becomes a checkpoint folder for `AutoModel.from_pretrained`.
        steps: Optimiser steps, which also set the learning-rate schedule.
        batch_size: Clips per step.
        lr: Peak learning rate of AdamW.
        seed: Seed of the initial weights.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        stop_after: Stop early after this many steps; the next call resumes.

    Returns:
        Accuracy on held-out clips by attribute, or None when stopped early.
    """
    out.mkdir(parents=True, exist_ok=True)
    chosen = find_device(device)
    torch.manual_seed(seed)
    model = Pretraining().to(chosen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, steps))
    checkpoint = out / "checkpoint.pt"
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = _resume(checkpoint, parts, settings={"steps": steps, "batch": batch_size, "seed": seed})
    last = min(steps, stop_after or steps)
    for batch in _with_bar(
        _batches(done, last, batch_size, cuda=chosen.type == "cuda"), done, steps
    ):
        loss = model.loss({name: part.to(chosen) for name, part in batch.items()})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        done += 1
        if done % CHECKPOINT_STEPS == 0 or done == last:
            _save_checkpoint(checkpoint, parts, done)
    if done < steps:
        return None
    accuracies = held_out_accuracies(model)
    _export(model, out)
    write_card(
        out,
        accuracies,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        parameters=sum(weight.numel() for weight in model.encoder.parameters()),
        held_out=HELD_OUT_CLIPS,
    )
    checkpoint.unlink()
    return accuracies


@torch.no_grad()
def held_out_accuracies(model: Pretraining) -> dict[str, float]:
    """Accuracy of the mean token on held-out clips, by attribute."""
    model.eval()
    device = next(model.parameters()).device
    right = torch.zeros(len(ATTRIBUTES))
    size = 32
    for number in range(HELD_OUT_CLIPS // size):
        batch = _tensors(draw_clips(HELD_OUT_SEED, number, size, tubelet=TUBELET, grid=GRID))
        clip = model.tokens(batch["frames"].to(device)).mean(dim=1)
        for index, head in enumerate(model.clip_heads):
            right[index] += (head(clip).argmax(dim=1).cpu() == batch["labels"][:, index]).sum()
    model.train()
    return dict(zip(ATTRIBUTES, (right / HELD_OUT_CLIPS).tolist(), strict=True))


class _Batches(Dataset[dict[str, Tensor]]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return _tensors(draw_clips(0, number, self.size, tubelet=TUBELET, grid=GRID))


def _tensors(batch: ClipBatch) -> dict[str, Tensor]:
    return {
        "frames": torch.from_numpy(batch.frames),
        "labels": torch.from_numpy(batch.labels),
        "touched": torch.from_numpy(batch.touched),
    }


def _batches(start: int, end: int, size: int, *, cuda: bool) -> Iterator[dict[str, Tensor]]:
    # A GPU needs several drawing processes; on the CPU drawing takes a tenth of the time.
    loader = DataLoader(
        _Batches(size),
        sampler=range(start, end),
        batch_size=None,
        num_workers=8 if cuda else 1,
        # A child forked from a process with threads may hang on a lock.
        multiprocessing_context="spawn",
        pin_memory=cuda,
    )
    return iter(loader)


def _with_bar(
    batches: Iterator[dict[str, Tensor]], done: int, steps: int
) -> Iterator[dict[str, Tensor]]:
    from rich.console import Console
    from rich.progress import track

    yield from track(
        batches,
        description="pretrain",
        total=steps,
        completed=done,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _lr_factor(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def _resume(checkpoint: Path, parts: dict[str, Any], settings: dict[str, int]) -> int:
    parts["settings"] = settings
    if not checkpoint.is_file():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    if saved["settings"] != settings:
        raise SystemExit(
            f"{checkpoint} is from a run with {saved['settings']}, not {settings}; "
            "continue with those settings or remove it"
        )
    for name in ("model", "optimizer", "schedule"):
        parts[name].load_state_dict(saved[name])
    return int(saved["done"])


def _save_checkpoint(checkpoint: Path, parts: dict[str, Any], done: int) -> None:
    content: dict[str, Any] = {"done": done, "settings": parts["settings"]}
    for name in ("model", "optimizer", "schedule"):
        content[name] = parts[name].state_dict()
    with written_whole(checkpoint) as partial:
        torch.save(content, partial)


def _export(model: Pretraining, out: Path) -> None:
    """Write the checkpoint folder with weights in half precision, which halves its size."""
    half: Any = model.encoder
    half.half().save_pretrained(out)
    processor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m coinml.miniature.pretrain")
    parser.add_argument("--out", type=Path, default=Path("pretrain-out"))
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    accuracies = pretrain(
        options.out,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        seed=options.seed,
        device=options.device,
    )
    for name, accuracy in (accuracies or {}).items():
        sys.stdout.write(f"{name}: {accuracy:.3f} on {HELD_OUT_CLIPS} held-out clips\n")


if __name__ == "__main__":
    main()
