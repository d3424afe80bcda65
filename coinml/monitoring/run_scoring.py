"""One run of scoring: new files, full windows, late labels, and the record of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coinml.monitoring.drift import Predicted, find_drift
from coinml.monitoring.labels import LabelledAccuracy, measure_labelled, read_labels
from coinml.monitoring.options import ScoreOptions
from coinml.monitoring.reference import read_reference
from coinml.monitoring.score_files import Scored, score_files
from coinml.monitoring.score_store import ScoreStore, store_of
from coinml.monitoring.sources import Source
from coinml.registry.versions import CHAMPION, version_at
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import MlflowStore

_WHOLE_VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReport:
    """What a run of scoring found.

    Attributes:
        model: The registered model.
        version: Its champion, which classified.
        source: The folder or bucket.
        scored: What became of its files.
        classified: Number of different files that this version has classified, earlier ones
            included.
        windows: Records of this version's windows, in order, as `Drift.as_dict` with `start`,
            `stop` (of the version's files) and `compared_at`.
        pending: Number of files that wait until their window is full.
        window: Number of files of a window.
        accuracies: Accuracy on the files with labels.
        unscored: Number of labelled files without an answer.
        notes: That there is no file, and what was not compared and why.
    """

    model: str
    version: int
    source: str
    scored: Scored
    classified: int
    windows: tuple[Mapping[str, Any], ...]
    pending: int
    window: int
    accuracies: tuple[LabelledAccuracy, ...] = ()
    unscored: int = 0
    notes: tuple[str, ...] = ()

    @property
    def drift(self) -> tuple[str, ...]:
        """What differs in the last window: `embeddings`, `class_mix`, `confidence`."""
        return tuple(self.windows[-1]["drift"]) if self.windows else ()

    @property
    def drift_text(self) -> str:
        """What the last window showed, in a sentence."""
        if not self.windows:
            return f"no window of {self.window} files is full yet ({self.pending} wait)"
        last = self.windows[-1]
        p_values = ", ".join(
            f"{name.replace('_', ' ')} p = {one['adjusted_p_value']:.2g}"
            for name, one in last["tests"].items()
        )
        said = "differs from" if self.drift else "does not differ from"
        return (
            f"the last window (files {last['start'] + 1:,} to {last['stop']:,}) {said} the "
            f"training set: {p_values}; level {last['level']:g}"
        )

    def __str__(self) -> str:
        done = self.scored
        text = f"{done.scored:,} new files classified by {self.model} version {self.version}"
        for count, what in (
            (done.repeated, "with the content of another"),
            (len(done.failed), "that cannot be classified"),
            (done.waiting, "that wait because they have just changed"),
            (len(done.unread), "that could not be read and are tried again"),
        ):
            if count:
                text += f", {count:,} {what}"
        return f"{text}; {self.drift_text}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them and `latest.json` keeps them."""
        done = self.scored
        return {
            "model": self.model,
            "version": self.version,
            "source": self.source,
            "files": done.files,
            "scored": done.scored,
            "repeated": done.repeated,
            "failed": [{"path": path, "error": error} for path, error in done.failed],
            "waiting": done.waiting,
            "unread": [{"path": path, "error": error} for path, error in done.unread],
            "classified": self.classified,
            "drift": list(self.drift),
            "drift_text": self.drift_text,
            "last_window": dict(self.windows[-1]) if self.windows else None,
            "windows": len(self.windows),
            "pending": self.pending,
            "labelled": [one.as_dict() for one in self.accuracies],
            "labelled_without_answer": self.unscored,
            "notes": list(self.notes),
        }


def run_scoring(
    settings: Settings, store: MlflowStore, model: str, dataset: str, options: ScoreOptions
) -> ScoreReport | None:
    """Classify what is new in a folder or bucket, and compare it with the training set.

    Without a champion nothing is done, and there is no report.

    Args:
        settings: The home's.
        store: Where the registry is.
        model: The registered model; its champion classifies.
        dataset: Name of the dataset, for the default folder.
        options: Which files, and how they are compared.

    Raises:
        InvalidInputError: The folder's URL or the file of labels is not of a kind that is taken,
            or the folder that is named does not exist.
        LocalError: The folder cannot be read or the scores not written, or another run is at work.
        RegistryError: The champion does not load.
        TransientError: MLflow does not answer.
    """
    champion = version_at(store, model, CHAMPION)
    if champion is None:
        return None
    version = int(champion.version)
    source = Source(options.folder or str(settings.data_dir / "incoming" / dataset))
    if options.folder is not None:
        source.check()
    # Wrong labels are refused before hours of work.
    late = read_labels(Path(options.labels), source) if options.labels is not None else None
    scores = store_of(settings.data_dir, model)
    with scores.writing():
        scored = score_files(
            source, scores, store, model=model, version=version, settle_s=options.settle_s
        )
        notes = _compare_windows(store, scores, str(champion.run_id), version, options)
        if not scored.files:
            notes = (f"{source.name}: no video file in it or below it", *notes)
        rows = scores.read(["source", "path", "sha256", "label", "version"])
        own = _distinct(rows, version)
        windows = tuple(one for one in scores.windows() if one["version"] == version)
        accuracies: tuple[LabelledAccuracy, ...] = ()
        unscored = 0
        if late is not None:
            labelled = measure_labelled(late, source, rows)
            accuracies, unscored = labelled.accuracies, labelled.unscored
        report = ScoreReport(
            model=model,
            version=version,
            source=source.name,
            scored=scored,
            classified=len(own),
            windows=windows,
            pending=len(own) - (windows[-1]["stop"] if windows else 0),
            window=options.window,
            accuracies=accuracies,
            unscored=unscored,
            notes=notes,
        )
        failed = len(scores.read(["error"]).dropna())
        at = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"dataset": dataset, **report.as_dict(), "failed_ever": failed, "ended_at": at}
        scores.write_latest(record)
    return report


def _compare_windows(
    store: MlflowStore, scores: ScoreStore, run_id: str, version: int, options: ScoreOptions
) -> tuple[str, ...]:
    """Test each full window that was not tested yet; what cannot be compared and why."""
    extent = store.read_run(run_id).data.params.get("extent", _WHOLE_VIDEO)
    if extent != _WHOLE_VIDEO:
        return (
            f"not compared with the training set: version {version} was trained on the extent "
            f"{extent!r}, and files are classified whole",
        )
    rows = _distinct(scores.read(["sha256", "label", "score", "version"]), version)
    tested = max((one["stop"] for one in scores.windows() if one["version"] == version), default=0)
    starts = range(tested, len(rows) - options.window + 1, options.window)
    reference = read_reference(store, run_id)
    notes = (reference.note,) if reference.note else ()
    if not starts:
        return notes
    vectors = scores.read(["embedding"])["embedding"]
    for start in starts:
        part = rows.iloc[start : start + options.window]
        found = find_drift(
            reference.predicted,
            Predicted(
                embeddings=np.stack(list(vectors.loc[part.index])),
                labels=tuple(part["label"]),
                scores=part["score"].to_numpy(dtype=float),
            ),
            looks=options.looks,
            seed=start,
        )
        scores.add_window(
            {
                "version": version,
                "start": start,
                "stop": start + options.window,
                "compared_at": datetime.now(UTC).isoformat(timespec="seconds"),
                **found.as_dict(),
            }
        )
    return notes


def _distinct(rows: pd.DataFrame, version: int) -> pd.DataFrame:
    """The rows that a version has answered; files with one content are one video."""
    own = rows[(rows["version"] == version) & rows["label"].notna()]
    return own.drop_duplicates("sha256")
