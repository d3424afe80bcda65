"""Results of embedding, training, comparison and promotion, printed to the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinml.data.names import listed
from coinml.data.targets import FEW_VIDEOS
from coinml.evaluation.clusters import FEW_GROUPS
from coinml_cli.console import line, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coinml.registry.promotion import GateVerdict
    from coinml.tracking.compare_runs import RunComparison
    from coinml.training.train_report import TrainReport
    from tasks.summaries import EmbedSummary, TrainSummary

_SHOWN_CLASSES = 10
_SHOWN_FAILURES = 5


def print_embedded(summary: EmbedSummary) -> None:
    """Print what is in the set, where the time went, and which videos failed."""
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
        note = f"; {missing:,} missing frames were replaced by their neighbours" if missing else ""
        line(f"decoded by {decoded}{note}")
        for kernel in summary.kernels:
            line(f"encoded by {kernel}")
    for video_id, reason in list(summary.failed.items())[:_SHOWN_FAILURES]:
        line(f"  {video_id}: {reason}")
    if len(summary.failed) > _SHOWN_FAILURES:
        line(f"  and {len(summary.failed) - _SHOWN_FAILURES} more (`coinml status`, the log)")


def _print_cross_validated(summary: TrainSummary) -> None:
    """Print the cross-validation of each head, which a small test side is no match for."""
    table(
        [
            "head",
            "cross-validated accuracy",
            "macro-F1",
            "calibration error",
            "most frequent class",
        ],
        [
            [
                one.head,
                str(one.accuracy),
                f"{one.metrics['cv_f1_macro']:.3f}",
                f"{one.metrics['cv_calibration_error']:.3f}",
                f"{one.metrics['cv_majority_rate']:.3f}",
            ]
            for one in summary.cross_validated
        ],
    )
    first = summary.cross_validated[0]
    things = "segments" if summary.target == "step" else "videos"
    line(
        f"{first.folds} folds, cut {first.repeats} times: each of {first.videos:,} {things} in "
        f"{first.groups:,} independent groups is predicted by heads that were not trained on its "
        "group. Settings and calibration are chosen inside each fold, and the intervals allow for "
        "the dependence of the folds. The fixed split:"
    )


def print_heads(summary: TrainSummary) -> None:
    """Print each head with its intervals, and the paired test of the first two."""
    if summary.cross_validated:
        _print_cross_validated(summary)

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
                f"{report.version}{' (reused)' if report.reused else ''}",
            ]
            for report in summary.heads
        ],
    )
    metrics = summary.heads[0].metrics
    things = "segments" if summary.target == "step" else "videos"
    right = ", ".join(
        f"{report.head} {report.metrics['test_accuracy_missing_right']:.3f}"
        for report in summary.heads
        if "test_accuracy_missing_right" in report.metrics
    )
    line(
        f"95 % intervals; {metrics['test_coverage']:.1%} of the official test {things} were "
        f"measured{f' (the missing counted right: {right})' if right else ''}; "
        f"always answering the most frequent class scores {metrics['test_majority_rate']:.3f}; "
        "evaluations on this test set so far, or on a part of it: "
        + ", ".join(f"{one.head} {one.metrics['test_looks']:.0f}" for one in summary.heads)
    )
    _print_caveats(summary.heads[0], things)
    if summary.comparison is not None:
        line(str(summary.comparison))


def _print_caveats(report: TrainReport, things: str) -> None:
    """Print what limits the numbers: groups, leaks, and classes with few or no videos."""
    groups = report.metrics.get("test_groups")
    if groups is not None:
        few = f", too few for intervals (fewer than {FEW_GROUPS})" if groups < FEW_GROUPS else ""
        unit = "video" if things == "segments" else "group"
        counted = f"{groups:.0f} {unit}{'s' if groups != 1 else ''}"
        line(f"the test {things} are of {counted}, which the intervals count{few}")
    leaks = round(report.metrics.get("leaks", 0))
    if leaks:
        dropped = round(report.metrics["leaks_dropped"])
        line(
            f"{leaks} pairs of videos in different splits are the same file or look the same "
            f"(tables/leaks.csv of run {report.run_id}); "
            + (f"{dropped} videos were dropped" if dropped else "--drop-leaks drops them")
        )
    if report.contradictions:
        line(
            f"{len(report.contradictions)} files are under more than one class: "
            f"{listed(report.contradictions)} (tables/contradictions.csv); remove all but the "
            "right one of each"
        )
    for split, names in report.classes_without.items():
        shown = ", ".join(names[:_SHOWN_CLASSES]) + (" …" if len(names) > _SHOWN_CLASSES else "")
        thing = things.removesuffix("s")
        line(f"no {split} {thing} of {len(names)} classes: {shown} (tables/class_counts.csv)")
    if report.scarce_classes:
        names = report.scarce_classes
        shown = ", ".join(names[:_SHOWN_CLASSES]) + (" …" if len(names) > _SHOWN_CLASSES else "")
        line(
            f"fewer than {FEW_VIDEOS} training videos of {len(names)} classes: {shown} "
            "(tables/class_counts.csv)"
        )


def print_comparison(found: RunComparison) -> None:
    """Print the paired test, and the classes and videos in which the two heads differ."""
    line(str(found))
    classes = found.result.per_class
    classes = classes[classes["difference"] != 0]
    if len(classes):
        table(
            [
                "class",
                found.result.things,
                f"{found.head_a} right",
                f"{found.head_b} right",
                "difference",
            ],
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
            [
                found.result.things.removesuffix("s"),
                "title",
                "label",
                found.head_a,
                found.head_b,
                "link",
            ],
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
    """Print the gate's verdict on each candidate."""
    for verdict in verdicts:
        said = "is the champion" if verdict.promoted else "was refused"
        line(f"{verdict.model} version {verdict.version} {said}: {verdict.reason}")
