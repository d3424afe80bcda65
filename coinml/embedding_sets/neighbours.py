"""Nearest-neighbour search over the videos of an embedding set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinml.embedding_sets.sets import EmbeddingSet
    from coinml.encoder.spec import EncoderSpec

Metric = Literal["cosine", "l2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One neighbour of a query.

    Attributes:
        video_id: Its id.
        score: Cosine similarity (1: same direction) or Euclidean distance (0: same vector).
    """

    video_id: str
    score: float


def find_similar(
    video: str,
    root_url: str,
    dataset: str,
    *,
    encoder: str | None = None,
    k: int = 10,
    metric: str = "cosine",
    device: str = "auto",
    deadline_s: float = 60,
) -> list[Neighbour]:
    """Find the videos of a dataset's newest embedding set that are nearest to a video.

    Args:
        video: A video file, or the id of a video in the set.
        root_url: Folder or fsspec URL of the embedding sets.
        dataset: Its name.
        encoder: Hub id or folder of the set's encoder; by default the one that the set names.
        k: Number of neighbours.
        metric: `cosine` or `l2`.
        device: Where the encoder runs.
        deadline_s: Time limit for decoding, in seconds.

    Raises:
        InvalidInputError: There is no set, `video` is neither a file nor an id in the set, or
            the encoder is not the set's.
        CorruptVideoError: The file does not decode.
    """
    from coinml.embedding_sets import list_sets

    # Sets of segments would list a video once per segment.
    sets = [one for one in list_sets(root_url, dataset) if one.spec.extent != "segments"]
    if not sets:
        raise InvalidInputError(
            f"no embedding set of {dataset!r}'s videos below {root_url}; embed first"
        )
    table = sets[-1].videos()
    ids = list(table["video_id"])
    matrix = table.filter(regex=r"^e\d+$").to_numpy(dtype=np.float32)
    if Path(video).is_file():
        query = _embedded(video, sets[-1], encoder, device=device, deadline_s=deadline_s)
    elif video in ids:
        row = ids.index(video)
        query, matrix = matrix[row], np.delete(matrix, row, axis=0)
        del ids[row]
    else:
        raise InvalidInputError(
            f"{video}: neither a file nor the id of a video in set {sets[-1].spec.fingerprint}"
        )
    return nearest(matrix, ids, query, k=k, metric=metric)


def _embedded(
    file: str, last: EmbeddingSet, encoder: str | None, *, device: str, deadline_s: float
) -> NDArray[np.float32]:
    """Embed a file in the way of the set: float32 (D,)."""
    from coinml.embedding_sets.quantized_file import quantized_file
    from coinml.encoder.matching import OtherEncoderError, load_matching_encoder
    from coinml.media import DecodePool

    spec = last.spec
    wanted = spec.encoder
    try:
        loaded = load_matching_encoder(
            wanted,
            encoder or _place_of(wanted),
            revision=None if encoder else wanted.revision,
            device=device,
            quantized=quantized_file(last),
        )
    except OtherEncoderError as err:
        raise InvalidInputError(f"{err}, which set {spec.fingerprint} was made with") from err
    with DecodePool(workers=1) as pool:
        clip_spec = loaded.clip_spec(spec.snap)
        clips = pool.submit_sample(file, clip_spec, deadline_s=deadline_s).result()
    vector: NDArray[np.float32] = loaded.encode(list(clips.frames)).mean(axis=0)
    return vector


def _place_of(spec: EncoderSpec) -> str:
    """Hub id or folder of a set's encoder: on the hub, or the tiny one of this package."""
    from coinml.encoder.checkpoint import find_checkpoint
    from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT

    if spec.revision is not None:
        return spec.encoder
    if find_checkpoint(TINY_CHECKPOINT).spec().weights_sha256 == spec.weights_sha256:
        return str(TINY_CHECKPOINT)
    raise InvalidInputError(
        f"the set was made with the folder {spec.encoder!r}, whose path it does not record: "
        "name it with --encoder"
    )


def nearest(
    matrix: NDArray[np.float32],
    ids: Sequence[str],
    query: NDArray[np.float32],
    *,
    k: int = 10,
    metric: str = "cosine",
    centre: bool = True,
) -> list[Neighbour]:
    """Find the videos nearest to a query, by exhaustive search.

    Args:
        matrix: float32 (N, D), one row a video.
        ids: Their ids.
        query: float32 (D,).
        k: Number of neighbours; fewer are returned if there are fewer videos.
        metric: `cosine` or `l2`.
        centre: For `cosine`, subtract the mean of all videos first: embeddings of one network
            share a large common component, which makes all of them similar.

    Returns:
        The nearest first; ties are ordered by id.

    Raises:
        InvalidInputError: The shapes do not fit, `k` is below 1, or the metric is unknown.
    """
    if metric not in get_args(Metric):
        raise InvalidInputError(f"metric {metric!r} is unknown; known: {get_args(Metric)}")
    if matrix.ndim != 2 or len(ids) != len(matrix) or query.shape != matrix.shape[1:]:
        raise InvalidInputError(
            f"{len(ids)} ids, vectors of shape {matrix.shape} and a query of {query.shape} "
            "do not fit"
        )
    if k < 1:
        raise InvalidInputError(f"k must be at least 1, not {k}")
    if not len(ids):
        return []
    if metric == "l2":
        scores = np.linalg.norm(matrix - query, axis=1)
    else:
        origin = matrix.mean(axis=0) if centre else np.zeros_like(query)
        scores = _unit(matrix - origin) @ _unit(query - origin)
    order = np.lexsort((np.asarray(ids), scores if metric == "l2" else -scores))
    return [Neighbour(video_id=ids[int(place)], score=float(scores[place])) for place in order[:k]]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return scaled
