from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, PENDING, Ledger, Overall, new_owner
from coinml.ledger.records import MEANING
from tests.helpers.ledger_rows import NOW, attempt, dataset, facts, ids


def fail(
    ledger: Ledger, video_id: str, fault: Fault, next_at: datetime | None = None, **values: object
) -> None:
    ledger.record_fault(
        "mini",
        video_id,
        fault=fault,
        message=f"it is {fault}",
        next_attempt_at=next_at,
        attempt=attempt(**values),
    )


@pytest.fixture
def ledger(ledger_url: str):
    with Ledger(ledger_url) as opened:
        opened.register(dataset())
        yield opened


def test_registering_twice_adds_nothing_and_keeps_states(ledger: Ledger) -> None:
    ledger.record_success("mini", ids()[0], file=facts(), attempt=attempt())
    assert ledger.register(dataset()) == 0
    assert ledger.register(dataset(8)) == 2
    assert ledger.row("mini", ids()[0]).state == DOWNLOADED
    assert [row.video_id for row in ledger.rows("mini")] == ids(8)


def test_registering_updates_changed_annotations(ledger: Ledger) -> None:
    video = Video(video_id=ids()[0], label="plane", subset="training", split="val")
    assert ledger.register(Dataset(name="mini", videos=(video,))) == 0
    row = ledger.row("mini", ids()[0])
    assert (row.label, row.split, row.duration_s, row.state) == ("plane", "val", None, PENDING)


def test_a_success_and_its_attempt_are_read_back(ledger: Ledger) -> None:
    video_id = ids()[1]
    fail(ledger, video_id, Fault.TRANSIENT, NOW)
    file = facts(mtime_ns=1_700_000_000_123_456_789, media_duration_s=4.2)
    ledger.record_success("mini", video_id, file=file, attempt=attempt(size_bytes=10))
    row = ledger.row("mini", video_id)
    assert (row.state, row.attempts, row.message, row.next_attempt_at) == (
        DOWNLOADED,
        2,
        None,
        None,
    )
    assert (row.path, row.size_bytes, row.sha256) == (file.path, 10, file.sha256)
    assert (row.mtime_ns, row.media_duration_s) == (file.mtime_ns, 4.2)
    outcomes = [(one.outcome, one.message, one.run_id) for one in ledger.attempts("mini", video_id)]
    assert outcomes == [("transient", "it is transient", "run"), (DOWNLOADED, None, "run")]
    assert ledger.attempts("mini", video_id)[0].started_at == NOW


def test_due_lists_pending_videos_first_then_the_longest_due(ledger: Ledger) -> None:
    first, second, later, lost = ids()[:4]
    fail(ledger, second, Fault.TRANSIENT, NOW - timedelta(minutes=1))
    fail(ledger, first, Fault.BLOCKED, NOW - timedelta(hours=1))
    fail(ledger, later, Fault.TRANSIENT, NOW + timedelta(hours=1))
    fail(ledger, lost, Fault.GONE)
    assert ledger.due("mini", now=NOW) == [*ids()[4:], first, second]
    assert ledger.due("mini", now=NOW, limit=3) == [*ids()[4:], first]
    assert ledger.due("mini", now=NOW, faults=[Fault.BLOCKED]) == [first]
    assert ledger.due("mini", now=NOW, ids=[second, later]) == [second]
    assert ledger.due("mini", now=NOW, faults=["gone"], retry_now=True) == [lost]
    assert set(ledger.due("mini", ids=[second, lost], now=NOW, retry_now=["gone"])) == {
        second,
        lost,
    }
    assert ledger.due("mini", now=NOW, faults=["transient"], retry_now=["gone"]) == [second]
    assert ledger.due("mini", now=NOW + timedelta(hours=2)) == [*ids()[4:], first, second, later]


def test_duplicates_are_videos_whose_files_have_the_same_content(ledger: Ledger) -> None:
    for video_id, content in zip(ids(), "abacbb", strict=False):
        file = facts(f"/{video_id}.mp4", sha256=content * 64)
        ledger.record_success("mini", video_id, file=file, attempt=None)
    first, second, third, _, fifth, sixth = ids()[:6]
    assert ledger.duplicates("mini") == [(second, fifth, sixth), (first, third)]
    assert ledger.duplicates("other") == []
    labels = {row.video_id: row.label for row in ledger.rows("mini")}
    assert ledger.contradictions("mini") == [
        {one: labels[one] for one in group}
        for group in ((second, fifth, sixth), (first, third))
        if len({labels[one] for one in group}) > 1
    ]
    assert ledger.contradictions("other") == []


def test_a_new_downloader_version_or_new_credentials_make_videos_due(ledger: Ledger) -> None:
    old, new, private = ids()[:3]
    from coinml.ledger import downloader_version

    fail(ledger, old, Fault.UNSUPPORTED, tool_version="2020.01.01")
    fail(ledger, new, Fault.UNSUPPORTED, tool_version=downloader_version())
    fail(ledger, private, Fault.RESTRICTED, credentials=None)
    assert ledger.due("mini", ids=ids()[:3]) == [old]
    assert set(ledger.due("mini", ids=ids()[:3], credentials="abc")) == {old, private}
    fail(ledger, private, Fault.RESTRICTED, credentials="abc")
    assert ledger.due("mini", ids=ids()[:3], credentials="abc") == [old]


def test_the_counts_of_the_status_add_up(ledger: Ledger) -> None:
    ledger.record_success("mini", ids()[0], file=facts(), attempt=attempt())
    fail(ledger, ids()[1], Fault.GONE, NOW + timedelta(days=20))
    fail(ledger, ids()[2], Fault.TRANSIENT, NOW + timedelta(hours=1))
    fail(ledger, ids()[3], Fault.TRANSIENT, NOW - timedelta(hours=1))
    status = ledger.status("mini", now=NOW, rate_per_hour=2)
    assert (status.total, status.downloaded, status.pending, status.due) == (6, 1, 2, 3)
    assert status.faults == {"transient": 2, "gone": 1}
    assert status.eta_hours == 2.0
    assert [(state, count) for state, count, _ in status.states()] == [
        ("downloaded", 1),
        ("pending", 2),
        ("transient", 2),
        ("gone", 1),
    ]
    testing = status.by_split["testing"]
    assert (testing.total, testing.downloaded, testing.lost, testing.due) == (2, 1, 0, 1)
    assert status.by_class["saw"].lost == 1
    shown = status.as_dict()
    assert shown["total"] == shown["downloaded"] + shown["pending"] + sum(shown["faults"].values())
    assert shown["by_class"]["drill"]["total"] == 3
    assert set(shown) == {
        "dataset",
        "total",
        "downloaded",
        "pending",
        "faults",
        "due",
        "by_split",
        "by_class",
        "eta_hours",
    }


def test_every_state_has_a_meaning() -> None:
    assert set(MEANING) == {DOWNLOADED, PENDING, *map(str, Fault)}


def test_the_digest_changes_with_states_and_files(ledger: Ledger) -> None:
    seen = {ledger.digest("mini")}
    ledger.record_success("mini", ids()[0], file=facts(), attempt=attempt())
    seen.add(ledger.digest("mini"))
    ledger.record_success("mini", ids()[0], file=facts(sha256="cd" * 32), attempt=attempt())
    seen.add(ledger.digest("mini"))
    assert len(seen) == 3
    assert all(len(digest) == 12 for digest in seen)


def test_a_leased_video_is_not_leased_to_another_owner(ledger: Ledger) -> None:
    mine, yours = new_owner(), new_owner()
    assert ledger.claim("mini", ids()[:4], owner=mine) == ids()[:4]
    assert ledger.claim("mini", ids(), owner=yours) == ids()[4:]
    ledger.record_success("mini", ids()[0], file=facts(), attempt=attempt())
    ledger.forget("mini", ids()[1], "the file is gone")
    # A downloaded video is not leased.
    assert ledger.claim("mini", ids()[:4], owner=yours) == ids()[1:2]
    ledger.release("mini", owner=mine)
    assert ledger.claim("mini", ids()[:4], owner=yours) == ids()[1:4]


def test_a_lease_expires(ledger: Ledger) -> None:
    assert ledger.claim("mini", ids(), owner=new_owner(), lease_s=60, now=NOW) == ids()
    late = NOW + timedelta(seconds=61)
    assert ledger.claim("mini", ids(), owner=new_owner(), now=NOW) == []
    assert ledger.claim("mini", ids(), owner=new_owner(), now=late) == ids()


def test_the_lease_of_a_dead_process_is_void(ledger: Ledger, ledger_url: str) -> None:
    script = (
        "import sys, os; from coinml.ledger import Ledger, new_owner\n"
        "print(len(Ledger(sys.argv[1]).claim('mini', sys.argv[2:], owner=new_owner())))\n"
        "sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, ledger_url, *ids()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("6", -9), done.stderr
    assert ledger.claim("mini", ids(), owner=new_owner()) == ids()


def test_concurrent_claims_never_overlap(ledger: Ledger, ledger_url: str) -> None:
    ledger.register(dataset(200))
    got: list[list[str]] = []

    def work() -> None:
        with Ledger(ledger_url) as other:
            owner = new_owner()
            for start in range(0, 200, 10):
                got.append(other.claim("mini", ids(200)[start : start + 15], owner=owner))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # An owner can claim its own videos again, so the claims of one thread may repeat.
    taken = {video_id for some in got for video_id in some}
    assert taken == set(ids(200))
    assert ledger.claim("mini", ids(200), owner=new_owner()) == []


def test_quarantine_moves_a_downloaded_file_and_allows_one_more_download(
    ledger: Ledger, tmp_path: Path
) -> None:
    video_id, path = ids()[0], tmp_path / "x.mp4"
    for again in (True, False):
        path.write_bytes(b"bad")
        ledger.record_success("mini", video_id, file=facts(str(path)), attempt=attempt())
        ledger.quarantine("mini", video_id, "no frame decodes")
        row = ledger.row("mini", video_id)
        assert (row.state, row.message, row.sha256) == ("corrupt", "no frame decodes", None)
        assert not path.exists()
        assert row.path is not None
        assert Path(row.path).read_bytes() == b"bad"
        assert (video_id in ledger.due("mini")) == again


def test_quarantine_leaves_the_users_own_files_alone(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"bad")
    file = facts(str(path), origin="in_place")
    ledger.record_success("mini", ids()[0], file=file, attempt=None)
    ledger.quarantine("mini", ids()[0], "no frame decodes")
    assert path.exists()
    assert ids()[0] not in ledger.due("mini")
    assert ledger.row("mini", ids()[0]).state == "corrupt"


def test_unknown_messages_are_listed(ledger: Ledger) -> None:
    ledger.record_fault(
        "mini",
        ids()[0],
        fault=Fault.TRANSIENT,
        message="blargh",
        rule="unknown",
        next_attempt_at=None,
        attempt=attempt(),
    )
    fail(ledger, ids()[1], Fault.GONE)
    assert [(one.video_id, one.message) for one in ledger.unknown("mini")] == [(ids()[0], "blargh")]


def test_a_success_resets_the_count_of_failures(ledger: Ledger) -> None:
    video_id = ids()[0]
    for _ in range(3):
        fail(ledger, video_id, Fault.TRANSIENT)
    fail(ledger, video_id, Fault.BLOCKED)
    assert ledger.failures("mini", video_id, Fault.TRANSIENT) == 3
    ledger.record_success("mini", video_id, file=facts(), attempt=attempt())
    assert ledger.failures("mini", video_id, Fault.TRANSIENT) == 0
    counts = ledger.attempts_in_run("mini", ids(), run_id="run")
    assert counts == {video_id: {"transient": 3, "blocked": 1, DOWNLOADED: 1}}
    assert ledger.attempts_in_run("mini", ids(), run_id="another") == {}


def test_unregistered_videos_and_datasets_are_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidInputError, match="nobody"):
        ledger.row("mini", "nobody")
    with pytest.raises(InvalidInputError, match="nobody"):
        ledger.record_success("mini", "nobody", file=facts(), attempt=attempt())
    with pytest.raises(InvalidInputError, match=r"coin.*mini"):
        ledger.status("coin")


def test_a_forgotten_video_is_due_and_keeps_its_attempts(ledger: Ledger) -> None:
    ledger.record_success("mini", ids()[0], file=facts(), attempt=attempt())
    ledger.forget("mini", ids()[0], "its file is gone")
    row = ledger.row("mini", ids()[0])
    assert (row.state, row.path, row.sha256, row.attempts) == (PENDING, None, None, 1)
    assert row.message == "its file is gone"
    assert ids()[0] in ledger.due("mini")


def test_each_attempt_says_which_source_was_asked(ledger: Ledger) -> None:
    ledger.register(dataset())
    video_id = ids()[0]
    archive, mirror = ({"source": name, "url": f"{name}/{video_id}"} for name in ("arch", "mirr"))
    for where, later in ((archive, NOW), (archive, None), (mirror, NOW + timedelta(hours=1))):
        ledger.record_fault(
            "mini",
            video_id,
            fault=Fault.GONE,
            message=f"no such video at {where['source']}",
            next_attempt_at=later,
            attempt=attempt(**where),
            overall=Overall(state=PENDING, message="one was not asked", next_attempt_at=None),
        )
    row = ledger.row("mini", video_id)
    assert (row.state, row.message, row.next_attempt_at) == (PENDING, "one was not asked", None)
    last = ledger.last_attempts("mini", ids())
    assert set(last) == {video_id}
    assert {url: (one.outcome, one.next_attempt_at) for url, one in last[video_id].items()} == {
        archive["url"]: ("gone", None),
        mirror["url"]: ("gone", NOW + timedelta(hours=1)),
    }
    assert ledger.failures("mini", video_id, Fault.GONE) == 3
    assert ledger.failures("mini", video_id, Fault.GONE, url=archive["url"]) == 2
    counts = ledger.tries_in_run("mini", ids(), run_id="run")
    assert counts == {(video_id, archive["url"]): 2, (video_id, mirror["url"]): 1}
    ledger.record_success("mini", video_id, file=facts(**mirror), attempt=attempt(**mirror))
    row = ledger.row("mini", video_id)
    assert (row.source, row.url) == ("mirr", mirror["url"])
    assert ledger.sources("mini") == {"mirr": 1}
    ledger.quarantine("mini", video_id, "does not decode")
    assert ledger.attempts("mini", video_id)[-1].url == mirror["url"]
    assert ledger.row("mini", video_id).source is None


def test_waits_written_by_a_clock_that_was_ahead_are_over(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon, later, gone = ids()[:3]
    ahead = timedelta(days=3)
    # The machine's clock cannot be set: rows are written as if it were.
    with monkeypatch.context() as patched:
        now_s = time.time
        patched.setattr("coinml.ledger.ledger.time.time", lambda: now_s() + ahead.total_seconds())
        fail(ledger, soon, Fault.TRANSIENT, NOW + ahead + timedelta(minutes=15))
        fail(ledger, gone, Fault.GONE, NOW + ahead + timedelta(days=28))
    # Two sources can make a wait that is longer than the fault's own; no clock was ahead.
    fail(ledger, later, Fault.TRANSIENT, NOW + timedelta(days=3))
    assert ledger.due("mini", ids=ids()[:3]) == [soon]
    assert ledger.status("mini").due == 1 + len(ids()[3:])
    # While the clock is ahead, the wait is what it is.
    assert soon not in ledger.due("mini", now=NOW + ahead)


def test_a_lease_that_no_clock_can_have_given_holds_only_for_a_process_that_lives(
    ledger: Ledger,
) -> None:
    first, second = ids()[:2]
    me, elsewhere = new_owner(), "elsewhere/0/|1|1|abc"
    ahead = datetime.now(UTC) + timedelta(days=2)
    assert ledger.claim("mini", [first], owner=me, now=ahead) == [first]
    assert ledger.claim("mini", [second], owner=elsewhere, now=ahead) == [second]
    assert ledger.claim("mini", [first, second], owner=new_owner()) == [second]
    # An ordinary lease of a process that cannot be seen holds.
    ledger.release("mini", owner=me)
    assert ledger.claim("mini", [first], owner=elsewhere) == [first]
    assert ledger.claim("mini", [first], owner=new_owner()) == []
