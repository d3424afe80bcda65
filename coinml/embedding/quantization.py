"""Quantizing an encoder on a set's training videos, and loading the encoder of a set."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coinml.data.splits import unit_hash
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import keep_quantized, quantized_file
from coinml.encoder.int8_model import check_installed
from coinml.encoder.sampling import FLOAT, INT8
from coinml.errors import CorruptVideoError, InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coinml.encoder.clip_encoder import ClipEncoder

logger = logging.getLogger(__name__)

CALIBRATION_CLIPS = 32
"""Clips that the scales of a quantized model are found from, each of another training video."""


def quantize_for(
    embedding_set: EmbeddingSet,
    options: SetOptions,
    jobs: Sequence[EmbedJob],
    *,
    training: Collection[str],
    decoder: str = "auto",
    deadline_s: float = 60.0,
) -> None:
    """Give a set with precision int8 its quantized model, unless it has one or is float.

    The model is quantized on one clip each of the first training videos by the hash of their id:
    the choice depends only on which are there. Later runs use the same model.

    Args:
        embedding_set: The set.
        options: Its options, with the encoder named.
        jobs: All videos or extents of the set that have a file.
        training: Ids of training videos.
        decoder: As in `engine.embed`.
        deadline_s: Seconds that decoding one video may take.

    Raises:
        InvalidInputError: OpenVINO or nncf is missing, no training video can be decoded, or the
            encoder cannot be quantized.
        LocalError: The set cannot be written.
    """
    if options.precision != INT8 or quantized_file(embedding_set) is not None:
        return
    from coinml.encoder.clip_encoder import load_encoder

    check_installed(quantizing=True)
    encoder = load_encoder(
        str(options.encoder),
        revision=options.revision,
        device="cpu",
        kernel="torch-float32",
        sampling=replace(options.sampling, precision=FLOAT),
    )
    clips, names = _calibration_clips(
        encoder,
        [job for job in jobs if job.video_id in training],
        snap=options.snap,
        decoder=decoder,
        deadline_s=deadline_s,
    )
    logger.info("quantizing %s on %d clips", encoder.spec.encoder, len(clips))
    # Of two runs that quantize at once, both use the first one's.
    keep_quantized(embedding_set, encoder.quantize(clips, names=names))


def load_set_encoder(
    embeddings_root: str, dataset: str, options: SetOptions, device: str, kernel: str = "auto"
) -> ClipEncoder:
    """The encoder of a dataset's set with these options, loaded once per process.

    Raises:
        InvalidInputError: There is no such encoder; or with precision int8 no such set, or it has
            no quantized model.
    """
    from coinml.embedding.shards import load_encoder_once

    if options.precision != INT8:
        return load_encoder_once(options, device, kernel)
    embedding_set = EmbeddingSet.open(embeddings_root, dataset, options.spec(dataset))
    return load_encoder_once(options, device, kernel, quantized_file(embedding_set))


def check_quantized(encoder: ClipEncoder, embedding_set: EmbeddingSet) -> None:
    """Verify that an encoder in int8 is the set's, or make it the set's if that has none.

    Raises:
        InvalidInputError: The set has another quantized model.
    """
    own = encoder.checkpoint.quantized
    if encoder.spec.precision != INT8 or own is None or own == quantized_file(embedding_set):
        return
    if not keep_quantized(embedding_set, own.read_bytes()):
        raise InvalidInputError(
            f"set {embedding_set.spec.fingerprint} has another quantized model, whose vectors "
            "cannot be mixed with this one's: load the encoder with the set's own"
        )


def _calibration_clips(
    encoder: ClipEncoder, jobs: Sequence[EmbedJob], *, snap: str, decoder: str, deadline_s: float
) -> tuple[list[NDArray[np.uint8]], list[dict[str, Any]]]:
    """The clips, and what they are."""
    from coinml.media import DecodePool

    first_of = {job.video_id: job for job in reversed(jobs)}
    clips: list[NDArray[np.uint8]] = []
    names: list[dict[str, Any]] = []
    with DecodePool(workers=1) as pool:
        for video_id in sorted(first_of, key=unit_hash):
            job = first_of[video_id]
            if len(clips) == CALIBRATION_CLIPS:
                break
            try:
                found = pool.submit_sample(
                    job.path,
                    encoder.clip_spec(snap),
                    start_s=job.start_s,
                    end_s=job.end_s,
                    decoder=decoder,
                    deadline_s=deadline_s,
                ).result()
            except (CorruptVideoError, InvalidInputError) as err:
                # The run that embeds it deals with it.
                logger.info("%s is not used for quantizing: %s", video_id, err)
                continue
            number = len(clips) % len(found.frames)
            # Copied, since the pool uses the memory again.
            clips.append(found.frames[number].copy())
            names.append({"video_id": video_id, "sha256": job.file_sha256, "clip": number})
    if not clips:
        raise InvalidInputError(
            f"precision 'int8': the encoder is quantized on training videos, and none of the "
            f"{len(first_of)} that are here can be decoded: collect some first"
        )
    return clips, names
