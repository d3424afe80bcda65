"""The results of the flows, as data and as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinml.data.records import Target
    from coinml.registry.promotion import GateVerdict
    from coinml.tracking.compare_runs import RunComparison
    from coinml.training.cv_runs import CvReport
    from coinml.training.train_report import TrainReport


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectReport:
    """How many of a selection of videos are downloaded, failed and still due.

    Attributes:
        dataset: Its name.
        total: Videos in the selection.
        downloaded: Videos with a verified file.
        fetched: Videos that this run downloaded.
        asked: Videos that this run tried.
        faults: Number of videos by fault.
        still_due: Videos that a later run will try by itself.
        blocked_until: When the source may be tried again, if it refuses everyone.
        contradictions: Class by id of the videos whose files have one content, but that have
            several classes.
    """

    dataset: str
    total: int
    downloaded: int
    fetched: int
    asked: int
    faults: Mapping[str, int]
    still_due: int
    blocked_until: datetime | None = None
    contradictions: tuple[Mapping[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether no later run would try anything by itself."""
        return self.still_due == 0

    @property
    def idle(self) -> bool:
        """Whether this run tried nothing, since nothing was due."""
        return not self.asked and self.blocked_until is None

    @property
    def outcome(self) -> str:
        """The report for a list of runs: begins with whether it is complete, blocked or idle."""
        if self.blocked_until is not None:
            first = f"blocked until {self.blocked_until:%Y-%m-%d %H:%M:%S} UTC"
        elif self.idle:
            later = f" now, {self.still_due} later" if self.still_due else ""
            return f"nothing was due{later}: {self._counts}"
        elif self.still_due:
            first = "completed in part"
        else:
            return self._counts
        return f"{first}, {self.still_due} still due: {self._counts}"

    @property
    def yielded(self) -> str:
        """Downloaded of tried, for the name of the run."""
        if not self.asked:
            return "(nothing due)"
        return f"{self.fetched}/{self.asked}"

    @property
    def _counts(self) -> str:
        text = (
            f"{self.downloaded} of {self.total} videos are downloaded, {self.fetched} of them new"
        )
        if self.faults:
            text += "; " + ", ".join(f"{count} {fault}" for fault, count in self.faults.items())
        return text

    def __str__(self) -> str:
        text = self._counts
        if self.blocked_until is not None:
            text += f"; the source refuses until {self.blocked_until:%Y-%m-%d %H:%M:%S} UTC"
        elif self.still_due:
            text += f"; {self.still_due} still due"
        if self.contradictions:
            text += f"; {len(self.contradictions)} files are under more than one class"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSummary:
    """What of a dataset is in an embedding set, and what this run added.

    Attributes:
        dataset: Its name.
        fingerprint: The set's.
        videos: Videos of the selection that are in the set.
        embedded: How many of them this run embedded; segments, in a set of segments.
        failed: Reason by video id, for videos that cannot be embedded; files that do not decode
            are quarantined.
        clips: Clips that this run embedded.
        decoders: Number of videos by decoder, in this run.
        frames_substituted: Missing frames that were replaced by a neighbour.
        workers: Processes that embedded; 0 if there was nothing to embed.
        seconds: Wall time of the embedding.
        decode_wait_s: Seconds that encoders waited for frames, summed over the processes.
        encode_s: Seconds that they were busy.
        write_s: Seconds spent writing.
        segments: Segments of the selection that are in the set; None for a set of videos.
        without_extent: Videos without an annotated extent.
        kernels: How the encoder was computed on a CPU, and what was measured of each way; one for
            all processes with the same.
    """

    dataset: str
    fingerprint: str
    videos: int
    embedded: int
    failed: Mapping[str, str]
    clips: int = 0
    decoders: Mapping[str, int] = field(default_factory=dict)
    frames_substituted: int = 0
    workers: int = 0
    seconds: float = 0.0
    decode_wait_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    segments: int | None = None
    without_extent: int = 0
    kernels: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether everything was in the set already."""
        return not self.workers

    @property
    def outcome(self) -> str:
        """The summary for a list of runs: begins with whether it was idle."""
        return f"nothing was new: {self}" if self.idle else str(self)

    @property
    def bottleneck(self) -> str:
        """Where most of the time went: decode, encode or write; "" if nothing was embedded."""
        parts = {"decode": self.decode_wait_s, "encode": self.encode_s, "write": self.write_s}
        return max(parts, key=parts.__getitem__) if self.clips else ""

    @property
    def clips_per_s(self) -> float:
        """Clips embedded a second of wall time."""
        return self.clips / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        what = f"{self.videos} videos"
        if self.segments is not None:
            what = f"{self.segments} segments of {what}"
        text = f"{what} in set {self.fingerprint}, {self.embedded} of them new"
        if self.without_extent:
            text += f"; {self.without_extent} videos have no annotated extent"
        if self.failed and self.segments is None:
            text += f"; {len(self.failed)} cannot be embedded"
        elif self.failed:
            text += f"; segments of {len(self.failed)} videos cannot be embedded"
        return text

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self) | {"bottleneck": self.bottleneck, "clips_per_s": self.clips_per_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """Trained heads, and the comparison of the first two.

    Attributes:
        dataset: Its name.
        target: The predicted classes.
        heads: One report per head; none if the set had not grown enough.
        comparison: Of the first two on test; None if there is one head.
        grown: Videos in the set beyond those that the heads were last trained on; None if they
            were not counted.
        min_new: Growth that is needed to train.
        verdicts: The gate's verdict on each head, if it was asked.
        cross_validated: A cross-validation of each head, where there is one.
    """

    dataset: str
    heads: tuple[TrainReport, ...] = ()
    comparison: RunComparison | None = None
    target: Target = "task"
    grown: int | None = None
    min_new: int = 0
    verdicts: tuple[GateVerdict, ...] = ()
    cross_validated: tuple[CvReport, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether the set had not grown enough."""
        return not self.heads

    @property
    def scores(self) -> str:
        """Test accuracy of each head, for the name of the run."""
        return ", ".join(f"{one.head} {one.metrics['test_accuracy']:.3f}" for one in self.heads)

    def __str__(self) -> str:
        if not self.heads:
            return f"grown by {self.grown} of {self.min_new}: nothing to train"
        text = ", ".join(
            f"{report.head} {report.metrics['test_accuracy']:.3f} on test (version "
            f"{report.version}{', as before' if report.reused else ''})"
            for report in self.heads
        )
        if self.cross_validated:
            text += "; cross-validated " + ", ".join(
                f"{one.head} {one.accuracy}" for one in self.cross_validated
            )
        return f"{text}; {champion_of(self.verdicts)}" if self.verdicts else text

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "dataset": self.dataset,
            "target": self.target,
            "heads": [report.as_dict() for report in self.heads],
            "comparison": self.comparison.as_dict() if self.comparison else None,
            "cross_validated": [report.as_dict() for report in self.cross_validated],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSummary:
    """The results of a pipeline run.

    Attributes:
        collected: What is downloaded, and why the rest is not.
        embedded: What is in the set.
        trained: The heads.
        verdicts: The gate's verdict on each head.
    """

    collected: CollectReport
    embedded: EmbedSummary
    trained: TrainSummary
    verdicts: tuple[GateVerdict, ...]

    @property
    def complete(self) -> bool:
        """Whether no later run would try anything by itself."""
        return self.collected.complete

    @property
    def outcome(self) -> str:
        """The summary for a list of runs: begins with whether it is complete."""
        return str(self) if self.complete else f"completed in part: {self}"

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
    """What a dataset needed to be brought up to date.

    Attributes:
        missing: Videos whose file was missing.
        altered: Videos whose file had changed.
        collected: What is downloaded, and why the rest is not.
        embedded: What is in the set.
        grown: Videos in the set beyond those that the heads were last trained on.
        trained: The heads; None if the set had not grown enough.
        verdicts: The gate's verdict on each head.
    """

    missing: tuple[str, ...]
    altered: tuple[str, ...]
    collected: CollectReport
    embedded: EmbedSummary
    grown: int
    trained: TrainSummary | None
    verdicts: tuple[GateVerdict, ...]

    @property
    def complete(self) -> bool:
        """Whether no later run would try anything by itself."""
        return self.collected.complete

    @property
    def idle(self) -> bool:
        """Whether nothing had changed, nothing was due, and the set had not grown enough."""
        found = self.missing or self.altered or self.trained
        return not found and self.collected.idle and self.embedded.idle

    @property
    def outcome(self) -> str:
        """The summary for a list of runs: begins with whether it is complete or idle."""
        if self.idle:
            return f"nothing to do: {self}"
        return str(self) if self.complete else f"completed in part: {self}"

    def __str__(self) -> str:
        text = f"{self.collected}. {self.embedded}."
        if self.missing or self.altered:
            lost = f"{len(self.missing)} files were missing and {len(self.altered)} had changed"
            text = f"{lost}. {text}"
        if self.trained is None:
            return f"{text} {self.grown} videos more than at the last training: not trained again."
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSummary:
    """What an audit found.

    Attributes:
        dataset: Its name.
        target: Whose labels.
        videos: Number of videos (or segments) that were audited.
        found: Number of rows of each of the audit's tables.
        notes: What was not audited and why, a sentence each.
        run_id: The MLflow run with the tables and pictures.
    """

    dataset: str
    target: Target
    videos: int
    found: Mapping[str, int]
    notes: tuple[str, ...]
    run_id: str

    @property
    def suspects(self) -> int:
        """Number of labels that are probably wrong."""
        return self.found["suspects"]

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self.found.items())
        return f"{self.videos:,} videos of {self.dataset} audited: {counts}"


def champion_of(verdicts: Sequence[GateVerdict]) -> str:
    """Which version has become the champion, in a few words."""
    promoted = [verdict.version for verdict in verdicts if verdict.promoted]
    return f"champion: version {promoted[-1]}" if promoted else "no version passed the gate"
