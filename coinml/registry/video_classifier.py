"""The registered model: it takes a video file and answers with its class.

One MLflow model contains decoder and head, and loads wherever MLflow reaches its tracking server:
it has the head's file, a copy of coinml, and the digest of the encoder, which is stored once for
all models. An exported model has the encoder's files instead, as models of an earlier coinml have.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import numpy as np
import pandas as pd
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_EXHAUSTED
from mlflow.pyfunc.model import PythonModel

from coinml.encoder.spec import EncoderSpec
from coinml.errors import (
    CoinmlError,
    InvalidInputError,
    LocalError,
    RegistryError,
    TransientError,
)
from coinml.evaluation.abstention import SCORE_DIGITS, Threshold, ValAnswers
from coinml.media import DecodePool, SampledClips
from coinml.registry.serving_limits import (
    UNLIMITED,
    RefusedRequestError,
    RequestBytes,
    ServingLimits,
    allowed_file,
    in_mlflow_server,
    request_limits,
    serving_limits,
)
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinml.encoder.clip_encoder import ClipEncoder
    from coinml.heads.protocol import Head

logger = logging.getLogger(__name__)

DEADLINE_S = 60.0
_IDLE_S = 20.0
TOP = 5
_ANSWER = ["label", "score", "top5", "error"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileAnswer:
    """A model's answer for one video.

    Attributes:
        label: The predicted class; None where there is an error, like `score` and `vector`.
        score: Its score.
        top5: The best classes as `{"label", "score"}`, best first.
        error: Why the video cannot be classified.
        passing: Whether this machine is at fault, and not the video.
        vector: The mean of the video's clip embeddings, float32 of shape (D,).
    """

    label: str | None = None
    score: float | None = None
    top5: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    passing: bool = False
    vector: NDArray[np.float32] | None = None


class VideoClassifier(PythonModel):
    """Answers `label, score, top5, error` for each row's `video` (path) or `video_base64`.

    It classifies the whole video, or the part between `start_s` and `end_s` (seconds from the
    start of the video) if given. `top5` is a list of `{"label", "score"}`, best first. If a
    row's video cannot be read, `error` says why; the other rows are not affected.

    With the parameter `precision` it abstains: `accepted` says whether the score is one from which
    the model's val videos show that precision, as in `coinml predict --precision`.
    """

    def load_context(self, context: Any) -> None:
        """Load encoder and head.

        Raises:
            RegistryError: The encoder is not the one that the head was trained with, or is not
                stored at the tracking server.
            LocalError: A variable `COINML_SERVE_…` has a value that is not allowed.
        """
        from coinml.heads.kinds import load_head

        described = json.loads(Path(context.artifacts["spec"]).read_text())
        self._encoder = _load_encoder(described, context.artifacts.get("encoder"))
        self._clip_spec = self._encoder.clip_spec(described["snap"])
        self._head: Head = load_head(Path(context.artifacts["head"]))
        # Models of earlier versions carry none.
        carried = context.artifacts.get("val_answers")
        self._val = ValAnswers.from_dict(json.loads(Path(carried).read_text())) if carried else None
        self._turns = threading.BoundedSemaphore(serving_limits().parallel)
        # All requests share it. Its processes start with a request and end when there is none.
        self._pool = DecodePool(workers=max(1, cpu_count()), idle_s=_IDLE_S)
        weakref.finalize(self, self._pool.close)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify each row's video: one row of `label, score, top5, error` a row, same order.

        `score` is float64, NaN where there is an error; the other columns hold objects, and None
        where there is no value. With a precision there is a column `accepted` (bool) too, which is
        False where there is an error.

        Raises:
            RefusedRequestError: The request has too many rows or no column of videos, or too many
                requests are running; or val does not show the precision.
        """
        try:
            threshold = self._threshold((params or {}).get("precision"))
            table = self._predict(model_input)
        except RefusedRequestError:
            raise
        except Exception as err:
            logger.exception("a request failed")
            text = str(err) if isinstance(err, CoinmlError) else "the server failed; see its log"
            raise RefusedRequestError(text, INTERNAL_ERROR) from err
        if threshold is not None:
            table["accepted"] = pd.to_numeric(table["score"]) >= threshold.score
        return table

    def answer_files(self, files: Sequence[str]) -> list[FileAnswer]:
        """Classify files of this process's own user, who has no limits; in the order of `files`."""
        rows = [{"video": file} for file in files]
        return self._answers(rows, UNLIMITED, math.inf) if rows else []

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The encoder and its sampling."""
        return self._encoder.spec

    def _threshold(self, precision: float | None) -> Threshold | None:
        """From which score answers are accepted; None where no precision is wanted."""
        if precision is None:
            return None
        if self._val is None:
            raise RefusedRequestError(
                "precision: this model was registered by an earlier version, and carries no "
                "answers on val by which it could abstain; `coinml predict --precision` reads them "
                "from its run"
            )
        try:
            return self._val.threshold(float(precision))
        except InvalidInputError as err:
            raise RefusedRequestError(str(err)) from err

    def _predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        limits = request_limits()
        if len(model_input) > limits.max_rows:
            raise RefusedRequestError(
                f"a request has at most {limits.max_rows} rows (COINML_SERVE_MAX_ROWS), "
                f"this one has {len(model_input)}"
            )
        rows = _rows(model_input)
        end_s = time.monotonic() + limits.max_s
        if limits is UNLIMITED:
            return _answer_table(self._answers(rows, limits, end_s))
        if not self._turns.acquire(timeout=limits.max_s):
            raise RefusedRequestError(
                f"{limits.parallel} requests are running (COINML_SERVE_PARALLEL); try again later",
                RESOURCE_EXHAUSTED,
            )
        try:
            return _answer_table(self._answers(rows, limits, end_s))
        finally:
            self._turns.release()

    def _answers(
        self, rows: Sequence[dict[str, Any]], limits: ServingLimits, end_s: float
    ) -> list[FileAnswer]:
        """Decode and classify; `end_s` is when to stop, by the monotonic clock."""
        from coinml.encoder.encoder_threads import EncoderThreads
        from coinml.encoder.video_pipeline import VideoPipeline

        late = f"not answered within {limits.max_s:g} s (COINML_SERVE_MAX_S)"
        answers = [FileAnswer(error=late) for _ in rows]
        counted = RequestBytes(limits)
        clips = max(1, len(rows)) * self._clip_spec.clips

        def answer(index: int, _: SampledClips, vectors: NDArray[np.float32]) -> None:
            try:
                answers[index] = self._classify(vectors)
            except Exception as err:
                fail(index, err)

        def fail(index: int, err: Exception) -> None:
            answers[index] = FileAnswer(
                error=late if isinstance(err, TimeoutError) else _reason(err),
                passing=isinstance(err, LocalError | TransientError),
            )

        # The threads end before the folder goes.
        with (
            tempfile.TemporaryDirectory() as folder,
            EncoderThreads(
                self._encoder, batch_clips=min(self._encoder.batch_clips, clips), clips=clips
            ) as threads,
            contextlib.suppress(TimeoutError),
        ):
            VideoPipeline(
                range(len(rows)),
                count=len(rows),
                clips=self._clip_spec.clips,
                workers=self._pool.workers,
                decode=lambda index: self._submit(
                    rows[index], Path(folder) / f"{index}.video", counted, limits, end_s
                ),
                threads=threads,
                on_encoded=answer,
                on_failed=fail,
            ).run(until_s=end_s)
        return answers

    def _submit(
        self,
        row: dict[str, Any],
        temporary: Path,
        counted: RequestBytes,
        limits: ServingLimits,
        end_s: float,
    ) -> Future[SampledClips]:
        """Start decoding a row's video; the future raises if the row has no readable video."""
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return _failed(TimeoutError())
        try:
            path, shown = _video_file(row, temporary, counted, limits)
            future = self._pool.submit_sample(
                path,
                self._clip_spec,
                start_s=_seconds(row, "start_s"),
                end_s=_seconds(row, "end_s"),
                deadline_s=min(DEADLINE_S, left_s),
                shown=shown,
            )
        # Whatever it is, it is an error of this row.
        except Exception as err:
            return _failed(err)
        future.add_done_callback(lambda _: temporary.unlink(missing_ok=True))
        return future

    def _classify(self, vectors: NDArray[np.float32]) -> FileAnswer:
        """The answer for a video by the vectors of its clips, float32 (clips, D)."""
        # Embedding sets store float16; the same rounding here makes serving match training.
        clips = vectors.astype(np.float16)[np.newaxis]
        means = clips.astype(np.float32).mean(axis=1)
        scores = self._head.predict_proba(clips if self._head.takes_clips else means)[0]
        order = np.argsort(-scores, kind="stable")[:TOP]
        top: list[dict[str, Any]] = [
            {
                "label": str(self._head.classes[index]),
                "score": round(float(scores[index]), SCORE_DIGITS),
            }
            for index in order
        ]
        return FileAnswer(**top[0], top5=top, vector=means[0])


def _answer_table(answers: Sequence[FileAnswer]) -> pd.DataFrame:
    rows = [[one.label, one.score, one.top5, one.error] for one in answers]
    table = pd.DataFrame(rows, columns=_ANSWER, dtype=object)
    # MLflow's server makes JSON of the values as they are, and JSON has no NaN.
    return table if in_mlflow_server() else table.astype({"score": np.float64})


def _load_encoder(described: dict[str, Any], carried: str | None) -> ClipEncoder:
    """The encoder that a model contains, or that is stored, or that is on the hub."""
    from coinml.encoder.matching import OtherEncoderError, load_matching_encoder
    from coinml.registry.stored_encoders import encoder_folder

    spec = EncoderSpec.from_dict(described["encoder"])
    digest = described.get("encoder_digest")
    with contextlib.ExitStack() as opened:
        ref, revision = carried, None
        if ref is None and digest is not None:
            ref = str(opened.enter_context(encoder_folder(digest)))
        elif ref is None:
            ref, revision = described["encoder_ref"], described["revision"]
        device = os.environ.get("COINML_DEVICE", "auto")
        try:
            return load_matching_encoder(spec, ref, revision=revision, device=device)
        except OtherEncoderError as err:
            raise RegistryError(
                f"this model was trained with encoder {spec.fingerprint} and finds {err.found} "
                f"({ref})"
            ) from err


def _reason(err: Exception) -> str:
    """What an answer says of an error: no folder and no line of code; the log has them."""
    if isinstance(err, CoinmlError):
        return str(err)
    logger.error("a video is not classified", exc_info=err)
    return f"this video cannot be classified ({type(err).__name__}); see the server's log"


def _failed(err: Exception) -> Future[SampledClips]:
    future: Future[SampledClips] = Future()
    future.set_exception(err)
    return future


def _rows(model_input: pd.DataFrame) -> list[dict[str, Any]]:
    """The values of each row that are given; which ones are usable is decided later, by row."""
    columns = [name for name in ("video", "video_base64") if name in model_input.columns]
    if not columns:
        # MLflow makes a table of lists, texts and arrays, and drops the columns that it does not
        # know, so the names that were given are not known here.
        raise RefusedRequestError(
            "a pandas DataFrame with one of the columns 'video' (a file's path) and "
            f"'video_base64' is needed; the input has neither ({list(model_input.columns)})"
        )
    spans = [name for name in ("start_s", "end_s") if name in model_input.columns]
    records = model_input[[*columns, *spans]].to_dict(orient="records")
    return [
        {str(name): value for name, value in row.items() if not _is_absent(value)}
        for row in records
    ]


def _is_absent(value: Any) -> bool:
    return (isinstance(value, str) and not value) or bool(
        pd.api.types.is_scalar(value) and pd.isna(value)
    )


def _seconds(row: dict[str, Any], name: str) -> float | None:
    try:
        return float(row[name]) if name in row else None
    except (TypeError, ValueError) as err:
        raise InvalidInputError(
            f"'{name}' is {_shown(row[name])}, not a number of seconds"
        ) from err


def _shown(value: Any) -> str:
    return f"{value!r:.80} ({type(value).__name__})"


def _video_file(
    row: dict[str, Any], temporary: Path, counted: RequestBytes, limits: ServingLimits
) -> tuple[Path, str]:
    """The file that a row names, or `temporary` with the decoded base64; and what errors call it.

    Errors use the client's words, which do not tell where the server keeps files.
    """
    if "video" in row:
        video = row["video"]
        if not isinstance(video, str | Path):
            raise InvalidInputError(
                f"'video' is {_shown(video)}; the path of a video file is needed, as text or "
                "pathlib.Path, or else its content in 'video_base64'"
            )
        return allowed_file(str(video), limits), str(video)
    if "video_base64" not in row:
        raise InvalidInputError("neither 'video' nor 'video_base64' is given")
    if not isinstance(row["video_base64"], str):
        raise InvalidInputError(
            f"'video_base64' is {_shown(row['video_base64'])}; the file's content is needed as "
            "text: base64.b64encode(content).decode()"
        )
    content = counted.decode(row["video_base64"])
    try:
        temporary.write_bytes(content)
    except OSError as err:
        raise LocalError(f"'video_base64' cannot be written: {err.strerror}") from err
    return temporary, "video_base64"
