"""The steps of a pre-training: loss, gradient, optimiser, checkpoint, and what is logged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coinml.encoder.checkpoint import first_line
from coinml.errors import InvalidInputError, LocalError
from coinml.pretraining.card import card_of
from coinml.pretraining.checkpoints import CheckpointFolder, TrainingRecord
from coinml.pretraining.clip_stream import Batch, ClipStream
from coinml.pretraining.model import MaskedAutoencoder, autocast, masks_on
from coinml.pretraining.optimization import make_optimizer
from coinml.pretraining.options import PretrainOptions
from coinml.pretraining.reconstructions import FixedClips
from coinml.pretraining.training_run import WINDOW, TrainingLog
from coinml.pretraining.views import step_seed

_FAILED_IN_A_ROW = 64
"""So many videos fail together if their disk is gone; steps without clips would be lost."""

_MAX_GRADIENT = 1.0
"""Norm to which a larger gradient is shortened."""


class TrainingLoop:
    """Trains a model with the clips of a stream.

    Args:
        model: On its device.
        stream: Gives the clips, from the record's step on.
        record: How far the training is; kept up to date.
        folder: Gets the checkpoints.
        options: Optimiser, accumulation, steps between checkpoints.
        dtype: The type that matrix products are computed in.
        processor: Content of the checkpoints' `preprocessor_config.json`.
        log: Gets what is measured.
        state: State of the optimiser and the schedule to continue from; None at the beginning.

    Attributes:
        clips_per_s: Clips per second, since the beginning of `run`.
        waited_share: Share of this time in which the model waited for clips.
    """

    def __init__(
        self,
        model: MaskedAutoencoder,
        stream: ClipStream,
        record: TrainingRecord,
        folder: CheckpointFolder,
        *,
        options: PretrainOptions,
        dtype: torch.dtype,
        processor: Mapping[str, Any],
        log: TrainingLog,
        state: Mapping[str, Any] | None,
    ) -> None:
        self._model = model.train()
        if options.gradient_checkpointing:
            model.save_memory()
        self._device = next(model.parameters()).device
        self._stream = stream
        self._record = record
        self._folder = folder
        self._options = options
        self._dtype = dtype
        self._processor = processor
        self._log = log
        self._optimizer, self._schedule = make_optimizer(model, options)
        if state is not None:
            try:
                self._optimizer.load_state_dict(state["optimizer"])
                self._schedule.load_state_dict(state["schedule"])
            except (ValueError, KeyError, TypeError) as err:
                raise InvalidInputError(
                    f"{folder.place(record.step)}: its training state is not of this model "
                    f"({first_line(err)}); choose another --out"
                ) from err
        self._recent = [torch.tensor(loss) for loss in record.recent]
        self._gradients: list[Tensor] = []
        self.clips_per_s = self.waited_share = 0.0

    def run(self, on_step: Callable[[int, int], None]) -> Path:
        """Do all steps; returns the last checkpoint.

        Raises:
            InvalidInputError: No file of an epoch decodes.
            LocalError: The loss is not finite, or a checkpoint cannot be written.
        """
        fixed = FixedClips(self._stream)
        started, clips_before = time.perf_counter(), self._record.clips
        waited_s, last = 0.0, self._folder.place(self._record.step)
        window = (started, clips_before, waited_s)
        while not self._record.complete:
            batch = self._stream.take()
            waited_s += batch.waited_s
            lr = float(self._schedule.get_last_lr()[0])
            self._step(batch)
            self._record.step += 1
            now, seen = time.perf_counter(), self._record.clips
            if self._record.step % WINDOW == 0 or self._record.complete:
                before_s, clips, waited = window
                values = {
                    **self._close_window(),
                    "lr": lr,
                    "clips_per_s": (seen - clips) / (now - before_s),
                    "waited_share": (waited_s - waited) / (now - before_s),
                }
                self._log.window(values, self._record.step)
                window = (now, seen, waited_s)
            self.clips_per_s = (seen - clips_before) / (now - started)
            self.waited_share = waited_s / (now - started)
            if self._record.step % self._options.checkpoint_steps == 0 or self._record.complete:
                last = self._write()
                self._log.pictures(self._record.step, fixed.rebuilt_by(self._model))
            on_step(self._record.step, self._record.steps)
        return last

    def _step(self, batch: Batch) -> None:
        """One step of optimiser and schedule; without clips, only the schedule moves on."""
        torch.manual_seed(step_seed(self._options.seed, self._record.step))
        if batch.images is None:
            if len(self._stream.failed) == len(self._stream.videos):
                raise InvalidInputError(
                    f"none of the {len(self._stream.videos):,} training videos decodes, such as "
                    + ": ".join(min(self._stream.failed.items()))
                )
            if self._stream.failed_in_a_row >= _FAILED_IN_A_ROW:
                raise LocalError(
                    f"the last {self._stream.failed_in_a_row} videos do not decode, such as "
                    + ": ".join(list(self._stream.failed.items())[-1])
                    + "; if their disk is back, the same call continues from the last checkpoint"
                )
        else:
            clips = len(batch.images)
            loss = torch.zeros((), device=self._device)
            for part in np.array_split(np.arange(clips), min(self._options.accumulate, clips)):
                loss += self._backward(batch, part) * (len(part) / clips)
            gradient = nn.utils.clip_grad_norm_(self._model.parameters(), _MAX_GRADIENT)
            self._record.clips += clips
            # Read later: a GPU would have to finish its work first.
            self._recent.append(loss)
            self._gradients.append(gradient)
        # Without gradients, this changes no weight.
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()

    def _backward(self, batch: Batch, part: np.ndarray[Any, Any]) -> Tensor:
        """Add the gradient of some of a step's clips, by their share; returns their loss."""
        assert batch.images is not None
        images = batch.images[part].to(self._device, non_blocking=True)
        masks = masks_on(batch.masks[part], self._device)
        with autocast(self._dtype, self._device):
            loss: Tensor = self._model(images, masks)
        (loss * (len(part) / len(batch.images))).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _close_window(self) -> dict[str, float]:
        """Mean loss and gradient norm since the last window; none if no file did decode."""
        losses, gradients = self._losses(), [float(one) for one in self._gradients]
        self._recent, self._gradients, self._record.recent = [], [], []
        if not losses:
            return {}
        self._record.losses.append(float(np.mean(losses)))
        # Those before a resumed step are not known.
        known = {"grad_norm": float(np.mean(gradients))} if gradients else {}
        return {"loss": self._record.losses[-1], **known}

    def _losses(self) -> list[float]:
        losses = [float(one) for one in self._recent]
        if not all(map(math.isfinite, losses)):
            raise LocalError(
                f"the loss is not finite before step {self._record.step:,}: the last checkpoint is "
                "of an earlier step; choose another --out and a smaller --lr"
            )
        return losses

    def _write(self) -> Path:
        self._record.recent = self._losses()
        name = self._folder.place(self._record.step).name
        return self._folder.write(
            self._record,
            model=self._model.model,
            state={
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
            },
            processor=self._processor,
            card=card_of(name, self._record),
        )
