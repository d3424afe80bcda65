"""A collector for tests: a ledger, a folder, and a flaky host as the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coinml.collection.collector import VideoOutcome, collect, collect_batch
from coinml.collection.download import FetchOptions
from coinml.collection.pacing import Pace, Pauses
from coinml.data.records import Dataset, Video
from coinml.ledger import DOWNLOADED, Ledger
from coinml.media import Verdict
from coinml.miniature.host import FlakyHost


def ids(count: int) -> list[str]:
    return [f"-video{i:05d}" for i in range(count)]


def checked(path: Path) -> Verdict:
    """A real full decode in this process, without the time to start another."""
    from coinml.media import check

    return check(path, deadline_s=None)


class LocalCollector:
    """A ledger and a folder; `served` is the folder of the host's videos."""

    def __init__(self, url: str, folder: Path, served: Path) -> None:
        self.url, self.folder, self.served = url, folder, served
        self.ledger = Ledger.shared(url)
        self.told: list[VideoOutcome] = []

    def register(self, count: int) -> list[str]:
        videos = tuple(
            Video(video_id=video_id, label="saw", subset="training", split="train")
            for video_id in ids(count)
        )
        self.ledger.register(Dataset(name="mini", videos=videos))
        return ids(count)

    def settings(self, host: FlakyHost, run_id: str, **values: Any) -> dict[str, Any]:
        return {
            "source": values.pop("source", None) or host.source,
            "folder": self.folder,
            "run_id": run_id,
            "verify": checked,
            "options": FetchOptions(socket_timeout_s=0.5),
            "pace": Pace(pauses=Pauses(by_strike_s=(0.2, 0.4, 300.0))),
            "on_video": self.told.append,
            **values,
        }

    def batch(self, host: FlakyHost, some: Sequence[str], run_id: str = "r1", **values: Any):
        return collect_batch(self.url, "mini", some, **self.settings(host, run_id, **values))

    def run(self, host: FlakyHost, some: Sequence[str], run_id: str = "r1", **values: Any):
        return collect(self.url, "mini", some, **self.settings(host, run_id, **values))

    def states(self) -> dict[str, str]:
        return {row.video_id: row.state for row in self.ledger.rows("mini")}

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path.is_file()}

    def assert_consistent(self) -> None:
        """Every video marked as downloaded has a complete file, and there are no other files."""
        whole = (self.served / f"{ids(1)[0]}.mp4").read_bytes()
        present = {
            Path(row.path).name: row
            for row in self.ledger.rows("mini", state=DOWNLOADED)
            if row.path is not None
        }
        assert self.files() == set(present)
        for name, row in present.items():
            assert (self.folder / name).read_bytes() == whole
            assert (row.size_bytes, len(row.sha256 or "")) == (len(whole), 64)
