"""Pre-training an encoder on the collected training videos, from its newest checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.data.records import Dataset
from coinml.embedding_sets.table import ids_digest
from coinml.encoder.checkpoint import Checkpoint, find_checkpoint
from coinml.encoder.sampling import Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.ledger import DOWNLOADED, Ledger
from coinml.media import DecodePool
from coinml.pretraining.checkpoints import (
    CheckpointFolder,
    TrainingRecord,
    processor_fields,
    read_record,
    read_state,
    require_same_recipe,
)
from coinml.pretraining.clip_stream import ClipStream, StreamSettings
from coinml.pretraining.masking import Masking
from coinml.pretraining.options import PretrainOptions
from coinml.pretraining.pretrain_report import PretrainReport
from coinml.pretraining.training_run import finish, recorded
from coinml.pretraining.training_videos import TrainingVideo, training_videos
from coinml.runtime.cpus import cpu_count
from coinml.runtime.devices import find_device

if TYPE_CHECKING:
    import torch

    from coinml.pretraining.training_loop import TrainingLoop
    from coinml.tracking.mlflow_store import MlflowStore


def pretrain(
    dataset: Dataset,
    ledger: Ledger,
    options: PretrainOptions,
    *,
    parent: Checkpoint,
    out: Path,
    device: str = "auto",
    workers: int | None = None,
    store: MlflowStore | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _steps: None,
) -> PretrainReport:
    """Train an encoder to rebuild masked clips of the collected training videos.

    A call continues from the newest checkpoint in `out`; on a CPU, the weights are then the same
    as without the interruption, bit for bit. Videos of val and test are not opened.

    Args:
        dataset: The videos with their splits.
        ledger: Says where their files are.
        options: Masks, steps, optimiser.
        parent: The encoder that training continues from, or whose shape it takes.
        out: Folder of the checkpoints.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        workers: Number of decoding processes; by default as many as the device needs.
        store: Where the run is recorded; None records none.
        on_step: Called with the number of steps that are done, and of all.

    Raises:
        InvalidInputError: No training video is collected, none of them decodes, the parent is no
            VideoMAE, or `out` has checkpoints of another training.
        LocalError: The disk is full, another process trains into `out`, or the loss is not finite.
    """
    import torch

    from coinml.pretraining.model import MaskedAutoencoder, find_autocast, load_model
    from coinml.pretraining.training_loop import TrainingLoop

    place = find_device(device)
    videos = training_videos(dataset, ledger.rows_of(dataset, state=DOWNLOADED))
    spec = parent.spec(Sampling(stride=options.stride))
    masking = Masking(
        kind=options.masking,
        ratio=options.mask_ratio,
        grid=parent.architecture.grid(parent.config, spec.frames),
    )
    dtype = find_autocast(options.dtype, place)
    folder = CheckpointFolder(out.expanduser().resolve())
    with folder.held():
        newest = folder.newest()
        known = None if newest is None else read_record(newest)
        if known is not None and not known.complete:
            # The collection may go on meanwhile: what came later is left to the next training.
            begun_with = set(known.video_ids)
            videos = [video for video in videos if video.video_id in begun_with]
        recipe = _recipe(dataset, videos, options, spec, masking, dtype)
        if newest is not None and known is not None:
            require_same_recipe(known, recipe, newest)
        record = known or TrainingRecord(
            step=0,
            steps=options.steps,
            recipe=recipe,
            video_ids=[video.video_id for video in videos],
            ledger_digest=ledger.digest(dataset.name),
        )
        resumed_at = record.step
        if newest is not None and record.complete:
            # A kill after the last checkpoint leaves these two undone.
            folder.forget_states(record)
            finish(store, record)
            return _report(record, newest, dataset, videos, resumed_at, None)
        state = None if newest is None else read_state(newest)
        settings = StreamSettings(
            masking=masking,
            frames=spec.frames,
            stride=spec.stride,
            size=spec.crop,
            crops=options.crops,
            videos_per_step=options.batch_clips // options.crops,
            seed=options.seed,
        )
        with (
            torch.random.fork_rng(devices=[place] if place.type == "cuda" else []),
            DecodePool(workers=workers or _workers(place)) as pool,
            ClipStream(videos, pool, settings, record.step, options.steps, record.failed) as stream,
            recorded(store, dataset, record, options) as log,
        ):
            model = load_model(
                parent if newest is None else find_checkpoint(newest),
                from_scratch=options.from_scratch and newest is None,
                seed=options.seed,
            )
            loop = TrainingLoop(
                MaskedAutoencoder(model, mean=spec.mean, std=spec.std).to(place),
                stream,
                record,
                folder,
                options=options,
                dtype=dtype,
                processor=processor_fields(spec),
                log=log,
                state=state,
            )
            last = loop.run(on_step)
        return _report(record, last, dataset, videos, resumed_at, loop)


def _recipe(
    dataset: Dataset,
    videos: Sequence[TrainingVideo],
    options: PretrainOptions,
    spec: EncoderSpec,
    masking: Masking,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Everything that decides the weights, as JSON values."""
    files = "".join(f"{video.video_id}\t{video.sha256}\n" for video in videos)
    return {
        **options.decisive(),
        "dtype": str(dtype).removeprefix("torch."),
        "lr": options.peak_lr,
        "masked_share": masking.masked_share,
        "parent": spec.encoder,
        "parent_weights_sha256": spec.weights_sha256,
        "dataset": dataset.name,
        "videos": len(videos),
        "ids_digest": ids_digest(video.video_id for video in videos),
        "files_digest": hashlib.sha256(files.encode()).hexdigest()[:12],
    }


def _workers(device: torch.device) -> int:
    """Decoding processes: on a CPU few, since they take the cores that the model computes with."""
    return cpu_count() if device.type == "cuda" else max(1, cpu_count() // 4)


def _report(
    record: TrainingRecord,
    checkpoint: Path,
    dataset: Dataset,
    videos: Sequence[TrainingVideo],
    resumed_at: int,
    loop: TrainingLoop | None,
) -> PretrainReport:
    return PretrainReport(
        dataset=dataset.name,
        checkpoint=str(checkpoint),
        videos=len(videos),
        failed=record.failed,
        steps=record.step,
        resumed_at=resumed_at,
        clips=record.clips,
        first_loss=record.losses[0] if record.losses else None,
        last_loss=record.losses[-1] if record.losses else None,
        clips_per_s=loop.clips_per_s if loop else None,
        waited_share=loop.waited_share if loop else None,
        run_id=record.run_id,
    )
