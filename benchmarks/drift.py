"""How often the drift tests of scoring alarm falsely, and what they find, by simulation.

    python -m benchmarks.drift [--draws 200] [--videos 150] [--seed 0] [--vectors FILE]

Videos of the miniature's six tasks are drawn, embedded with the tiny encoder, and split: a head is
trained on one part, and the rest is the pool from which a reference and windows are drawn without
replacement, so that a window without drift comes from where the reference comes from. The cases:

- reencoded: each video was scaled down as from 360p to 144p, compressed, and scaled up again;
- mix: half of the window is one class; the six are equally frequent in the reference;
- unseen: the head and the reference know five classes, and the window has 20 % of the sixth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.table import Samples
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.heads.fit_head import fit_head
from coinml.heads.protocol import Head
from coinml.media.reencoding import reencode
from coinml.miniature.dataset import HEIGHT, draw_video, plan_dataset
from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT
from coinml.monitoring.drift import ALPHA, Drift, Predicted, find_drift

LOOKS, PERMUTATIONS = 50, 5999
ROWS = HEIGHT * 144 // 360
"""As many of the miniature's rows as 144p has of 360p's."""

Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Print the table of false alarms and power."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--videos", type=int, default=150, help="per class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", type=Path, help="kept here, and read the next time")
    options = parser.parse_args()
    if options.vectors is None or not options.vectors.is_file():
        made = make_vectors(videos=options.videos, seed=options.seed)
        if options.vectors is not None:
            np.savez(options.vectors, **made)
    else:
        made = dict(np.load(options.vectors))
    simulation = Simulation(**made, seed=options.seed)
    print(
        "| case | reference | window | embeddings | class mix | confidence | any, 5 % a window "
        f"| any, 5 % in {LOOKS} windows |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for reference, window in ((150, 50), (300, 100)):
        for case in ("none", "reencoded", "mix", "unseen"):
            draws = options.draws if case == "none" else options.draws // 2
            row = simulation.rates(case, reference, window, draws)
            print(f"| {case} | {reference} | {window} | {row} |", flush=True)


def make_vectors(*, videos: int, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """Vectors of the videos as they are drawn and after the re-encoding, and their classes."""
    plans = plan_dataset(seed=seed + 1000, training=videos, testing=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = load_encoder(TINY_CHECKPOINT, device="cpu", sampling=Sampling())
        spec = SetSpec(encoder=encoder.spec, dataset="drift")
        jobs = []
        for plan in plans:
            path = draw_video(plan, folder)
            small = reencode(path, folder / f"{plan.video_id}.small.mp4", rows=ROWS)
            for kind, file in (("plain", path), ("small", small)):
                jobs.append(
                    EmbedJob(video_id=f"{kind} {plan.video_id}", path=str(file), file_sha256=kind)
                )
        made = EmbeddingSet.open(str(folder / "sets"), "drift", spec, create=True)
        embed(jobs, encoder, made)
        table = made.videos().set_index("video_id")
    return {
        **{
            kind: table.loc[[f"{kind} {plan.video_id}" for plan in plans]]
            .filter(regex=r"^e\d+$")
            .to_numpy(dtype=np.float32)
            for kind in ("plain", "small")
        },
        "y": np.array([plan.task.recipe_type for plan in plans]),
    }


class Simulation:
    """Heads and pools for the cases.

    Args:
        plain: Vectors of the videos, shape (N, D).
        small: Those of the re-encoded videos, in the same order.
        y: Class of each.
        seed: Seed of the split and of the draws.
    """

    def __init__(self, *, plain: Vectors, small: Vectors, y: Vectors, seed: int) -> None:
        self._plain, self._small, self._y = plain, small, y.astype(np.int64)
        self._seed = seed
        order = np.random.default_rng(seed).permutation(len(y))
        self._train, self._val, self._pool = np.split(order, [len(y) // 4, len(y) // 3])
        self._classes = tuple(f"class {k}" for k in range(int(self._y.max()) + 1))
        self._head = self._fit(known=len(self._classes))
        self._head_of_fewer = self._fit(known=len(self._classes) - 1)

    def _fit(self, *, known: int) -> Head:
        train, val = (self._samples(rows, known) for rows in (self._train, self._val))
        return fit_head("logreg", train, val)

    def _samples(self, rows: npt.NDArray[np.int64], known: int) -> Samples:
        rows = rows[self._y[rows] < known]
        return Samples(
            ids=tuple(map(str, rows)),
            x=self._plain[rows],
            y=self._y[rows],
            classes=self._classes[:known],
        )

    def rates(self, case: str, n: int, m: int, draws: int) -> str:
        """How often each test has p <= 5 %, and the window differs, by each rule."""
        found = []
        for seed in range(draws):
            drift = self._compare(case, n, m, seed)
            of_tests = [one.p_value <= ALPHA for one in drift.tests.values()]
            adjusted = min(drift.adjusted.values())
            found.append([*of_tests, adjusted <= ALPHA, adjusted <= ALPHA / LOOKS])
        return " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0))

    def _compare(self, case: str, n: int, m: int, seed: int) -> Drift:
        generator = np.random.default_rng([self._seed, seed])
        known = len(self._classes) - (case == "unseen")
        pool = generator.permutation(self._pool)
        familiar = pool[self._y[pool] < known]
        reference, rest = familiar[:n], familiar[n:]
        window, x = rest[:m], self._plain
        if case == "reencoded":
            x = self._small
        elif case == "mix":
            of_one = rest[self._y[rest] == 0][: m // 2]
            window = np.concatenate([of_one, rest[self._y[rest] != 0][: m - len(of_one)]])
        elif case == "unseen":
            window = np.concatenate([rest[: m - m // 5], pool[self._y[pool] == known][: m // 5]])
        head = self._head_of_fewer if case == "unseen" else self._head
        parts = (self._answered(head, self._plain[reference]), self._answered(head, x[window]))
        return find_drift(*parts, seed=seed, permutations=PERMUTATIONS)

    def _answered(self, head: Head, x: Vectors) -> Predicted:
        proba = head.predict_proba(x)
        return Predicted(
            embeddings=x,
            labels=tuple(head.classes[index] for index in proba.argmax(axis=1)),
            scores=proba.max(axis=1),
        )


if __name__ == "__main__":
    main()
