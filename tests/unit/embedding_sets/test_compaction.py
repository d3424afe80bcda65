"""Compaction keeps all current rows, whatever happens meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coinml.embedding_sets import BrokenPartError, EmbeddingSet
from coinml.embedding_sets.compaction import compact
from coinml.errors import LocalError
from tests.helpers.small_sets import SPEC, rows

PROCESSES = multiprocessing.get_context("forkserver")
# Processes must start quickly, as many are killed.
PROCESSES.set_forkserver_preload(["pytest", "pyarrow.parquet", "coinml.embedding_sets.compaction"])
FACTS = ["video_id", "file_sha256", "clip", "timestamps_s", "decoder", "embedding"]


@pytest.fixture
def embeddings(tmp_path: Path) -> EmbeddingSet:
    return EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)


def fill(embeddings: EmbeddingSet, *, parts: int, round_: int = 0) -> None:
    """Parts with three videos each: a unique one, one in every part, one whose file changes."""
    for number in range(parts):
        embeddings.append(
            [
                rows(f"own-{round_}-{number:03d}", value=number),
                rows("same", value=round_ + number / 64),
                rows("changed", sha=f"{round_}-{number}", clips=2 + number % 2),
            ]
        )


def state(embeddings: EmbeddingSet) -> pa.Table:
    return embeddings.clips(FACTS).combine_chunks()


def compact_at(root: str, part_bytes: int) -> None:
    compact(EmbeddingSet.open(root, "mini", SPEC), part_bytes=part_bytes)


def test_many_parts_are_merged_into_few_with_the_same_content(embeddings: EmbeddingSet) -> None:
    fill(embeddings, parts=12)
    before, sizes = state(embeddings), embeddings.part_sizes()
    report = compact(embeddings)
    assert (report.parts_before, report.parts_after) == (12, 1)
    assert report.bytes_before == sum(sizes.values())
    assert report.bytes_after < report.bytes_before / 3
    # 11 duplicates of the three clips of `same`, and of the two or three of `changed`.
    assert report.rows_dropped == 11 * 3 + sum(2 + number % 2 for number in range(11))
    assert state(embeddings).equals(before)
    assert before.num_rows == 12 * 3 + 3 + 3
    assert embeddings.verify() == []
    # Rows written later still replace compacted ones.
    embeddings.append([rows("changed", sha="latest")])
    assert embeddings.videos().set_index("video_id").loc["changed", "file_sha256"] == "latest"
    assert compact(embeddings).parts_after == 1
    assert embeddings.videos().set_index("video_id").loc["changed", "file_sha256"] == "latest"
    again = compact(embeddings)
    assert (again.parts_before, again.parts_after, again.rows_dropped) == (1, 1, 0)


def test_merged_parts_stay_below_the_target_size(embeddings: EmbeddingSet) -> None:
    fill(embeddings, parts=12)
    before = state(embeddings)
    large = 3 * max(embeddings.part_sizes().values())
    report = compact(embeddings, part_bytes=large)
    assert 2 <= report.parts_after <= 4
    assert max(embeddings.part_sizes().values()) <= large
    assert state(embeddings).equals(before)
    kept = embeddings.parts()
    assert compact(embeddings, part_bytes=1).parts_after == len(kept)
    assert embeddings.parts() == kept


def test_an_empty_set_stays_empty(embeddings: EmbeddingSet) -> None:
    assert compact(embeddings).parts_after == 0


def test_a_broken_part_stops_compaction_and_nothing_is_lost(embeddings: EmbeddingSet) -> None:
    fill(embeddings, parts=3)
    part = embeddings.parts()[1]
    content = Path(embeddings.path, part).read_bytes()
    Path(embeddings.path, part).write_bytes(content[:-30])
    with pytest.raises(BrokenPartError, match=part):
        compact(embeddings)
    Path(embeddings.path, part).write_bytes(content)
    assert len(embeddings.parts()) == 3
    assert embeddings.verify() == []


def test_a_part_that_cannot_be_read_back_replaces_nothing(
    embeddings: EmbeddingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(embeddings, parts=3)
    before, parts = state(embeddings), embeddings.parts()

    def write_less(self: EmbeddingSet, name: str, content: pa.Buffer) -> None:
        Path(self.path, name).write_bytes(bytes(content)[:-9])

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingSet, "write_part", write_less)
        with pytest.raises(LocalError):
            compact(embeddings)
    assert set(parts) < set(embeddings.parts())
    embeddings.done(set_aside=True)
    assert embeddings.parts() == parts
    assert state(embeddings).equals(before)


def test_old_unfinished_files_of_killed_processes_are_removed(
    embeddings: EmbeddingSet,
) -> None:
    for name, age_s in ((".part-1.parquet.0a.partial", 7200), (".part-2.parquet.0b.partial", 60)):
        partial = Path(embeddings.path, name)
        partial.write_bytes(b"half")
        os.utime(partial, (time.time() - age_s,) * 2)
    assert compact(embeddings).leftovers == 1
    assert [path.name for path in Path(embeddings.path).glob(".*")] == [
        ".part-2.parquet.0b.partial"
    ]


def _die_at(step: int, root: str, part_bytes: int) -> None:
    """Compact, and die by SIGKILL just before a given change to the set's files."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        changes = event in ("os.rename", "os.remove") or (
            event == "open" and str(arguments[0]).endswith((".partial", ".parquet"))
        )
        if changes and str(arguments[0]).startswith(root):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    compact_at(root, part_bytes)


def test_a_kill_before_any_change_loses_nothing(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    killed = step = 0
    # One kill per change of a complete compaction; the set is filled again for each.
    while True:
        step += 1
        fill(embeddings, parts=4, round_=step)
        before = state(embeddings)
        child = PROCESSES.Process(target=_die_at, args=(step, str(tmp_path), 2**20))
        child.start()
        child.join()
        assert state(embeddings).equals(before)
        assert embeddings.verify() == []
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
    # It opened one file, renamed it, and removed four.
    assert killed >= 6
    compact(embeddings)
    assert len(embeddings.parts()) == 1
    assert state(embeddings).equals(before)


def _compact_slowly(root: str, ready: Any) -> None:
    ready.set()
    while True:
        compact_at(root, 40_000)
        compact_at(root, 2**20)


def test_kills_at_random_times_lose_nothing(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for round_ in range(6):
        fill(embeddings, parts=30, round_=round_)
        before = state(embeddings)
        ready = PROCESSES.Event()
        child = PROCESSES.Process(target=_compact_slowly, args=(str(tmp_path), ready))
        child.start()
        assert ready.wait(60)
        time.sleep(rng.uniform(0, 0.3))
        child.kill()
        child.join()
        assert state(embeddings).equals(before)
    assert embeddings.verify() == []
    compact(embeddings)
    assert state(embeddings).equals(before)
    assert len(embeddings.parts()) == 1


def _append(root: str, name: str, count: int) -> None:
    embeddings = EmbeddingSet.open(root, "mini", SPEC)
    for number in range(count):
        embeddings.append([rows(f"{name}-{number:03d}", value=number)])


def _compact_until(root: str, stop: Any) -> None:
    while not stop.is_set():
        compact_at(root, 20_000)
        compact_at(root, 2**20)


def _run(target: Callable[..., None], *arguments: Any) -> Any:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def test_two_append_and_two_compact_while_one_reads(
    embeddings: EmbeddingSet, tmp_path: Path
) -> None:
    root, count = str(tmp_path), 40
    fill(embeddings, parts=10)
    stop = PROCESSES.Event()
    compactors = [_run(_compact_until, root, stop) for _ in range(2)]
    writers = [_run(_append, root, name, count) for name in "xy"]
    seen: set[str] = set()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        found = embeddings.videos()
        ids = set(found["video_id"])
        # No row disappears, and none is seen twice or in part.
        assert seen <= ids
        assert len(ids) == len(found)
        assert found["clips"].isin([2, 3]).all()
        seen = ids
        reads += 1
    stop.set()
    for process in (*writers, *compactors):
        process.join()
        assert process.exitcode == 0
    assert reads > 3
    compact(embeddings)
    assert len(embeddings.parts()) == 1
    expected = {f"{name}-{number:03d}" for name in "xy" for number in range(count)}
    expected |= {f"own-0-{number:03d}" for number in range(10)} | {"same", "changed"}
    found = embeddings.videos()
    assert set(found["video_id"]) == expected
    assert len(found) == len(expected)
    assert embeddings.verify() == []
