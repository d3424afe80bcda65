"""The outcome of a pre-training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainReport:
    """The outcome of a pre-training.

    Attributes:
        dataset: Name of the dataset.
        checkpoint: Folder of the last checkpoint, which `--encoder` takes.
        videos: Number of training videos.
        failed: Why files did not decode, by video id.
        steps: Number of steps.
        resumed_at: Steps that earlier calls had done.
        clips: Clips that were seen, by all calls.
        first_loss: Mean loss of the first ten steps; None if there are fewer.
        last_loss: Mean loss of the last ten steps, likewise.
        clips_per_s: Clips per second of this call; None if it had nothing to do.
        waited_share: Share of this call's time in which the model waited for clips, likewise.
        run_id: The MLflow run; None if none was recorded.
    """

    dataset: str
    checkpoint: str
    videos: int
    failed: dict[str, str]
    steps: int
    resumed_at: int
    clips: int
    first_loss: float | None
    last_loss: float | None
    clips_per_s: float | None
    waited_share: float | None
    run_id: str | None

    def __str__(self) -> str:
        clips = f"{self.clips:,} clips of {self.videos:,} training videos of {self.dataset}"
        if self.clips_per_s is None or self.waited_share is None:
            return f"{self.steps:,} steps on {clips} were done before; nothing to do"
        loss = ""
        if self.first_loss is not None:
            loss = f"; loss {self.first_loss:.4f} at first, {self.last_loss:.4f} at last"
        again = f" (resumed at {self.resumed_at:,})" if self.resumed_at else ""
        broken = f"; {len(self.failed):,} files do not decode" if self.failed else ""
        return (
            f"{self.steps:,} steps{again} on {clips}{loss}; {self.clips_per_s:.1f} clips a second, "
            f"{self.waited_share:.0%} of the time waiting for them{broken}"
        )

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return asdict(self)
