"""The reprocess flow: only changes are processed, and heads are trained on growth."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinml.collection.options import CollectOptions
from coinml.embedding_sets.options import SetOptions
from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.training.options import TrainOptions
from flows.reprocess import reprocess

Coin = tuple[Path, list[str]]


def test_only_changes_are_processed(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path
) -> None:
    options = {
        "set_options": SetOptions(encoder=str(tiny_encoder_dir), clips=2),
        "training": TrainOptions(heads=("svm",)),
        "min_new": 3,
    }
    with FlakyHost(coin[0] / "videos") as host:
        first = reprocess(selection, CollectOptions(source=host.source, budget=18), **options)
        assert (first.embedded.embedded, first.grown, first.complete) == (18, 18, False)
        assert first.trained is not None
        assert len(first.verdicts) == 1

        idle = reprocess(selection, CollectOptions(source=host.source, budget=2), **options)
        assert (idle.embedded.embedded, idle.grown, idle.trained) == (2, 2, None)
        assert "2 videos more than at the last training" in str(idle)

        asked = host.log()
        videos = Settings().videos_dir("toy")
        with Ledger(Settings().ledger_url) as ledger:
            here = [row.video_id for row in ledger.rows("toy", state="downloaded")]
        gone, altered = here[:2]
        (videos / f"{gone}.mp4").unlink()
        (videos / f"{altered}.mp4").write_bytes(b"something else")
        last = reprocess(selection, CollectOptions(source=host.source), **options)
        assert ((gone,), (altered,)) == (last.missing, last.altered)
        again = {one for one in asked if host.log()[one] != asked[one]}
        assert {gone, altered} <= again
        assert again & set(here) == {gone, altered}
    # The two were downloaded with the same content: their vectors are in the set already.
    assert (last.embedded.embedded, last.embedded.videos, last.grown) == (4, 24, 6)
    assert last.trained is not None
    assert not last.trained.heads[0].reused
    assert (videos / ".quarantine" / f"{altered}.mp4").read_bytes() == b"something else"
    assert last.complete


@pytest.mark.parametrize("deep", [False, True])
def test_a_change_that_keeps_size_and_time_is_found_by_reading_every_file(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path, deep: bool
) -> None:
    import os

    options = {"set_options": SetOptions(encoder=str(tiny_encoder_dir), clips=2), "min_new": 1000}
    with FlakyHost(coin[0] / "videos") as host:
        reprocess(selection, CollectOptions(source=host.source, budget=3), **options)
        with Ledger(Settings().ledger_url) as ledger:
            row = ledger.rows("toy", state="downloaded")[0]
        path = Path(row.path or "")
        content = bytearray(path.read_bytes())
        content[-1] ^= 0xFF
        path.write_bytes(content)
        os.utime(path, ns=(row.mtime_ns or 0, row.mtime_ns or 0))
        summary = reprocess(
            selection, CollectOptions(source=host.source, budget=1), deep=deep, **options
        )
    assert summary.altered == ((row.video_id,) if deep else ())
