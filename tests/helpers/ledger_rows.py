"""A small dataset, attempts and file facts for tests of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from coinml.data.records import Dataset, Video
from coinml.ledger import Attempt, FileFacts

NOW = datetime.now(UTC)


def dataset(count: int = 6, name: str = "mini") -> Dataset:
    return Dataset(
        name=name,
        videos=tuple(
            Video(
                video_id=f"-video{i:05d}",
                label="saw" if i % 2 else "drill",
                subset="testing" if i % 3 == 0 else "training",
                split="test" if i % 3 == 0 else "train",
                duration_s=4.0,
            )
            for i in range(count)
        ),
    )


def ids(count: int = 6) -> list[str]:
    return [video.video_id for video in dataset(count).videos]


def attempt(run_id: str = "run", **values: object) -> Attempt:
    return Attempt(run_id=run_id, started_at=NOW, seconds=0.5, **values)  # type: ignore[arg-type]


def facts(path: str = "/videos/x.mp4", sha256: str = "ab" * 32, **values: object) -> FileFacts:
    return FileFacts(path=path, size_bytes=10, sha256=sha256, **values)  # type: ignore[arg-type]
