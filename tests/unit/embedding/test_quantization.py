"""Precision int8: one quantized model for a set, from its training videos."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coinml import media
from coinml.embedding import quantization
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.quantization import load_set_encoder, quantize_for
from coinml.embedding.shards import load_encoder_once
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.neighbours import find_similar
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import keep_quantized, quantized_file
from coinml.encoder import int8_model
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError, LocalError
from tests.unit.embedding.test_engine import job_of

OPTIONS = SetOptions(encoder="tiny", clips=3, stride=2, precision="int8").resolved(mini=True)
FLOAT = OPTIONS.model_copy(update={"precision": "float"})


@pytest.fixture(scope="module")
def jobs(
    tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]
) -> list[EmbedJob]:
    folder = tmp_path_factory.mktemp("videos")
    paths = [
        make_video(folder / f"video{seed}.mp4", seconds=1 + seed / 10, seed=seed)
        for seed in range(6)
    ]
    return [job_of(path) for path in paths]


def open_set(root: Path, options: SetOptions) -> EmbeddingSet:
    return EmbeddingSet.open(str(root), "mini", options.spec("mini"), create=True)


def vectors(embeddings: EmbeddingSet) -> np.ndarray:
    found = embeddings.clips(["embedding"]).to_pandas()["embedding"]
    return np.stack(found).astype(np.float32)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, jobs: list[EmbedJob]) -> Path:
    """The root of a set with four of six videos."""
    root = tmp_path_factory.mktemp("sets")
    embeddings = open_set(root, OPTIONS)
    quantize_for(embeddings, OPTIONS, jobs, training={"video1", "video3", "video4"})
    encoder = load_set_encoder(str(root), "mini", OPTIONS, "cpu")
    report = embed(jobs[:4], encoder, embeddings)
    assert (report.embedded, report.failed) == (4, {})
    assert "openvino-int8" in report.kernel
    return root


def test_the_fingerprint_is_another_and_the_default_spec_is_as_before() -> None:
    quantized, plain = OPTIONS.spec("mini"), FLOAT.spec("mini")
    assert quantized.fingerprint != plain.fingerprint
    assert "precision" not in plain.encoder.as_dict()
    assert quantized.encoder.as_dict()["precision"] == "int8"
    assert EncoderSpec.from_dict(quantized.encoder.as_dict()) == quantized.encoder
    assert quantized.encoder.sampling.precision == "int8"


def test_vectors_agree_with_float_and_are_marked(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    embeddings = open_set(quantized, OPTIONS)
    plain = open_set(tmp_path, FLOAT)
    embed(jobs[:4], load_encoder_once(FLOAT, "cpu"), plain)
    ours, theirs = vectors(embeddings), vectors(plain)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = (ours * theirs).sum(axis=1) / lengths
    assert cosine.min() > 0.99
    assert not np.array_equal(ours, theirs)
    assert set(embeddings.clips(["dtype"]).to_pandas()["dtype"]) == {"int8"}


def test_quantizing_leaves_the_handlers_of_a_program_as_they_are(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    handler = logging.NullHandler()
    logging.getLogger("nncf").addHandler(handler)
    try:
        quantize_for(open_set(tmp_path, OPTIONS), OPTIONS, jobs, training={"video1"})
    finally:
        logging.getLogger("nncf").removeHandler(handler)
    assert quantized_file(open_set(tmp_path, OPTIONS)).is_file()
    assert handler.level == logging.NOTSET


def test_the_file_says_which_training_clips_were_used(quantized: Path) -> None:
    path = quantized_file(open_set(quantized, OPTIONS))
    assert path is not None
    described = int8_model.description_of(path)
    assert {clip["video_id"] for clip in described["clips"]} == {"video1", "video3", "video4"}
    assert described["least_cosine"] > 0.99
    assert set(described["versions"]) == {"nncf", "openvino", "torch"}


def test_a_continued_set_uses_the_same_model(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    root = tmp_path / "sets"
    shutil.copytree(quantized, root)
    continued = open_set(root, OPTIONS)
    path = quantized_file(continued)
    assert path is not None
    before = path.read_bytes()
    # Other training videos than at first.
    quantize_for(continued, OPTIONS, jobs, training={"video0", "video5"})
    assert path.read_bytes() == before
    embed(jobs, load_set_encoder(str(root), "mini", OPTIONS, "cpu"), continued)
    whole = open_set(tmp_path / "whole", OPTIONS)
    encoder = load_encoder(
        str(OPTIONS.encoder), device="cpu", sampling=OPTIONS.sampling, quantized=path
    )
    embed(jobs, encoder, whole)
    # An encoder that was loaded with a model gives it to a set that has none.
    assert quantized_file(whole).read_bytes() == before
    assert len(vectors(whole)) == 18
    assert np.array_equal(vectors(continued), vectors(whole))


def test_two_quantized_models_are_not_mixed_in_a_set(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    other = open_set(tmp_path, OPTIONS)
    quantize_for(other, OPTIONS, jobs, training={"video0"})
    encoder = load_set_encoder(str(tmp_path), "mini", OPTIONS, "cpu")
    with pytest.raises(InvalidInputError, match="another quantized model"):
        embed(jobs, encoder, open_set(quantized, OPTIONS))


def test_quantizing_again_on_the_same_clips_gives_the_same_weights(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    again = open_set(tmp_path, OPTIONS)
    quantize_for(again, OPTIONS, jobs[::-1], training={"video4", "video3", "video1"})
    kept = []
    for one in (open_set(quantized, OPTIONS), again):
        with zipfile.ZipFile(quantized_file(one)) as archive:
            # OpenVINO numbers the names in the graph by process.
            kept.append([archive.read(name) for name in ("quantization.json", "model.bin")])
    assert kept[0] == kept[1]


def test_a_copy_of_the_encoder_is_the_same_one(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    encoder = load_set_encoder(str(quantized), "mini", OPTIONS, "cpu")
    copy = load_encoder(encoder.copy_to(tmp_path / "copy"), sampling=encoder.spec.sampling)
    clips = media.sample(jobs[5].path, encoder.clip_spec()).frames
    assert copy.spec == encoder.spec
    assert copy.dtype_name == "int8"
    assert np.array_equal(copy.encode(clips), encoder.encode(clips))


def test_a_file_is_compared_with_a_quantized_set(quantized: Path, jobs: list[EmbedJob]) -> None:
    found = find_similar(jobs[2].path, str(quantized), "mini", device="cpu", k=1)
    assert [one.video_id for one in found] == ["video2"]


def test_videos_that_do_not_decode_are_not_used(
    jobs: list[EmbedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"junk")
    broken = EmbedJob(video_id="junk", path=str(junk), file_sha256="0" * 64)
    embeddings = open_set(tmp_path / "sets", OPTIONS)
    with pytest.raises(InvalidInputError, match="none of the 1 that are here can be decoded"):
        quantize_for(embeddings, OPTIONS, [broken, *jobs], training={"junk"})
    assert quantized_file(embeddings) is None
    monkeypatch.setattr(quantization, "CALIBRATION_CLIPS", 1)
    quantize_for(embeddings, OPTIONS, [broken, *jobs], training={"junk", "video1", "video2"})
    path = quantized_file(embeddings)
    assert path is not None
    (clip,) = int8_model.description_of(path)["clips"]
    assert clip["video_id"] in ("video1", "video2")


def test_without_openvino_or_nncf_the_error_says_what_to_install(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quantized_file(open_set(quantized, OPTIONS))
    # Both are installed here.
    monkeypatch.setattr(int8_model, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(InvalidInputError, match=r"needs nncf, .*coinml\[openvino\]"):
        quantize_for(open_set(tmp_path, OPTIONS), OPTIONS, jobs, training={"video1"})
    monkeypatch.setattr(int8_model, "find_spec", lambda _: None)
    with pytest.raises(InvalidInputError, match=r"needs openvino, .*coinml\[openvino\]"):
        load_encoder(str(OPTIONS.encoder), sampling=OPTIONS.sampling, quantized=path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kernel": "torch-float32"}, "kernel 'torch-float32' is not for precision 'int8'"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16' is not for precision 'int8'"),
        ({"device": "cuda"}, "for a CPU; the device is cuda"),
        ({"sampling": Sampling(precision="int4")}, "'int4': allowed are float, int8"),
        ({"sampling": Sampling(precision="int8")}, "does not exist: `coinml embed"),
        ({"sampling": Sampling(clips=2, precision="int8"), "quantized": True}, "not of"),
    ],
)
def test_what_does_not_go_together_is_refused(
    quantized: Path, given: dict[str, object], says: str
) -> None:
    path = quantized_file(open_set(quantized, OPTIONS))
    given = {"sampling": OPTIONS.sampling, **given}
    if given.pop("quantized", None):
        given["quantized"] = path
    with pytest.raises(InvalidInputError, match=says):
        load_encoder(str(OPTIONS.encoder), **given)  # type: ignore[arg-type]


def test_a_damaged_file_is_named(quantized: Path, tmp_path: Path) -> None:
    whole = quantized_file(open_set(quantized, OPTIONS)).read_bytes()
    damaged = tmp_path / "int8.zip"
    for content in (b"junk", whole[: len(whole) // 2], whole.replace(b"coinml-int8-1", b"x" * 13)):
        damaged.write_bytes(content)
        with pytest.raises(LocalError, match=r"int8\.zip"):
            load_encoder(str(OPTIONS.encoder), sampling=OPTIONS.sampling, quantized=damaged)


def test_a_set_in_a_bucket_is_read_from_a_copy(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    content = quantized_file(open_set(quantized, OPTIONS)).read_bytes()
    # In place of a bucket: a file system of fsspec that is not the local one.
    remote = EmbeddingSet.open("memory://quantized", "mini", OPTIONS.spec("mini"), create=True)
    assert quantized_file(remote) is None
    assert keep_quantized(remote, content)
    assert not keep_quantized(remote, content + b" ")
    copied = quantized_file(remote)
    assert copied.read_bytes() == content
    assert copied.is_relative_to(tmp_path)
    encoder = load_set_encoder("memory://quantized", "mini", OPTIONS, "cpu")
    assert embed(jobs[:1], encoder, remote).embedded == 1
