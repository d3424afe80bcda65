"""Collecting a batch: files in the folder and rows in the ledger, under every kind of failure."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from coinml.collection.collector import BatchUnfinishedError
from coinml.collection.pacing import Pace
from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError, LocalError
from coinml.faults.classification import POLICY, Fault
from coinml.ledger import DOWNLOADED, PENDING
from coinml.miniature.host import FlakyHost
from tests.helpers.local_collector import LocalCollector, ids


def test_a_batch_is_downloaded_and_recorded(collector: LocalCollector) -> None:
    some = collector.register(5)
    with FlakyHost(collector.served) as host:
        report = collector.batch(host, some)
    assert report.downloaded == tuple(some)
    assert [one.video_id for one in collector.told] == some
    assert set(collector.states().values()) == {DOWNLOADED}
    collector.assert_consistent()
    row = collector.ledger.row("mini", some[0])
    assert row.media_duration_s == pytest.approx(0.4, abs=0.1)
    assert row.tool_version is not None


def test_downloaded_videos_are_not_requested_again(collector: LocalCollector) -> None:
    some = collector.register(4)
    with FlakyHost(collector.served) as host:
        collector.batch(host, some[:2])
        asked = host.log()
        report = collector.batch(host, some, run_id="r2")
        assert report.skipped == tuple(some[:2])
        assert {video_id: host.log()[video_id] for video_id in some[:2]} == asked
    collector.assert_consistent()


def test_every_fault_leads_to_its_state(collector: LocalCollector) -> None:
    some = collector.register(12)
    plan = {
        some[0]: ["404"],
        some[1]: ["410"],
        some[2]: ["503", "ok"],
        some[3]: ["ok", "reset", "ok"],
        some[4]: ["ok", "short", "ok"],
        some[5]: ["html", "ok"],
        some[6]: ["html"],
        some[7]: ["503"],
        some[8]: ["ok", "empty", "ok"],
        some[9]: ["ok", "html", "ok"],
        some[10]: ["403", "ok"],
    }
    with FlakyHost(collector.served, {"videos": plan}) as host:
        with pytest.raises(BatchUnfinishedError) as caught:
            collector.batch(host, some)
        assert set(caught.value.report.again) == {some[i] for i in (2, 3, 4, 5, 6, 7, 8, 9)}
        report = collector.run(host, some)
        asked = host.log()
    expected = dict.fromkeys(some, DOWNLOADED)
    expected |= {some[0]: "gone", some[1]: "gone", some[6]: "corrupt", some[7]: "transient"}
    assert collector.states() == expected
    assert (asked[some[0]], asked[some[1]]) == (1, 1)
    assert asked[some[7]] == POLICY[Fault.TRANSIENT].attempts_in_run
    assert asked[some[6]] == POLICY[Fault.CORRUPT].attempts_in_run
    assert report.again == ()
    collector.assert_consistent()
    # Neither this run nor the next tries settled videos again.
    with FlakyHost(collector.served) as quiet:
        collector.run(quiet, some)
        collector.run(quiet, some, run_id="r2")
        assert quiet.log() == {}
        collector.run(quiet, some, run_id="r3", retry_now=True)
        assert set(quiet.log()) == {some[0], some[1], some[6], some[7]}
    collector.assert_consistent()


def test_a_full_disk_stops_the_run_without_recording_faults(collector: LocalCollector) -> None:
    some = collector.register(3)
    with FlakyHost(collector.served) as host:
        with pytest.raises(LocalError, match="free"):
            collector.batch(host, some, min_free_bytes=1 << 60)
        assert host.log() == {}
        assert set(collector.states().values()) == {PENDING}
        assert set(collector.batch(host, some).downloaded) == set(some)


def test_a_write_error_during_a_download_stops_the_run(
    collector: LocalCollector, served: Path, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE makes the kernel refuse to write, as on a full disk."""
    some = collector.register(3)
    collector.served = tmp_path / "large"
    collector.served.mkdir()
    video = (served / f"{some[0]}.mp4").read_bytes()
    # A "free" box, which players skip, makes the file large.
    padding = (1 << 20).to_bytes(4, "big") + b"free" + bytes((1 << 20) - 8)
    for video_id in some:
        (collector.served / f"{video_id}.mp4").write_bytes(video + padding)
    script = textwrap.dedent("""
        import resource, sys
        from coinml.collection.collector import collect_batch
        from coinml.errors import LocalError
        url, source, folder, *ids = sys.argv[1:]
        from coinml.ledger import Ledger
        Ledger.shared(url).datasets()
        import yt_dlp.extractor.extractors
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(ids.pop()), -1))
        try:
            collect_batch(url, "mini", ids, source=source, folder=folder, run_id="r")
        except LocalError as err:
            print("LocalError", err)
    """)
    limit = "400000"
    assert (collector.served / f"{some[0]}.mp4").stat().st_size > 2 * int(limit)
    collector.ledger.close()
    with FlakyHost(collector.served) as host:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                script,
                collector.url,
                host.source,
                str(collector.folder),
                *some,
                limit,
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert "LocalError" in done.stdout, done.stderr
        assert "File too large" in done.stdout
        assert set(collector.states().values()) == {PENDING}
        assert set(collector.run(host, some, run_id="r2").downloaded) == set(some)
    collector.assert_consistent()


def test_a_video_of_another_length_is_corrupt(collector: LocalCollector) -> None:
    lengths = {"right": 0.5, "rounded": 2.3, "other": 60.0, "unknown": None}
    some = ids(4)
    videos = tuple(
        Video(video_id=video_id, label="saw", subset="training", split="train", duration_s=length)
        for video_id, length in zip(some, lengths.values(), strict=True)
    )
    collector.ledger.register(Dataset(name="mini", videos=videos))
    with FlakyHost(collector.served) as host:
        collector.run(host, some, duration_tolerance=0.1)
        assert host.log()[some[2]] == 4
    states = dict(zip(lengths, collector.states().values(), strict=True))
    assert states == dict.fromkeys(lengths, DOWNLOADED) | {"other": "corrupt"}
    assert "but 60.0 s by the annotations" in (collector.ledger.row("mini", some[2]).message or "")
    collector.assert_consistent()
    # The file is kept for inspection, and the video is not due again.
    assert (collector.folder / ".quarantine" / f"{some[2]}.mp4").is_file()
    assert collector.ledger.due("mini") == []


def test_files_that_were_not_recorded_are_recognised(collector: LocalCollector) -> None:
    some = collector.register(3)
    name = f"{some[0]}.mp4"
    (collector.folder / ".incoming").mkdir(parents=True)
    (collector.folder / name).write_bytes((collector.served / name).read_bytes())
    fetched = collector.folder / ".incoming" / f"{some[1]}.mp4"
    fetched.write_bytes((collector.served / name).read_bytes())
    (collector.folder / f"{some[2]}.mp4").write_bytes(b"junk")
    with FlakyHost(collector.served) as host:
        report = collector.batch(host, some)
        assert set(host.log()) == {some[2]}
    assert report.downloaded == tuple(some)
    assert [one.fetched for one in collector.told] == [False, False, True]
    assert collector.ledger.attempts("mini", some[0]) == []
    collector.assert_consistent()


def test_two_collectors_at_once_fetch_no_video_twice(collector: LocalCollector) -> None:
    some = collector.register(24)
    with FlakyHost(collector.served) as host:
        threads = [
            threading.Thread(target=collector.run, args=(host, order, f"r{i}"))
            for i, order in enumerate([some, some[::-1], some[12:] + some[:12]])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        collector.run(host, some, "last")
        # Two requests per video: one to look at its type, one to download it.
        assert host.log() == dict.fromkeys(some, 2)
    collector.assert_consistent()


def test_two_processes_at_once_fetch_no_video_twice(
    ledger_url: str, served: Path, tmp_path: Path
) -> None:
    collector = LocalCollector(ledger_url, tmp_path / "videos", served)
    some = collector.register(30)
    collector.ledger.close()
    script = textwrap.dedent("""
        import sys
        from coinml.collection.collector import collect
        url, source, folder, run_id, *ids = sys.argv[1:]
        for start in range(0, len(ids), 5):
            collect(url, "mini", ids[start:start + 5], source=source, folder=folder, run_id=run_id)
    """)
    plan = {"videos": {some[3]: ["404"], some[4]: ["503", "ok"]}}
    with FlakyHost(served, plan) as host:
        started = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    script,
                    ledger_url,
                    host.source,
                    str(collector.folder),
                    *order,
                ],
                stderr=subprocess.PIPE,
            )
            for order in (["a", *some], ["b", *some[::-1]], ["c", *some[10:], *some[:10]])
        ]
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert (process.returncode, errors) == (0, b"")
        expected = dict.fromkeys(some, 2) | {some[3]: 1, some[4]: 3}
        assert host.log() == expected
    assert collector.states() == {**dict.fromkeys(some, DOWNLOADED), some[3]: "gone"}
    collector.assert_consistent()
    collector.ledger.close()


def test_the_rate_limit_is_kept(collector: LocalCollector) -> None:
    some = collector.register(6)
    with FlakyHost(collector.served) as host:
        start = time.monotonic()
        collector.batch(host, some, pace=Pace(rate_per_hour=3600 * 4, burst=2))
        # Two at once, then four with a quarter of a second each.
        assert time.monotonic() - start > 0.95


def test_ids_are_checked_before_any_request(collector: LocalCollector) -> None:
    collector.register(1)
    with FlakyHost(collector.served) as host:
        with pytest.raises(InvalidInputError, match="video id"):
            collector.batch(host, [*ids(1), "../../etc/passwd"])
        assert host.log() == {}


def test_importing_the_collector_loads_no_downloader() -> None:
    script = (
        "import sys, coinml.collection.collector, coinml.collection.adopt\n"
        "print(sorted({'yt_dlp', 'av', 'torch', 'numpy', 'alembic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
