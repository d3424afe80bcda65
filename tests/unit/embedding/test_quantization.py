"""Precision int8: one quantized model for a set, from its training videos."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coinml import media
from coinml.embedding import quantization
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.quantization import load_set_encoder, open_set
from coinml.embedding.shards import load_encoder_once
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.neighbours import find_similar
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import (
    find_quantized_set,
    find_spec,
    keep_quantized,
    quantized_file,
)
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


def opened(root: Path, jobs: list[EmbedJob], training: set[str] | None = None) -> EmbeddingSet:
    """The set in int8 below a root, quantized on videos if it is not there yet."""
    return open_set(str(root), "mini", OPTIONS, jobs, training=training or set())


def found(root: Path) -> EmbeddingSet:
    embeddings = find_quantized_set(str(root), "mini", OPTIONS)
    assert embeddings is not None
    return embeddings


def vectors(embeddings: EmbeddingSet) -> np.ndarray:
    rows = embeddings.clips(["embedding"]).to_pandas()["embedding"]
    return np.stack(rows).astype(np.float32)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, jobs: list[EmbedJob]) -> Path:
    """The root of a set with four of six videos."""
    root = tmp_path_factory.mktemp("sets")
    embeddings = opened(root, jobs, {"video1", "video3", "video4"})
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
    embeddings = found(quantized)
    plain = open_set(str(tmp_path), "mini", FLOAT, jobs, training=set())
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
        embeddings = opened(tmp_path, jobs, {"video1"})
    finally:
        logging.getLogger("nncf").removeHandler(handler)
    assert quantized_file(embeddings).is_file()
    assert handler.level == logging.NOTSET


def test_the_file_says_which_training_clips_were_used(quantized: Path) -> None:
    path = quantized_file(found(quantized))
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
    path = quantized_file(found(root))
    assert path is not None
    before = path.read_bytes()
    # Other training videos than at first.
    continued = opened(root, jobs, {"video0", "video5"})
    assert continued.spec == found(quantized).spec
    assert path.read_bytes() == before
    embed(jobs, load_set_encoder(str(root), "mini", OPTIONS, "cpu"), continued)
    encoder = load_encoder(
        str(OPTIONS.encoder), device="cpu", sampling=OPTIONS.sampling, quantized=path
    )
    assert encoder.spec == continued.spec.encoder
    spec = replace(FLOAT.spec("mini"), encoder=encoder.spec)
    whole = EmbeddingSet.open(str(tmp_path / "whole"), "mini", spec, create=True)
    embed(jobs, encoder, whole)
    # An encoder that was loaded with a model gives it to a set that has none.
    assert quantized_file(whole).read_bytes() == before
    assert len(vectors(whole)) == 18
    assert np.array_equal(vectors(continued), vectors(whole))


def test_two_quantized_models_are_not_mixed_in_a_set(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    other = opened(tmp_path, jobs, {"video0"})
    own = found(quantized)
    # They differ in nothing but the clips.
    assert other.spec.fingerprint != own.spec.fingerprint
    calibration = own.spec.encoder.calibration_sha256
    encoder_spec = replace(other.spec.encoder, calibration_sha256=calibration)
    assert encoder_spec == own.spec.encoder
    encoder = load_set_encoder(str(tmp_path), "mini", OPTIONS, "cpu")
    with pytest.raises(InvalidInputError, match="it was quantized on other clips"):
        embed(jobs, encoder, own)
    # Nor where the clips are equal, and another version of a library has made another model.
    root = tmp_path / "sets"
    shutil.copytree(quantized, root)
    encoder = load_set_encoder(str(root), "mini", OPTIONS, "cpu")
    with zipfile.ZipFile(quantized_file(found(root)), "a") as archive:
        archive.writestr("more", b"")
    with pytest.raises(InvalidInputError, match="another quantized model"):
        embed(jobs, encoder, own)


def test_a_set_without_its_model_is_continued_with_the_same_clips_only(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    root = tmp_path / "sets"
    shutil.copytree(quantized, root)
    path = quantized_file(found(root))
    assert path is not None
    path.unlink()
    before = sorted(root.rglob("*"))
    with pytest.raises(LocalError, match=r"has lost its quantized model \(int8\.zip\)"):
        opened(root, jobs, {"video0", "video5"})
    assert sorted(root.rglob("*")) == before
    continued = opened(root, jobs, {"video1", "video3", "video4"})
    assert continued.spec == found(quantized).spec
    assert quantized_file(continued) == path
    embed(jobs, load_set_encoder(str(root), "mini", OPTIONS, "cpu"), continued)
    assert len(vectors(continued)) == 18


def test_of_two_sets_with_the_same_options_none_is_taken(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    root = tmp_path / "sets"
    shutil.copytree(quantized, root)
    other = opened(tmp_path / "other", jobs, {"video0"})
    shutil.copytree(other.path, root / "mini" / other.spec.fingerprint)
    for ask in (find_spec, lambda *asked: open_set(*asked, jobs, training={"video0"})):
        with pytest.raises(InvalidInputError, match=r"2 int8 sets .* different clips") as refused:
            ask(str(root), "mini", OPTIONS)
        assert other.spec.fingerprint in str(refused.value)


def test_a_set_of_an_earlier_version_is_continued(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    # Its spec and its quantized model say nothing of the clips.
    earlier = EmbeddingSet.open(str(tmp_path), "mini", OPTIONS.spec("mini"), create=True)
    with zipfile.ZipFile(quantized_file(found(quantized))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    described = json.loads(parts["quantization.json"])
    described["encoder"] = earlier.spec.encoder.as_dict()
    assert "calibration_sha256" not in described["encoder"]
    parts["quantization.json"] = json.dumps(described).encode()
    with zipfile.ZipFile(tmp_path / "int8.zip", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert keep_quantized(earlier, (tmp_path / "int8.zip").read_bytes())
    assert opened(tmp_path, jobs, {"video0"}).spec == earlier.spec
    encoder = load_set_encoder(str(tmp_path), "mini", OPTIONS, "cpu")
    assert embed(jobs[:1], encoder, earlier).embedded == 1


def test_quantizing_again_on_the_same_clips_gives_the_same_weights(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path
) -> None:
    again = opened(tmp_path, jobs[::-1], {"video4", "video3", "video1"})
    assert again.spec == found(quantized).spec
    kept = []
    for one in (found(quantized), again):
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
    nearest = find_similar(jobs[2].path, str(quantized), "mini", device="cpu", k=1)
    assert [one.video_id for one in nearest] == ["video2"]


def test_videos_that_do_not_decode_are_not_used(
    jobs: list[EmbedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"junk")
    broken = EmbedJob(video_id="junk", path=str(junk), file_sha256="0" * 64)
    root = tmp_path / "sets"
    with pytest.raises(InvalidInputError, match="none of the 1 that are here can be decoded"):
        opened(root, [broken, *jobs], {"junk"})
    assert not root.exists()
    monkeypatch.setattr(quantization, "CALIBRATION_CLIPS", 1)
    path = quantized_file(opened(root, [broken, *jobs], {"junk", "video1", "video2"}))
    assert path is not None
    (clip,) = int8_model.description_of(path)["clips"]
    assert clip["video_id"] in ("video1", "video2")


def test_without_openvino_or_nncf_the_error_says_what_to_install(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quantized_file(found(quantized))
    # Both are installed here.
    monkeypatch.setattr(int8_model, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(InvalidInputError, match=r"needs nncf, .*coinml\[openvino\]"):
        opened(tmp_path, jobs, {"video1"})
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
    path = quantized_file(found(quantized))
    given = {"sampling": OPTIONS.sampling, **given}
    if given.pop("quantized", None):
        given["quantized"] = path
    with pytest.raises(InvalidInputError, match=says):
        load_encoder(str(OPTIONS.encoder), **given)  # type: ignore[arg-type]


def test_a_damaged_file_is_named(quantized: Path, tmp_path: Path) -> None:
    whole = quantized_file(found(quantized)).read_bytes()
    damaged = tmp_path / "int8.zip"
    for content in (b"junk", whole[: len(whole) // 2], whole.replace(b"coinml-int8-1", b"x" * 13)):
        damaged.write_bytes(content)
        with pytest.raises(LocalError, match=r"int8\.zip"):
            load_encoder(str(OPTIONS.encoder), sampling=OPTIONS.sampling, quantized=damaged)


def test_a_set_in_a_bucket_is_read_from_a_copy(
    quantized: Path, jobs: list[EmbedJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    content = quantized_file(found(quantized)).read_bytes()
    # In place of a bucket: a file system of fsspec that is not the local one.
    spec = found(quantized).spec
    remote = EmbeddingSet.open("memory://quantized", "mini", spec, create=True)
    assert quantized_file(remote) is None
    assert keep_quantized(remote, content)
    assert not keep_quantized(remote, content + b" ")
    copied = quantized_file(remote)
    assert copied.read_bytes() == content
    assert copied.is_relative_to(tmp_path)
    encoder = load_set_encoder("memory://quantized", "mini", OPTIONS, "cpu")
    assert embed(jobs[:1], encoder, remote).embedded == 1
