"""The kernels of a CPU: their vectors, alone and in one set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.kernels import KERNELS
from coinml.encoder.sampling import Sampling
from coinml.media import write_video
from tests.unit.encoder.test_encoder_families import FAMILIES, clips_of, cosine

pytestmark = pytest.mark.usefixtures("state")

OTHERS = [name for name in KERNELS if name != "torch-float32"]
OPENVINO = [name for name in KERNELS if name.startswith("openvino")]


@pytest.mark.parametrize("name", OTHERS)
def test_vectors_agree_with_torch_in_float32(family: str, checkpoint: Path, name: str) -> None:
    clips = clips_of(FAMILIES[family][2])
    wanted = load_encoder(checkpoint, device="cpu", kernel="torch-float32").encode(clips)
    encoder = load_encoder(checkpoint, device="cpu", kernel=name)
    assert encoder.dtype_name == name.split("-")[1]
    found = encoder.encode(clips)
    assert found.dtype == np.float32
    assert cosine(found, wanted).min() >= KERNELS[name].least_cosine
    # Other numbers of clips than the one that the model was prepared with.
    alone = encoder.encode(clips, batch_clips=1)
    np.testing.assert_allclose(alone, found, rtol=0.02, atol=0.02 * np.abs(wanted).max())
    # The vectors of different clips differ by far more than those of different kernels.
    assert 1 - cosine(wanted[:1], wanted[1:]).max() > 20 * (1 - cosine(found, wanted).min())


@pytest.mark.parametrize("name", OTHERS)
def test_kept_tokens_agree_too(tiny_encoder_dir: Path, name: str) -> None:
    clips = clips_of(16)
    some = Sampling(keep_tokens=0.25, keep_seed=3)
    wanted = load_encoder(tiny_encoder_dir, device="cpu", kernel="torch-float32", sampling=some)
    found = load_encoder(tiny_encoder_dir, device="cpu", kernel=name, sampling=some)
    assert cosine(found.encode(clips), wanted.encode(clips)).min() >= KERNELS[name].least_cosine
    assert found.spec.fingerprint == wanted.spec.fingerprint


@pytest.mark.parametrize("name", ["onednn-float32", *OPENVINO])
def test_threads_get_the_vectors_of_their_own_clips(tiny_encoder_dir: Path, name: str) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu", kernel=name)
    rng = np.random.default_rng(0)
    prepared = [
        encoder.prepare(rng.integers(0, 255, (16, 36, 48, 3), dtype=np.uint8)) for _ in range(24)
    ]
    batches = [prepared[start : start + 1 + start % 3] for start in range(0, 24, 2)]

    def work(batch: list[torch.Tensor]) -> np.ndarray:
        torch.set_num_threads(1)
        return encoder.encode_prepared(batch)

    one_by_one = [work(batch) for batch in batches]
    kept = [vectors.copy() for vectors in one_by_one]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(work, batches), kept, strict=True):
                np.testing.assert_array_equal(found, wanted)
    # A later call does not write into an earlier answer.
    for vectors, wanted in zip(one_by_one, kept, strict=True):
        np.testing.assert_array_equal(vectors, wanted)


def test_a_set_that_another_kernel_continues_is_one_set(
    tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    jobs = []
    for number in range(4):
        frames = rng.integers(0, 255, (40, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        path = write_video(tmp_path / f"{number}.mp4", iter(frames), fps=20)
        jobs.append(EmbedJob(video_id=str(number), path=str(path), file_sha256=f"{number:064d}"))

    def encoder_of(kernel: str) -> ClipEncoder:
        return load_encoder(
            tiny_encoder_dir, device="cpu", kernel=kernel, sampling=Sampling(clips=2)
        )

    def opened(name: str, encoder: ClipEncoder) -> EmbeddingSet:
        spec = SetSpec(encoder=encoder.spec, dataset="d")
        return EmbeddingSet.open(str(tmp_path / name), "d", spec, create=True)

    first, second = encoder_of("torch-float32"), encoder_of("openvino-bfloat16")
    both = opened("both", first)
    assert embed(jobs[:2], first, both, workers=1).embedded == 2
    report = embed(jobs, second, opened("both", second), workers=1)
    assert (report.embedded, report.skipped) == (2, 2)
    assert report.kernel.startswith("openvino-bfloat16")
    whole = opened("whole", first)
    embed(jobs, first, whole, workers=1)
    rows, wanted = (one.clips(["video_id", "dtype"]).to_pandas() for one in (both, whole))
    assert sorted(rows["video_id"]) == sorted(wanted["video_id"])
    assert set(rows[rows["video_id"] < "2"]["dtype"]) == {"float32"}
    assert set(rows[rows["video_id"] >= "2"]["dtype"]) == {"bfloat16"}
    assert both.videos().index.tolist() == whole.videos().index.tolist()
    assert cosine(both.matrix().means, whole.matrix().means).min() > 0.999
