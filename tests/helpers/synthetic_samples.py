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
