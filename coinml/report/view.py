"""What the page's script gets: the points, and what is shown of them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from coinml.embedding_sets.table import sample_ids
from coinml.report.gathering import ReportData
from coinml.report.mapping import NAMES, EmbeddingMap
from coinml.runtime.escaping import printable

MOST_COLOURS = 24
"""With more classes than this, points are coloured by domain, if domains are known."""


def page_points(
    data: ReportData,
    found: EmbeddingMap | None,
    *,
    title_of: Callable[[str], str],
    link_of: Callable[[str], str],
) -> list[dict[str, Any]]:
    """A record for each embedded video (or segment); without embeddings, for each predicted one."""
    rows = data.table
    if rows is None:
        rows = next(iter(data.predictions.values()), pd.DataFrame())
    if rows.empty:
        return []
    near = [[]] * len(rows) if found is None else found.neighbours.tolist()
    return [
        {
            "id": sample_id,
            "title": title_of(sample_id),
            "label": label,
            "split": split,
            "link": link_of(sample_id),
            "near": neighbours,
        }
        for sample_id, label, split, neighbours in zip(
            sample_ids(rows), rows["label"], rows["split"], near, strict=True
        )
    ]


def page_view(
    data: ReportData,
    points: Sequence[Mapping[str, Any]],
    found: EmbeddingMap | None,
    order: Sequence[str],
) -> dict[str, Any]:
    """Answers of every head, coordinates of every projection, and film strips.

    Args:
        data: The data of the page.
        points: As `page_points` returns them.
        found: The map, if there is one.
        order: The classes of the confusion matrix.
    """
    classes = sorted({*order, *(point["label"] for point in points)})
    index = {name: place for place, name in enumerate(classes)}
    labels = sorted({point["label"] for point in points})
    by_domain = len(labels) > MOST_COLOURS and data.domains
    return {
        "classes": classes,
        "order": list(order),
        "labels": [index[point["label"]] for point in points],
        "domains": {name: data.domains.get(name, "no domain") for name in classes}
        if by_domain
        else {},
        "heads": [
            {"title": printable(head.title)} | _answers(rows, points, index)
            for head in data.heads
            if (rows := data.predictions.get(head.version)) is not None
        ],
        "names": NAMES,
        "places": {}
        if found is None
        else {
            name: [[round(float(value), 4) for value in places[:, axis]] for axis in (0, 1)]
            for name, places in found.places.items()
        },
        "strips": {
            name: base64.b64encode(jpeg).decode() for name, jpeg in data.strips.items() if jpeg
        },
    }


def _answers(
    predictions: pd.DataFrame, points: Sequence[Mapping[str, Any]], index: Mapping[str, int]
) -> dict[str, list[Any]]:
    """Class (-1: none) and score of each point."""
    known = dict(
        zip(
            predictions["video_id"],
            zip(predictions["predicted"], predictions["score"], strict=True),
            strict=True,
        )
    )
    found = [known.get(point["id"]) for point in points]
    return {
        "answers": [-1 if one is None else index.get(one[0], -1) for one in found],
        "scores": [None if one is None else round(float(one[1]), 4) for one in found],
    }
