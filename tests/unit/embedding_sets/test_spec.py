"""Fingerprints of specs, as literals: a change of one would orphan every embedding set."""

from __future__ import annotations

from dataclasses import replace

from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.spec import EncoderSpec

ENCODER = EncoderSpec(
    encoder="MCG-NJU/videomae-base",
    revision="0123456789abcdef",
    architecture="videomae",
    weights_sha256="ab" * 32,
    resize=224,
    crop=(224, 224),
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    frames=16,
    stride=4,
    clips=8,
    short="repeat_last",
    keep_tokens=0.25,
    keep_seed=3,
    pooling="mean",
    dim=768,
)
SET = SetSpec(encoder=ENCODER, dataset="coin", extent="annotated", snap="keyframe")


def test_the_fingerprints_of_fixed_specs_never_change() -> None:
    assert ENCODER.fingerprint == "45b8f5bbb284"
    assert SET.fingerprint == "61a44a2f1bea"


def test_a_spec_survives_its_json() -> None:
    content = SET.as_dict()
    assert SetSpec.from_dict(content) == SET
    assert (content["fingerprint"], content["encoder"]["fingerprint"]) == (
        "61a44a2f1bea",
        "45b8f5bbb284",
    )
    # The default precision is left out, so that the JSON of earlier sets stays as it is.
    quantized = replace(ENCODER, precision="int8")
    assert EncoderSpec.from_dict(quantized.as_dict()) == quantized
    assert quantized.fingerprint != ENCODER.fingerprint
    assert {*quantized.as_dict()} - {*content["encoder"]} == {"precision"}
    assert {*content["encoder"]} < {*quantized.as_dict()}


def test_a_quantized_spec_has_its_calibration() -> None:
    # Earlier versions wrote none, and their sets stay what they are.
    earlier = replace(ENCODER, precision="int8")
    assert earlier.fingerprint == "1470896b1421"
    assert "calibration_sha256" not in earlier.as_dict()
    one, other = (replace(earlier, calibration_sha256=digit * 64) for digit in "01")
    assert len({spec.fingerprint for spec in (ENCODER, earlier, one, other)}) == 4
    assert EncoderSpec.from_dict(one.as_dict()) == one
    assert sorted(one.as_dict()) == sorted([*EncoderSpec.__dataclass_fields__, "fingerprint"])
