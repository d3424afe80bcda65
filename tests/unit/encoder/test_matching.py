"""Loading the encoder that a spec describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.matching import OtherEncoderError, load_matching_encoder
from coinml.encoder.sampling import Sampling


def test_an_encoder_is_loaded_with_the_sampling_of_a_spec(tiny_encoder_dir: Path) -> None:
    sampling = Sampling(clips=3, stride=2, keep_tokens=0.5, keep_seed=1)
    spec = find_checkpoint(tiny_encoder_dir).spec(sampling)
    loaded = load_matching_encoder(spec, tiny_encoder_dir, device="cpu")
    assert loaded.spec == spec
    assert spec.sampling == replace(sampling, frames=spec.frames)
    assert loaded.spec.fingerprint == spec.fingerprint


def test_another_encoder_is_refused(tiny_encoder_dir: Path) -> None:
    spec = find_checkpoint(tiny_encoder_dir).spec()
    other = replace(spec, weights_sha256="ab" * 32)
    with pytest.raises(OtherEncoderError) as caught:
        load_matching_encoder(other, tiny_encoder_dir, device="cpu")
    assert caught.value.found == spec.fingerprint
    assert str(caught.value) == (
        f"encoder {tiny_encoder_dir}: is {spec.fingerprint}, not {other.fingerprint}"
    )
