"""Registration: a row for each video of a dataset, and the dataset's origin."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from coinml.data.records import Dataset
from coinml.ledger.origins import origin_of
from coinml.ledger.schema import datasets, videos


def register_rows(connection: Connection, dataset: Dataset) -> int:
    """Add a row for every new video and update changed annotations, within a transaction.

    Returns:
        The number of new rows.
    """
    origin = origin_of(dataset)
    values = [
        {
            "dataset": dataset.name,
            "video_id": video.video_id,
            "label": video.label,
            "subset": video.subset,
            "split": video.split,
            "duration_s": video.duration_s,
        }
        for video in dataset.videos
    ]
    described = ("label", "subset", "split", "duration_s")
    known = {
        row.video_id: tuple(row[1:])
        for row in connection.execute(
            select(videos.c.video_id, *(videos.c[name] for name in described)).where(
                videos.c.dataset == dataset.name
            )
        )
    }
    new = [value for value in values if value["video_id"] not in known]
    if new:
        # Another process may register the same dataset at the same time.
        insert = _insert(connection)(videos).on_conflict_do_nothing()
        connection.execute(insert, new)
    for value in values:
        found = known.get(str(value["video_id"]))
        if found is not None and found != tuple(value[name] for name in described):
            connection.execute(
                update(videos)
                .where(videos.c.dataset == dataset.name, videos.c.video_id == value["video_id"])
                .values({name: value[name] for name in described})
            )
    if origin:
        known_origin = _insert(connection)(datasets).values(dataset=dataset.name, origin=origin)
        connection.execute(
            known_origin.on_conflict_do_update(
                index_elements=[datasets.c.dataset], set_={"origin": origin}
            )
        )
    return len(new)


def _insert(connection: Connection) -> Any:
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    return postgresql_insert
