"""What each flow has to say when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinml.comparing import RunComparison
    from coinml.records import Target
    from coinml.registry import Verdict
    from coinml.training import TrainReport


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReport:
    """What became of a selection of videos.

    Attributes:
        dataset: Its name.
        total: Videos in the selection.
        downloaded: Files here, verified.
        fetched: Files that this run brought.
        asked: Videos that this run tried.
        faults: How many stand under which fault.
        still_due: Videos that a later run will ask for by itself.
        blocked_until: When the source may be asked again, if it refuses everyone.
    """

    dataset: str
    total: int
    downloaded: int
    fetched: int
    asked: int
    faults: Mapping[str, int]
    still_due: int
    blocked_until: datetime | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left that time alone will bring."""
        return self.still_due == 0

    def __str__(self) -> str:
        text = f"{self.downloaded} of {self.total} videos are here, {self.fetched} of them new"
        if self.faults:
            text += "; " + ", ".join(f"{count} {fault}" for fault, count in self.faults.items())
        if self.blocked_until is not None:
            text += f"; the source refuses until {self.blocked_until:%Y-%m-%d %H:%M:%S} UTC"
        elif self.still_due:
            text += f"; {self.still_due} still due"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSummary:
    """What of a dataset is in an embedding set.

    Attributes:
        dataset: Its name.
        fingerprint: The set's.
        videos: Videos of the selection that are in the set.
        embedded: How many of them this run did; segments, in a set of segments.
        failed: Reason by id, for what cannot be embedded; files that do not decode are
            quarantined.
        seconds: Wall time of the embedding tasks.
        decode_wait_s: Of it, how long the encoder waited for frames.
        encode_s: How long it was at work.
        write_s: How long parts were written.
        bottleneck: What most of the time went to; "" or "none" when nothing was to do.
        segments: Segments of the selection that are in the set, None where it holds videos.
        without_extent: Videos whose annotations do not say where the extent is.
    """

    dataset: str
    fingerprint: str
    videos: int
    embedded: int
    failed: Mapping[str, str]
    seconds: float
    decode_wait_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    bottleneck: str
    segments: int | None = None
    without_extent: int = 0

    def __str__(self) -> str:
        what = f"{self.videos} videos"
        if self.segments is not None:
            what = f"{self.segments} segments of {what}"
        text = f"{what} in set {self.fingerprint}, {self.embedded} of them new"
        if self.without_extent:
            text += f"; of {self.without_extent} videos nothing is annotated"
        if self.failed and self.segments is None:
            text += f"; {len(self.failed)} do not decode"
        elif self.failed:
            text += f"; segments of {len(self.failed)} videos cannot be embedded"
        if self.bottleneck in ("", "none"):
            return text
        return (
            f"{text}; encode {self.encode_s:.1f} s, decode wait {self.decode_wait_s:.1f} s, "
            f"write {self.write_s:.1f} s: {self.bottleneck} is the bottleneck"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """Trained heads, and the first two compared.

    Attributes:
        dataset: Its name.
        target: Whose classes.
        heads: One report a head.
        comparison: Of the first two on test, None where there is one head.
    """

    dataset: str
    heads: tuple[TrainReport, ...]
    comparison: RunComparison | None
    target: Target = "task"

    def __str__(self) -> str:
        return ", ".join(
            f"{report.head} {report.metrics['test_accuracy']:.3f} on test (version "
            f"{report.version}{', as before' if report.reused else ''})"
            for report in self.heads
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "dataset": self.dataset,
            "target": self.target,
            "heads": [report.as_dict() for report in self.heads],
            "comparison": self.comparison.as_dict() if self.comparison else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSummary:
    """The whole way.

    Attributes:
        collected: What is here and why the rest is not.
        embedded: What is in the set.
        trained: The heads.
        verdicts: What the gate said of each.
    """

    collected: CollectReport
    embedded: EmbedSummary
    trained: TrainSummary
    verdicts: tuple[Verdict, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is left that time alone will bring."""
        return self.collected.complete

    def __str__(self) -> str:
        return f"{self.collected}. {self.embedded}. {self.trained}."

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "collected": self.collected.as_dict(),
            "embedded": self.embedded.as_dict(),
            "trained": self.trained.as_dict(),
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReprocessSummary:
    """What a dataset needed to be up to date.

    Attributes:
        missing: Videos whose file was gone.
        altered: Videos whose file had another content.
        collected: What is here and why the rest is not.
        embedded: What is in the set.
        grown: Videos in the set beyond those that the heads were last trained on.
        trained: The heads, None where the set had not grown enough.
        verdicts: What the gate said of each.
    """

    missing: tuple[str, ...]
    altered: tuple[str, ...]
    collected: CollectReport
    embedded: EmbedSummary
    grown: int
    trained: TrainSummary | None
    verdicts: tuple[Verdict, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is left that time alone will bring."""
        return self.collected.complete

    def __str__(self) -> str:
        text = f"{self.collected}. {self.embedded}."
        if self.missing or self.altered:
            lost = f"{len(self.missing)} files were gone and {len(self.altered)} altered"
            text = f"{lost}. {text}"
        if self.trained is None:
            return f"{text} {self.grown} videos more than the heads know: not trained again."
        return f"{text} {self.trained}."

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "missing": list(self.missing),
            "altered": list(self.altered),
            "collected": self.collected.as_dict(),
            "embedded": self.embedded.as_dict(),
            "grown": self.grown,
            "trained": self.trained.as_dict() if self.trained else None,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
        }
