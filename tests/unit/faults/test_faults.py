from __future__ import annotations

import csv
import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinml.errors import (
    CorruptVideoError,
    LocalError,
    SourceBlockedError,
    TransientError,
    UnavailableError,
)
from coinml.faults.classification import (
    POLICY,
    Fault,
    as_error,
    classify,
    explain,
    policy_of,
)
from coinml.faults.rules import COMPILED


def test_fault_names_are_stable() -> None:
    names = "transient blocked gone restricted unsupported corrupt local"
    assert [str(fault) for fault in Fault] == names.split()
    assert set(POLICY) == set(Fault)


def test_real_messages_are_classified_correctly(shared_data: Path) -> None:
    with (shared_data / "ytdlp_errors.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 100
    wrong = [
        (row["id"], row["label"], str(classify(row["message"])))
        for row in rows
        if classify(row["message"]) not in (row["label"], row["alt_label"])
    ]
    assert len(wrong) <= 0.03 * len(rows), wrong


# None of these is in the corpus of real messages.
@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("This video is no longer available due to a copyright claim by Some Music", "gone"),
        ("The uploader has closed their YouTube account.", "gone"),
        ("ERROR: unable to download video data: HTTP Error 404: Not Found", "gone"),
        ("ERROR: [youtube] abcdefghijk: This video isn't available anymore", "gone"),
        ("ERROR: [youtube] x: Dieses Video ist nicht verfügbar", "gone"),
        ("ERROR: This video does not exist.", "gone"),
        ("Sorry, this video is available in China only", "restricted"),
        ("HTTP Error 451: Unavailable For Legal Reasons", "restricted"),
        ("ERROR: [youtube] x: This video requires payment to watch.", "restricted"),
        ("identified by the community as inappropriate or offensive to some", "restricted"),
        ("Your organization has restricted it. An administrator must approve", "restricted"),
        ("Our systems have detected unusual traffic from your computer network.", "blocked"),
        ("Please sign in to confirm that you are not a robot", "blocked"),
        ("Connectez-vous pour confirmer que vous n\u2019êtes pas un robot", "blocked"),
        ("fragment 1 not found, unable to continue. HTTP Error 403: Forbidden", "blocked"),
        ("Your IP address has been temporarily blocked", "blocked"),
        ("quotaExceeded: you have exceeded your quota.", "blocked"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1007)", "transient"),
        ("HTTP Error 504: Gateway Time-out", "transient"),
        ("[WinError 10060] A connection attempt failed", "transient"),
        ("curl: (56) Recv failure: Connection reset by peer", "transient"),
        ("Server returned 503 Service Unavailable: video unavailable", "transient"),
        ("Temporary failure in name resolution. Please try again later", "transient"),
        ("ERROR: [youtube] x: No video formats found!; please report this issue", "unsupported"),
        ("RegexNotFoundError: Unable to extract Initial JS player function", "unsupported"),
        ("ERROR: [youtube] x: This live event has ended.", "unsupported"),
        ("The requested site is known to use DRM protection", "unsupported"),
        ("HTTP Error 400: Bad Request", "unsupported"),
        ("[Errno 24] Too many open files", "local"),
        ("merging of multiple formats but ffmpeg is not installed", "local"),
        ("SOCKS5 authentication failed", "local"),
        ("certificate verify failed: unable to get local issuer certificate", "local"),
        ("'cookies.txt' does not look like a Netscape format cookies file", "local"),
        ("unable to write data: [Errno 27] File too large", "local"),
    ],
)
def test_messages_outside_the_corpus_are_classified(message: str, fault: str) -> None:
    assert explain(message)[0] == fault
    assert explain(message)[1] != "unknown"


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ("blocked it in your country on copyright grounds", "blocked it on copyright grounds"),
        ("503 Service Unavailable", "Video unavailable"),
        ("This content isn't available, try again later", "This content isn't available"),
        ("Private video. Sign in if you've been granted access", "Sign in to view this video"),
        ("Tunnel connection failed: 403 Forbidden", "HTTP Error 403: Forbidden"),
        ("Sign in to confirm you're not a bot", "Sign in to confirm your age"),
    ],
)
def test_stronger_evidence_outranks_weaker(stronger: str, weaker: str) -> None:
    assert classify(stronger) is not classify(weaker)


@pytest.mark.parametrize(
    "dressed",
    [
        "\x1b[0;31mERROR:\x1b[0m [youtube] abcdefghijk: {}",
        "[youtube] abcdefghijk: Downloading webpage\r\nERROR: {}",
        "WARNING: HTTP Error 503: Service Unavailable. Retrying (1/3)...\nERROR: {}",
        "yt_dlp.utils.DownloadError: ERROR: [youtube] abcdefghijk: {} Use --cookies-from-browser "
        "or --cookies for the authentication. See  https://x.invalid/FAQ#rate-limit",
    ],
)
@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("This video has been removed by the uploader.", "gone"),
        ("Sign in to confirm you\u2019re not a bot.", "blocked"),
        ("Sign in to confirm your age.", "restricted"),
        ("Requested format is not available.", "unsupported"),
    ],
)
def test_prefixes_colours_and_advice_do_not_change_the_fault(
    dressed: str, message: str, fault: str
) -> None:
    assert classify(dressed.format(message)) == fault


def test_an_unknown_message_is_transient_by_rule_unknown() -> None:
    assert explain("flubber gazork") == (Fault.TRANSIENT, "unknown")
    assert explain("") == (Fault.TRANSIENT, "unknown")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "Kein Platz mehr"), "local"),
        (PermissionError(errno.EACCES, "verboten"), "local"),
        (ConnectionResetError(errno.ECONNRESET, "weg"), "transient"),
        (TimeoutError("The read operation timed out"), "transient"),
        (SourceBlockedError("whatever"), "blocked"),
        (CorruptVideoError("Video unavailable"), "corrupt"),
        (LocalError("Video unavailable"), "local"),
        (TransientError("Video unavailable"), "transient"),
        (UnavailableError("members only"), "restricted"),
    ],
)
def test_structure_outranks_text(error: BaseException, fault: str) -> None:
    assert classify(error) == fault


def test_causes_are_found_wherever_yt_dlp_stores_them() -> None:
    from yt_dlp.networking import Response
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError, UnsupportedError

    def failed(inner: BaseException, message: str = "ERROR: it went wrong") -> DownloadError:
        return DownloadError(message, (type(inner), inner, None))

    def http(status: int) -> HTTPError:
        import io

        return HTTPError(Response(io.BytesIO(), "http://x.invalid", {}, status=status))

    assert classify(failed(ExtractorError("no", cause=http(429)))) == "blocked"
    assert classify(failed(http(410))) == "gone"
    assert classify(failed(http(502))) == "transient"
    assert classify(failed(GeoRestrictedError("no"))) == "restricted"
    assert classify(failed(UnsupportedError("http://x.invalid"))) == "unsupported"
    disk = TransportError(cause=OSError(errno.ENOSPC, "voll"))
    assert classify(failed(ExtractorError("no", cause=disk))) == "local"
    # The class decides nothing here, the text does.
    private = ExtractorError("Private video", expected=True)
    assert classify(failed(private, "ERROR: Private video")) == "gone"


@pytest.mark.parametrize("fault", list(Fault))
def test_an_error_carries_its_fault(fault: Fault) -> None:
    error = as_error(fault, "words that say nothing", rule="because", retry_after_s=3)
    assert explain(error) == (fault, "because")
    assert explain(RuntimeError(error)) == (fault, "because")


def test_delays_grow_up_to_their_limits() -> None:
    transient, gone = POLICY[Fault.TRANSIENT], POLICY[Fault.GONE]
    delays = [transient.delay_later_s(failures) for failures in range(1, 60)]
    numbers = [delay for delay in delays if delay is not None]
    assert len(numbers) == len(delays)
    assert numbers == sorted(numbers)
    assert numbers[-1] == transient.later_cap_s
    assert transient.delay_later_s(60) is None
    in_run = [transient.delay_in_run_s(attempt) for attempt in range(1, 5)]
    assert in_run == sorted(in_run)
    assert (gone.delay_later_s(1) or 0) >= 14 * 86400
    assert POLICY[Fault.RESTRICTED].delay_later_s(1) is None
    assert POLICY[Fault.CORRUPT].delay_later_s(2) is None
    assert gone.delay_later_s(10_000) == gone.later_cap_s


@given(st.text(max_size=300))
def test_every_text_gets_a_fault(message: str) -> None:
    assert classify(message) in Fault


def test_a_long_log_is_classified_within_a_second() -> None:
    log = "[download] ffmpeg proxy cookie connection ip account request\n" * 20_000
    start = time.perf_counter()
    assert classify(log + "ERROR: Private video") == "gone"
    assert time.perf_counter() - start < 1


def test_importing_faults_loads_nothing_heavy() -> None:
    script = (
        "import sys, coinml.faults; print({'yt_dlp', 'sqlalchemy', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_live_streams_are_tried_again_later_and_slow_downloads_once_a_run() -> None:
    live = policy_of(*explain("This live event will begin in 3 hours."))
    assert (live.attempts_in_run, live.returns_with) == (1, "downloader")
    days = [(live.delay_later_s(failures) or 0) / 86400 for failures in (1, 2, 3, 9)]
    assert days == [1, 2, 4, 28]
    slow = policy_of(Fault.TRANSIENT, "too slow")
    assert (slow.attempts_in_run, slow.attempts_in_all) == (
        1,
        POLICY[Fault.TRANSIENT].attempts_in_all,
    )
    assert policy_of(Fault.UNSUPPORTED, "too large") is POLICY[Fault.UNSUPPORTED]
    assert policy_of(Fault.GONE, None) is POLICY[Fault.GONE]
    rules = {name for name, _, _ in COMPILED}
    assert "live" in rules
