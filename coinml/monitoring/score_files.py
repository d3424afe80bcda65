"""Scoring: the files of a folder or bucket that are new are classified with the champion, once."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinml.errors import LocalError
from coinml.monitoring.score_store import ScoreStore
from coinml.monitoring.sources import ChangedFileError, Source, SourceFile
from coinml.registry.predict import load_model
from coinml.runtime import progress
from coinml.tracking.mlflow_store import MlflowStore

if TYPE_CHECKING:
    from coinml.registry.video_classifier import FileAnswer, VideoClassifier

STAGE = "score"
_AT_ONCE = 16
"""Files of a part: enough to decode in parallel, and what a kill loses at most."""

_ANSWER = ["label", "score", "top5", "error", "model", "version", "encoder_fingerprint"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What became of the files of a source.

    Attributes:
        files: Number of video files in it.
        scored: Number of files that were classified now.
        repeated: Number of new files with the content of another, whose answer they have.
        failed: Path and error of the files that cannot be classified, of this run.
        waiting: Number of files that have changed too recently, or while they were read.
        unread: Path and error of the files that this machine could not read; tried again later.
    """

    files: int
    scored: int = 0
    repeated: int = 0
    failed: tuple[tuple[str, str], ...] = ()
    waiting: int = 0
    unread: tuple[tuple[str, str], ...] = ()


def score_files(
    source: Source,
    scores: ScoreStore,
    store: MlflowStore,
    *,
    model: str,
    version: int,
    settle_s: float,
) -> Scored:
    """Classify the files that are not in the scores as they are now; the caller holds `writing`.

    A file is known by its path, size and stamp, and then by its content. Answers are written for
    some files at a time: after a kill, the next call goes on there.

    Args:
        source: Where the files are.
        scores: Gets the answers.
        store: Where the registry is.
        model: The registered model.
        version: Its version that classifies.
        settle_s: Seconds for which a file must not have changed.

    Raises:
        LocalError: The source cannot be read, or the scores not written.
        RegistryError: The version does not load.
    """
    files = source.files()
    known = scores.read(["source", "path", "size_bytes", "stamp"])
    known = known[known["source"] == source.name]
    done = set(known[["path", "size_bytes", "stamp"]].itertuples(index=False, name=None))
    new = [one for one in files if (one.path, one.size_bytes, one.stamp) not in done]
    # A time in the future is of a wrong clock; it says nothing.
    settled = [one for one in new if one.age_s is None or not 0 <= one.age_s < settle_s]
    waiting = len(new) - len(settled)
    if not settled:
        return Scored(files=len(files), waiting=waiting)
    scorer = _Scorer(source, scores, store, model=model, version=version)
    with progress.stage(STAGE, len(settled)):
        for start in range(0, len(settled), _AT_ONCE):
            part = settled[start : start + _AT_ONCE]
            scorer.score(part)
            progress.advance(STAGE, len(part))
    scores.merge_parts()
    return Scored(
        files=len(files),
        scored=scorer.scored,
        repeated=scorer.repeated,
        failed=tuple(scorer.failed),
        waiting=waiting + scorer.changed,
        unread=tuple(scorer.unread),
    )


class _Scorer:
    def __init__(
        self, source: Source, scores: ScoreStore, store: MlflowStore, *, model: str, version: int
    ) -> None:
        self._source, self._scores = source, scores
        self._named = {"model": model, "version": version}
        self._classifier = _load(store, f"models:/{model}/{version}")
        self._fingerprint = self._classifier.encoder_spec.fingerprint
        # Failed content is tried again under another path: it may have failed by its ending.
        rows = scores.read(["sha256", *_ANSWER])
        answered = rows[rows["error"].isna()].drop_duplicates("sha256", keep="last")
        self._answers: dict[str, dict[str, Any]] = {
            row["sha256"]: {**{str(key): value for key, value in row.items()}, "error": None}
            for row in answered.to_dict(orient="records")
        }
        self.scored = self.repeated = self.changed = 0
        self.failed: list[tuple[str, str]] = []
        self.unread: list[tuple[str, str]] = []

    def score(self, files: Sequence[SourceFile]) -> None:
        """Classify some files and write their rows."""
        rows: list[dict[str, Any]] = []
        with ExitStack() as opened:
            todo: list[tuple[SourceFile, str]] = []
            decoded: dict[str, tuple[SourceFile, Path]] = {}
            for file in files:
                try:
                    path, sha256 = opened.enter_context(self._source.opened(file))
                except ChangedFileError as err:
                    logger.info("%s", err)
                    self.changed += 1
                except LocalError as err:
                    self.unread.append((file.path, str(err)))
                else:
                    todo.append((file, sha256))
                    if sha256 not in self._answers:
                        decoded.setdefault(sha256, (file, path))
            answers = self._classifier.answer_files([str(path) for _, path in decoded.values()])
            # What was decoded may be other content than what was hashed.
            found = {
                sha256: answer
                for (sha256, (file, _)), answer in zip(decoded.items(), answers, strict=True)
                if self._source.is_unchanged(file)
            }
            for file, sha256 in todo:
                if sha256 not in self._answers and sha256 not in found:
                    self.changed += 1
                    continue
                row = self._row(file, sha256, found.get(sha256))
                if row is not None:
                    rows.append(row)
        if rows:
            self._scores.append(rows)

    def _row(
        self,
        file: SourceFile,
        sha256: str,
        answer: FileAnswer | None,
    ) -> dict[str, Any] | None:
        """A file's row; None if it is tried again later."""
        about = {
            "source": self._source.name,
            "path": file.path,
            "size_bytes": file.size_bytes,
            "stamp": file.stamp,
            "sha256": sha256,
            "scored_at": datetime.now(UTC),
        }
        if sha256 in self._answers:
            self.repeated += 1
            return {**self._answers[sha256], **about}
        assert answer is not None, "content without an answer was given to the classifier"
        if answer.passing:
            self.unread.append((file.path, str(answer.error)))
            return None
        given = {
            **self._named,
            "label": answer.label,
            "score": answer.score,
            "top5": json.dumps(answer.top5, ensure_ascii=False),
            "error": answer.error,
            "encoder_fingerprint": self._fingerprint,
        }
        if answer.error is None:
            self.scored += 1
            self._answers[sha256] = given
        else:
            self.failed.append((file.path, answer.error))
        vector = None if answer.vector is None else answer.vector.astype(np.float16)
        return {**given, **about, "embedding": vector}


def _load(store: MlflowStore, uri: str) -> VideoClassifier:
    loaded: Any = load_model(store, uri)
    classifier: VideoClassifier = loaded.unwrap_python_model()
    return classifier
