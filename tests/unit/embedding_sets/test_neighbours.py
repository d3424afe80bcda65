"""Nearest neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from coinml.embedding_sets.neighbours import nearest
from coinml.errors import InvalidInputError

MATRIX = np.array([[1, 0], [0, 1], [10, 1], [-1, 0]], dtype=np.float32)
IDS = ["a", "b", "c", "d"]


def test_a_video_is_its_own_nearest() -> None:
    for metric in ("cosine", "l2"):
        for row, video_id in zip(MATRIX, IDS, strict=True):
            found = nearest(MATRIX, IDS, row, k=1, metric=metric)
            assert [neighbour.video_id for neighbour in found] == [video_id]


def test_cosine_ignores_length_and_l2_does_not() -> None:
    query = np.array([3, 0], dtype=np.float32)
    by_angle = nearest(MATRIX, IDS, query, metric="cosine", centre=False)
    assert [neighbour.video_id for neighbour in by_angle] == ["a", "c", "b", "d"]
    assert by_angle[0].score == pytest.approx(1)
    assert by_angle[-1].score == pytest.approx(-1)
    by_distance = nearest(MATRIX, IDS, query, k=2, metric="l2")
    assert [(n.video_id, round(n.score, 3)) for n in by_distance] == [("a", 2.0), ("b", 3.162)]


def test_the_common_component_is_removed() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(50, 16)) + 100).astype(np.float32)
    ids = [f"{index:02d}" for index in range(50)]
    query = matrix[7] + rng.normal(scale=0.1, size=16).astype(np.float32)
    first, second = nearest(matrix, ids, query, k=2)
    assert first.video_id == "07"
    assert first.score > 0.9 > second.score


def test_ties_are_ordered_by_id_and_an_empty_set_has_no_neighbours() -> None:
    same = np.ones((3, 2), dtype=np.float32)
    found = nearest(same, ["c", "a", "b"], same[0], metric="l2", k=9)
    assert [neighbour.video_id for neighbour in found] == ["a", "b", "c"]
    assert nearest(np.empty((0, 2), np.float32), [], same[0]) == []


def test_invalid_queries_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="cosine"):
        nearest(MATRIX, IDS, MATRIX[0], metric="dot")
    with pytest.raises(InvalidInputError, match="do not fit"):
        nearest(MATRIX, IDS, np.zeros(3, np.float32))
    with pytest.raises(InvalidInputError, match="k must be"):
        nearest(MATRIX, IDS, MATRIX[0], k=0)
