"""What the ledger knows, put so that a person sees it at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinml.data.targets import FEW_VIDEOS
from coinml.errors import InvalidInputError
from coinml_cli.console import line, print_json, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from coinml.ledger import Status
    from coinml.registry.promotion import GateVerdict
    from coinml.runtime.settings import Settings
    from coinml.tracking.compare_runs import RunComparison
    from coinml.training.train_head import TrainReport
    from tasks.summaries import EmbedSummary, TrainSummary

_SHOWN_CLASSES = 10

FAILURES_SHOWN = 5


def known_dataset(settings: Settings, name: str | None) -> str:
    """The dataset that is meant; the only one need not be named.

    Raises:
        InvalidInputError: There are several, or none by this name.
    """
    from coinml.ledger import Ledger

    with Ledger(settings.ledger_url) as ledger:
        known = ledger.datasets()
    if name in known:
        return str(name)
    listed = ", ".join(known) or "none yet (run `coinml collect` first)"
    if name is not None:
        raise InvalidInputError(f"--dataset {name}: the ledger has {listed}")
    if len(known) != 1:
        raise InvalidInputError(f"name one with --dataset; the ledger has {listed}")
    return known[0]


def status_of(settings: Settings, dataset: str) -> Status:
    """Where a dataset stands, at the rate that the settings allow."""
    from coinml.collection.download import FetchOptions
    from coinml.ledger import Ledger

    credentials = FetchOptions(cookies=settings.cookies, proxy=settings.proxy).credentials()
    with Ledger(settings.ledger_url) as ledger:
        return ledger.status(dataset, rate_per_hour=settings.rate_per_hour, credentials=credentials)


def print_status(settings: Settings, dataset: str, *, classes: bool = True) -> None:
    """Here, lost and still possible; by fault, by split and by class."""
    status = status_of(settings, dataset)
    table([f"{status.total:,} videos of {dataset}", "count", "what it means"], status.states())
    parts = [("split", status.by_split)] + ([("class", status.by_class)] if classes else [])
    for what, counts in parts:
        table(
            [what, "all", "here", "lost", "possible", "due now"],
            [
                [name, c.total, c.downloaded, c.lost, c.possible, c.due]
                for name, c in counts.items()
            ],
        )
    extras = extras_of(settings, dataset)
    if extras["duplicates"]:
        line(f"{extras['duplicates']:,} files have the content of another video (--duplicates)")
    if status.eta_hours:
        line(
            f"{status.possible:,} still possible: about {status.eta_hours:.1f} hours to go at "
            f"{settings.rate_per_hour:g} an hour ({extras['asked_last_hour']:,} were asked for in "
            "the last hour)"
        )


def print_embedded(summary: EmbedSummary) -> None:
    """What is in the set, what it took to bring it there, and what could not be brought."""
    line(str(summary))
    parts = {
        "waiting for frames": summary.decode_wait_s,
        "encoding": summary.encode_s,
        "writing": summary.write_s,
    }
    if summary.clips:
        whole = sum(parts.values()) or 1.0
        shares = ", ".join(f"{100 * part / whole:.0f} % {what}" for what, part in parts.items())
        where = f" in {summary.workers} processes" if summary.workers > 1 else ""
        line(
            f"{summary.clips:,} clips in {summary.seconds:.1f} s{where}: "
            f"{summary.clips_per_s:.1f} a second; {shares}; the bottleneck was to "
            f"{summary.bottleneck}"
        )
        decoded = ", ".join(f"{name} {count:,}" for name, count in summary.decoders.items())
        missing = summary.frames_substituted
        note = f"; {missing:,} frames were missing, their neighbours stand in" if missing else ""
        line(f"decoded by {decoded}{note}")
    for video_id, reason in list(summary.failed.items())[:FAILURES_SHOWN]:
        line(f"  {video_id}: {reason}")
    if len(summary.failed) > FAILURES_SHOWN:
        line(f"  and {len(summary.failed) - FAILURES_SHOWN} more (`coinml status`, the log)")


def extras_of(settings: Settings, dataset: str) -> dict[str, float]:
    """How fast a source may be asked, how fast this one was, and how many files are doubles."""
    from datetime import UTC, datetime, timedelta

    from coinml.ledger import Ledger

    with Ledger(settings.ledger_url) as ledger:
        asked = ledger.asked_since(dataset, datetime.now(UTC) - timedelta(hours=1))
        duplicates = sum(len(ids) - 1 for ids in ledger.duplicates(dataset))
    return {
        "rate_per_hour": settings.rate_per_hour,
        "asked_last_hour": asked,
        "duplicates": duplicates,
    }


def print_duplicates(settings: Settings, dataset: str, *, as_json: bool) -> None:
    """The videos whose files have the same content."""
    from coinml.ledger import Ledger

    with Ledger(settings.ledger_url) as ledger:
        groups = ledger.duplicates(dataset)
    if as_json:
        print_json(groups)
    else:
        table(["videos with one content", "ids"], [[len(ids), ", ".join(ids)] for ids in groups])


def draw_status(settings: Settings, dataset: str, path: Path) -> None:
    """Draw what became of the videos into a file."""
    from coinml.figures.attrition import attrition
    from coinml.figures.style import save

    status = status_of(settings, dataset)
    save(attrition(status, title=f"What became of {dataset}"), path)
    line(f"drawn into {path}")


def print_unknown(settings: Settings, dataset: str, *, as_json: bool) -> None:
    """The attempts that failed with words that no rule knew: they were taken for transient."""
    from dataclasses import asdict

    from coinml.ledger import Ledger

    with Ledger(settings.ledger_url) as ledger:
        attempts = ledger.unknown(dataset)
    if as_json:
        print_json([asdict(attempt) for attempt in attempts])
    else:
        table(
            ["video", "when", "message"],
            [[a.video_id, f"{a.started_at:%Y-%m-%d %H:%M:%S}", a.message or ""] for a in attempts],
        )


def print_video(settings: Settings, dataset: str, video_id: str, *, as_json: bool) -> None:
    """One video with every attempt at it."""
    from dataclasses import asdict

    from coinml.ledger import Ledger

    with Ledger(settings.ledger_url) as ledger:
        row, attempts = ledger.row(dataset, video_id), ledger.attempts(dataset, video_id)
    if as_json:
        print_json(asdict(row) | {"attempts": [asdict(attempt) for attempt in attempts]})
        return
    table(["field", "value"], [[k, v] for k, v in asdict(row).items() if v is not None])
    table(
        ["when", "outcome", "seconds", "message"],
        [
            [f"{a.started_at:%Y-%m-%d %H:%M:%S}", a.outcome, f"{a.seconds:.1f}", a.message or ""]
            for a in attempts
        ],
    )


def print_heads(summary: TrainSummary) -> None:
    """Each head with its intervals, and the paired test between the first two."""

    def interval(metrics: Mapping[str, float], name: str) -> str:
        low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
        return f"{metrics[name]:.3f} [{low:.3f}, {high:.3f}]"

    table(
        ["head", "val accuracy", "test accuracy", "missing counted wrong", "macro-F1", "version"],
        [
            [
                report.head,
                interval(report.metrics, "val_accuracy"),
                interval(report.metrics, "test_accuracy"),
                interval(report.metrics, "test_accuracy_missing_wrong"),
                interval(report.metrics, "test_f1_macro"),
                f"{report.version}{' (as before)' if report.reused else ''}",
            ]
            for report in summary.heads
        ],
    )
    metrics = summary.heads[0].metrics
    things = "segments" if summary.target == "step" else "videos"
    line(
        f"95 % intervals; {metrics['test_coverage']:.1%} of the official test {things} are here; "
        f"always answering the most frequent class scores {metrics['test_majority_rate']:.3f}; "
        f"this test set was looked at {metrics['test_looks']:.0f} times"
    )
    _print_doubts(summary.heads[0])
    if summary.comparison is not None:
        line(str(summary.comparison))


def _print_doubts(report: TrainReport) -> None:
    """What a reader of the numbers should know of the videos that they were measured on."""
    leaks = round(report.metrics.get("leaks", 0))
    if leaks:
        dropped = round(report.metrics["leaks_dropped"])
        line(
            f"{leaks} pairs of videos on two sides of the split are the same file or look the same "
            f"(tables/leaks.csv of run {report.run_id}); "
            + (f"{dropped} videos were dropped" if dropped else "--drop-leaks drops them")
        )
    for split, names in report.classes_without.items():
        shown = ", ".join(names[:_SHOWN_CLASSES]) + (" …" if len(names) > _SHOWN_CLASSES else "")
        line(f"no {split} video of {len(names)} classes: {shown} (tables/class_counts.csv)")
    if report.scarce_classes:
        names = report.scarce_classes
        shown = ", ".join(names[:_SHOWN_CLASSES]) + (" …" if len(names) > _SHOWN_CLASSES else "")
        line(
            f"fewer than {FEW_VIDEOS} training videos of {len(names)} classes: {shown} "
            "(tables/class_counts.csv)"
        )


def print_comparison(found: RunComparison) -> None:
    """The paired test, the classes in which the two differ, and the videos."""
    line(str(found))
    classes = found.result.per_class
    classes = classes[classes["difference"] != 0]
    if len(classes):
        table(
            ["class", "videos", f"{found.head_a} right", f"{found.head_b} right", "difference"],
            [
                [
                    row["class"],
                    row["support"],
                    row["correct_a"],
                    row["correct_b"],
                    f"{row['difference']:+d}",
                ]
                for row in classes.to_dict(orient="records")
            ],
        )
    rows = found.result.discordant.to_dict(orient="records")
    if rows:
        table(
            ["video", "title", "label", found.head_a, found.head_b, "link"],
            [
                [
                    row["video_id"],
                    row["title"] or "",
                    row["label"],
                    row["predicted_a"],
                    row["predicted_b"],
                    row["link"] or "",
                ]
                for row in rows
            ],
        )


def print_verdicts(verdicts: Iterable[GateVerdict]) -> None:
    """What the gate said of each candidate."""
    for verdict in verdicts:
        said = "is the champion" if verdict.promoted else "was refused"
        line(f"{verdict.model} version {verdict.version} {said}: {verdict.reason}")
