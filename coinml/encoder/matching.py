"""Loading the encoder that a spec describes, with a check."""

from __future__ import annotations

from pathlib import Path

from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError


class OtherEncoderError(InvalidInputError):
    """A checkpoint is not the expected encoder.

    Attributes:
        found: Fingerprint of the checkpoint with the spec's sampling.
    """

    def __init__(self, ref: str | Path, *, found: str, wanted: str) -> None:
        super().__init__(f"encoder {ref}: is {found}, not {wanted}")
        self.found = found


def load_matching_encoder(
    spec: EncoderSpec,
    ref: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    quantized: Path | None = None,
) -> ClipEncoder:
    """Load a checkpoint with a spec's sampling and verify that it has the spec's fingerprint.

    Args:
        spec: The expected encoder.
        ref: Hub id or folder.
        revision: Branch, tag or commit on the hub.
        device: As in `load_encoder`.
        quantized: Likewise.

    Raises:
        OtherEncoderError: The checkpoint is another encoder.
        InvalidInputError: There is no such checkpoint or device.
        TransientError: The hub does not answer.
    """
    loaded = load_encoder(
        ref, revision=revision, device=device, sampling=spec.sampling, quantized=quantized
    )
    if loaded.spec.fingerprint != spec.fingerprint:
        raise OtherEncoderError(ref, found=loaded.spec.fingerprint, wanted=spec.fingerprint)
    return loaded
