"""Synthetic samples: blobs, rings, and videos of which one clip shows the class."""

from __future__ import annotations

import numpy as np

from coinml.embedding_sets.table import Samples

DIM, CLIPS, CLASSES = 16, 6, 4


def needles(n: int, *, seed: int) -> Samples:
    """Videos of which one clip, marked by a large value, shows the class; the others mislead."""
    generator = np.random.default_rng(seed)
    centres = np.eye(CLASSES, DIM)
    y = np.arange(n) % CLASSES
    clips = 0.3 * generator.normal(size=(n, CLIPS, DIM))
    clips += 1.2 * centres[generator.integers(0, CLASSES, (n, CLIPS))]
    tells = generator.integers(0, CLIPS, n)
    clips[np.arange(n), tells] = 1.2 * centres[y] + 0.3 * generator.normal(size=(n, DIM))
    clips[np.arange(n), tells, -1] += 4.0
    clips = clips.astype(np.float16)
    return Samples(
        ids=tuple(f"{seed}-{i}" for i in range(n)),
        x=clips.astype(np.float32).mean(axis=1),
        y=y.astype(np.int64),
        classes=tuple("abcd"),
        clips=clips,
    )


def blobs(n: int, *, seed: int, classes: int = 4, dim: int = 16) -> Samples:
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = (centres[y] + 0.8 * generator.normal(size=(n, dim))) * np.geomspace(0.01, 100, dim)
    return Samples(
        ids=tuple(f"{seed}-{i}" for i in range(n)),
        x=x.astype(np.float32),
        y=y.astype(np.int64),
        classes=tuple("abcdef"[:classes]),
    )


def rings(n: int, *, seed: int) -> Samples:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = generator.uniform(0, 2 * np.pi, n)
    radius = 1.0 + 2.0 * y + 0.2 * generator.normal(size=n)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return Samples(
        ids=tuple(f"{seed}-{i}" for i in range(n)),
        x=x.astype(np.float32),
        y=y.astype(np.int64),
        classes=("inner", "outer"),
    )


def task_like(*sizes: int, classes: int, seed: int = 0) -> tuple[Samples, ...]:
    """Parts of these sizes with overlapping classes, as embeddings of tasks have.

    A class has several modes, embeddings are a nonlinear map of them with a decaying spectrum, and
    one in six answers or so is wrong. Each video has four noisy clips.
    """
    generator = np.random.default_rng(seed)
    n, dim, latent, modes, clips = sum(sizes), 96, 48, 2, 4
    y = generator.permutation(np.arange(n) % classes)
    centres = generator.normal(size=(classes, modes, latent))
    # Videos differ in how clearly they show their task.
    clear = generator.uniform(0.1, 1.0, size=(n, 1))
    z = clear * centres[y, generator.integers(0, modes, n)]
    z += 0.35 * generator.normal(size=(n, latent))
    bend = generator.normal(size=(latent, dim)) / np.sqrt(latent)
    x = z @ generator.normal(size=(latent, dim)) / np.sqrt(latent) + np.tanh(1.5 * z @ bend)
    each = x[:, None] + 0.3 * generator.normal(size=(n, clips, dim))
    names = tuple(f"class {index:03d}" for index in range(classes))
    each16 = each.astype(np.float16)
    ends = np.cumsum(sizes)
    return tuple(
        Samples(
            ids=tuple(map(str, range(a, b))),
            x=each16[a:b].astype(np.float32).mean(axis=1),
            y=y[a:b].astype(np.int64),
            classes=names,
            clips=each16[a:b],
        )
        for a, b in zip((0, *ends[:-1]), ends, strict=True)
    )
