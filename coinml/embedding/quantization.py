"""Opening a set, with an encoder quantized on its training videos; and loading its encoder."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coinml.data.splits import unit_hash
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import (
    create_quantized_set,
    find_quantized_set,
    find_spec,
    keep_quantized,
    quantized_file,
)
from coinml.encoder.checkpoint import QUANTIZED_FILE
from coinml.encoder.int8_model import check_installed
from coinml.encoder.sampling import FLOAT, INT8
from coinml.errors import CorruptVideoError, InvalidInputError, LocalError
from coinml.runtime.addresses import masked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from coinml.encoder.clip_encoder import ClipEncoder
    from coinml.encoder.spec import EncoderSpec

logger = logging.getLogger(__name__)

CALIBRATION_CLIPS = 32
"""Clips that the scales of a quantized model are found from, each of another training video."""


def open_set(
    root_url: str,
    dataset: str,
    options: SetOptions,
    jobs: Sequence[EmbedJob],
    *,
    training: Collection[str],
    decoder: str = "auto",
    deadline_s: float = 60.0,
) -> EmbeddingSet:
    """Open the set with these options, or create it; with precision int8, quantize the encoder.

    It is quantized once for a set, on one clip each of the first training videos by the hash of
    their id: the choice depends only on which are there. Later runs use the same model.

    Args:
        root_url: Folder or fsspec URL of the embedding sets.
        dataset: Name of the dataset.
        options: The set's options, with the encoder named.
        jobs: All videos or extents of the set that have a file.
        training: Ids of training videos.
        decoder: As in `engine.embed`.
        deadline_s: Seconds that decoding one video may take.

    Raises:
        InvalidInputError: There is no such encoder; or for int8, OpenVINO or nncf is missing, no
            training video can be decoded, the encoder cannot be quantized, or several sets have
            these options.
        LocalError: The set cannot be read or written, or it has lost its quantized model and the
            videos that are here do not give it again.
    """
    if options.precision != INT8:
        return EmbeddingSet.open(root_url, dataset, options.spec(dataset), create=True)
    found = find_quantized_set(root_url, dataset, options)
    if found is not None and quantized_file(found) is not None:
        return found
    encoder_spec, content = _quantized(
        options,
        [job for job in jobs if job.video_id in training],
        decoder=decoder,
        deadline_s=deadline_s,
    )
    spec = replace(options.spec(dataset), encoder=encoder_spec)
    if found is not None and found.spec != spec:
        raise LocalError(
            f"set {found.spec.fingerprint} has lost its quantized model ({QUANTIZED_FILE}), and "
            "the training videos that are here now give another one, whose vectors cannot be mixed "
            f"with those of the set: restore the file from a copy, or move {masked(found.path)} "
            "away and embed again"
        )
    # Of two runs that quantize at once, both use the first one's.
    return create_quantized_set(root_url, spec, content)


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
    spec = find_spec(embeddings_root, dataset, options)
    embedding_set = EmbeddingSet.open(embeddings_root, dataset, spec)
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


def _quantized(
    options: SetOptions, jobs: Sequence[EmbedJob], *, decoder: str, deadline_s: float
) -> tuple[EncoderSpec, bytes]:
    """The spec of the quantized encoder, and its file's content."""
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
        encoder, jobs, snap=options.snap, decoder=decoder, deadline_s=deadline_s
    )
    logger.info("quantizing %s on %d clips", encoder.spec.encoder, len(clips))
    return encoder.quantize(clips, names=names)


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
