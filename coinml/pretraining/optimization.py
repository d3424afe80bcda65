"""AdamW with warm-up and cosine, as VideoMAE's authors trained it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coinml.pretraining.options import PretrainOptions

_BETAS = (0.9, 0.95)


def make_optimizer(
    model: nn.Module, options: PretrainOptions
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser of a model's weights and the schedule of its rate; vectors do not decay."""
    from transformers import get_cosine_schedule_with_warmup

    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for weight in model.parameters():
        # The mask token is a vector of shape (1, 1, width).
        (matrices if weight.squeeze().ndim > 1 else vectors).append(weight)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.peak_lr, betas=_BETAS)
    schedule = get_cosine_schedule_with_warmup(
        optimizer,
        num_warmup_steps=round(options.warmup * options.steps),
        num_training_steps=options.steps,
    )
    return optimizer, schedule
