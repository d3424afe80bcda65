"""Film strips for the page, of the videos that are most worth a look, within a bound of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from coinml.data.splits import unit_hash
from coinml.data.targets import Example, Span
from coinml.embedding_sets.table import sample_ids
from coinml.ledger import DOWNLOADED
from coinml.media.film_strips import film_strips
from coinml.report.gathering import ReportData

MOST_BYTES = 12_000_000
"""Bytes of all film strips of a page; in the page, as base64, they are a third more."""


def with_strips(
    data: ReportData,
    examples: Iterable[Example],
    *,
    most: int,
    tick: Callable[[], None] | None = None,
) -> ReportData:
    """The data with film strips: of the suspects of an audit, of wrong videos, then of others.

    Args:
        data: As `gathering.gather` returns it.
        examples: The dataset's videos or segments, which say the part that is shown.
        most: Most videos that get a strip.
        tick: Called after each video.
    """
    if most < 1:
        return data
    known = {one.sample_id: one for one in examples}
    wanted = [one for one in _ranked(data) if one in known]
    paths: dict[str, str] = {}
    spans: dict[str, Span] = {}
    for name in dict.fromkeys(wanted):
        row = data.videos.get(known[name].video_id)
        if len(paths) < most and row is not None and row.state == DOWNLOADED and row.path:
            paths[name], spans[name] = row.path, known[name].span
    strips: dict[str, bytes] = {}
    size = 0
    for name, strip in film_strips(paths, spans=spans, tick=tick):
        size += len(strip.jpeg)
        if size > MOST_BYTES:
            break
        strips[name] = strip.jpeg
    return replace(data, strips=strips)


def _ranked(data: ReportData) -> list[str]:
    """Ids in the order in which they get a strip; an id may be there several times."""
    found: list[str] = []
    for table in data.audit.values():
        for column in ("video_id", "twin_id"):
            found.extend(table.get(column, ()))
    for predictions in data.predictions.values():
        measured = predictions[predictions["split"] != "train"]
        wrong = measured[measured["label"] != measured["predicted"]]
        found.extend(wrong.sort_values("score", ascending=False)["video_id"])
    if data.table is not None:
        found.extend(sorted(sample_ids(data.table), key=unit_hash))
    return found
