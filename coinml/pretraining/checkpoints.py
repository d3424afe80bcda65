"""Checkpoints of a pre-training: ordinary transformers folders, with what it takes to resume.

`<out>/<name of out>-<step>` has the weights, the processor's file and a card. The newest one also
has `training.pt`, with the optimiser's state. A folder has its name once it is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coinml.encoder.checkpoint import first_line
from coinml.encoder.processor_files import PROCESSOR_FILES
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.atomic_files import PARTIAL_GLOB, folder_written_whole

_STATE, _RECORD = "training.pt", "training.json"


@dataclass(kw_only=True)
class TrainingRecord:
    """How far a pre-training is, and what it is made of; `training.json` of a checkpoint.

    Attributes:
        step: Steps that are done.
        steps: Steps in all.
        recipe: Everything that decides the weights, as JSON values.
        video_ids: The videos that it sees.
        ledger_digest: Of the ledger when the training began.
        losses: Mean loss of each ten steps, from the first.
        recent: Losses of the steps since.
        clips: Clips that were seen.
        failed: Why files did not decode, by video id.
        run_id: The MLflow run; None if none is recorded.
    """

    step: int
    steps: int
    recipe: dict[str, Any]
    ledger_digest: str
    video_ids: list[str]
    losses: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    clips: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None

    @property
    def complete(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps


class CheckpointFolder:
    """The checkpoints of one pre-training.

    Args:
        out: Their folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._pattern = re.compile(re.escape(out.name) + r"-(\d+)")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training here, and remove what a killed one left.

        Raises:
            LocalError: Another process trains here, or the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        try:
            self.out.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.out / ".lock", timeout=0)
            lock.acquire()
        except Timeout as err:
            raise LocalError(f"{self.out}: another process pre-trains into this folder") from err
        except OSError as err:
            raise LocalError(f"{self.out}: {err.strerror}") from err
        try:
            for left in self.out.glob(PARTIAL_GLOB):
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            lock.release()

    def newest(self) -> Path | None:
        """The checkpoint with the most steps; None if there is none."""
        found = self._by_step()
        return found[max(found)] if found else None

    def place(self, step: int) -> Path:
        """The folder of the checkpoint after some steps."""
        return self.out / f"{self.out.name}-{step:06d}"

    def write(
        self,
        record: TrainingRecord,
        *,
        model: Any,
        state: Mapping[str, Any],
        processor: Mapping[str, Any],
        card: str,
    ) -> Path:
        """Write a checkpoint; earlier ones keep their weights and lose their training state.

        Args:
            record: How far the training is.
            model: The model, whose weights are written.
            state: State of the optimiser and the schedule.
            processor: Content of `preprocessor_config.json`.
            card: Content of `README.md`.

        Raises:
            LocalError: The disk is full, or the folder cannot be written.
        """
        import torch
        from safetensors import SafetensorError

        place = self.place(record.step)
        try:
            with folder_written_whole(place) as partial:
                model.save_pretrained(partial)
                _write_json(partial / PROCESSOR_FILES[-1], processor)
                (partial / "README.md").write_text(card, encoding="utf-8")
                _write_json(partial / _RECORD, asdict(record))
                if not record.complete:
                    torch.save(dict(state), partial / _STATE)
            self.forget_states(record)
        except OSError as err:
            raise LocalError(f"{place}: {err.strerror or err}") from err
        except (SafetensorError, RuntimeError) as err:
            # What these libraries raise when a write fails; torch does not say why.
            raise LocalError(
                f"{place}: cannot be written, is the disk full? ({first_line(err)})"
            ) from err
        return place

    def forget_states(self, record: TrainingRecord) -> None:
        """Remove the training states that this record's checkpoint makes needless.

        A kill between a checkpoint's rename and this leaves them.

        Raises:
            OSError: The folder cannot be written.
        """
        for step, checkpoint in self._by_step().items():
            if step < record.step or record.complete:
                (checkpoint / _STATE).unlink(missing_ok=True)

    def _by_step(self) -> dict[int, Path]:
        named = {path: self._pattern.fullmatch(path.name) for path in self.out.glob("*")}
        return {int(match[1]): path for path, match in named.items() if match}


def read_record(checkpoint: Path) -> TrainingRecord:
    """How far the training of a checkpoint was.

    Raises:
        InvalidInputError: The folder was not written by a pre-training.
    """
    from pydantic import TypeAdapter

    path = checkpoint / _RECORD
    try:
        return TypeAdapter(TrainingRecord).validate_json(path.read_bytes())
    except (OSError, ValueError) as err:
        raise InvalidInputError(
            f"{path}: not the record of a pre-training ({first_line(err)}); choose another --out"
        ) from err


def read_state(checkpoint: Path) -> dict[str, Any]:
    """State of the optimiser and the schedule, as `CheckpointFolder.write` took it.

    Raises:
        InvalidInputError: The checkpoint has none, or it cannot be read.
    """
    import torch

    path = checkpoint / _STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return {name: state[name] for name in ("optimizer", "schedule")}
    except Exception as err:
        # A damaged pickle raises errors of many types.
        raise InvalidInputError(
            f"{path}: no state to continue from ({type(err).__name__}: {first_line(err)}); choose "
            f"another --out, with --encoder {checkpoint} to begin with these weights"
        ) from err


def require_same_recipe(known: TrainingRecord, recipe: Mapping[str, Any], place: Path) -> None:
    """Require that a run continues what a checkpoint began.

    Raises:
        InvalidInputError: They differ; names what does.
    """
    # As read from JSON, where tuples are lists.
    wanted = json.loads(json.dumps(dict(recipe)))
    of_videos = {"videos", "ids_digest", "files_digest"}
    for name in sorted((known.recipe.keys() | wanted.keys()) - of_videos):
        before, now = known.recipe.get(name), wanted.get(name)
        if before != now:
            raise InvalidInputError(
                f"{place}: is of a pre-training with {name} {before!r}, and this one's is {now!r}: "
                "continue with the same, or choose another --out"
            )
    if any(known.recipe.get(name) != wanted[name] for name in of_videos):
        raise InvalidInputError(
            f"{place}: is of a pre-training on other videos or other files of them "
            f"({known.recipe.get('videos')} videos, and now there are {wanted['videos']}): choose "
            f"another --out, with --encoder {place} to begin with its weights"
        )


def processor_fields(spec: EncoderSpec) -> dict[str, Any]:
    """`preprocessor_config.json` of an encoder with this spec, as transformers reads it."""
    size = (
        {"shortest_edge": spec.resize}
        if isinstance(spec.resize, int)
        else {"height": spec.resize[0], "width": spec.resize[1]}
    )
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": size,
        "resample": {"bilinear": 2, "bicubic": 3}[spec.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": spec.crop[0], "width": spec.crop[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
