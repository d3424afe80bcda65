"""One figure per study: accuracy under each condition, paired differences, and costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from coinml.evaluation.intervals import Estimate
from coinml.figures.style import A_COLOUR, GREY, PALE, new_figure, series_colour
from coinml.studies.costs import speed_up
from coinml.studies.report import Row, StudyReport

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(report: StudyReport) -> Figure:
    """The figure of a study."""
    if report.study == "data":
        return learning_curve(report)
    if report.study == "dims":
        return dimensions(report)
    return conditions(report)


def learning_curve(report: StudyReport) -> Figure:
    """Test error over training videos, with the fitted power law and its predictions."""
    figure, (axis,) = new_figure(8.6, 5.0, 1, 1, f"{report.question}  ({report.dataset})")
    sizes = [row.train_videos for row in report.rows]
    most = max([*sizes, *(p.train_videos for p in report.predictions)])
    grid = np.geomspace(min(sizes), most * 1.15, 80)
    # Shifted side by side, so that the intervals of two heads do not hide each other.
    apart = (most / min(sizes)) ** 0.008
    for i, head in enumerate(report.heads):
        shift = apart ** (i - (len(report.heads) - 1) / 2)
        _curve_points(axis, report.of(head), i, shift)
        if head in report.laws:
            _fitted_law(axis, report, head, grid, series_colour(i))
    if report.predictions:
        axis.plot([], [], "*", color=GREY, markersize=11, label="predicted")
    axis.set_xscale("log")
    # Ticks at the sizes that were tried or are predicted.
    _ticks(axis, sorted({*sizes, *(p.train_videos for p in report.predictions)}))
    axis.set_ylim(0, min(1.02, 1.06 * max(_error(row.test).high for row in report.rows)))
    axis.set_xlabel("training videos (log scale)")
    axis.set_ylabel("error (1 - accuracy)")
    axis.legend(frameon=False, fontsize=8, loc="upper right")
    _caption(figure, report)
    return figure


def _curve_points(axis: Axes, rows: Sequence[Row], number: int, shift: float) -> None:
    """A head's test and val errors over its numbers of training videos."""
    colour, x = series_colour(number), np.array([row.train_videos for row in rows]) * shift
    errors = [_error(row.test) for row in rows]
    axis.errorbar(
        x,
        [e.value for e in errors],
        _bars(errors),
        fmt=_marker(number),
        color=colour,
        capsize=3,
        markersize=6,
        label=f"{rows[0].head}, test",
        zorder=3,
    )
    axis.plot(
        x,
        [1 - row.val.value for row in rows],
        _marker(number),
        color=colour,
        fillstyle="none",
        markersize=5,
        alpha=0.7,
        label=f"{rows[0].head}, val",
    )


def _fitted_law(axis: Axes, report: StudyReport, head: str, grid: np.ndarray, colour: str) -> None:
    """A head's power law with its interval, and the errors that it predicts."""
    law = report.laws[head]
    curve = [law.predict(n) for n in grid]
    axis.plot(
        grid,
        [e.value for e in curve],
        color=colour,
        linewidth=1.3,
        label=f"{head}: {law.a.value:.3f} + {law.b.value:.2g} / n^{law.c.value:.2f}",
    )
    axis.fill_between(
        grid,
        [e.low for e in curve],
        [e.high for e in curve],
        color=colour,
        alpha=0.13,
        linewidth=0,
    )
    for prediction in report.predictions:
        if prediction.head == head:
            axis.errorbar(
                [prediction.train_videos],
                [prediction.error.value],
                _bars([prediction.error]),
                fmt="*",
                color=colour,
                markersize=12,
                capsize=3,
                markeredgecolor="black",
                markeredgewidth=0.6,
                zorder=4,
            )


def dimensions(report: StudyReport) -> Figure:
    """Test accuracy over the number of dimensions, for PCA and for LDA."""
    heads = report.heads
    figure, axes = new_figure(
        6.4 * len(heads), 4.8, 1, len(heads), f"{report.question}  ({report.dataset})"
    )
    for axis, head in zip(axes, heads, strict=True):
        full = report.reference_row(head)
        axis.axhspan(full.test.low, full.test.high, color=GREY, alpha=0.15, linewidth=0)
        axis.axhline(full.test.value, color=GREY, linewidth=1.3, label=f"all {full.dim}, test")
        for i, method in enumerate(("PCA", "LDA")):
            rows = [row for row in report.of(head) if row.condition.name.startswith(method)]
            if not rows:
                continue
            x = np.array([row.condition.value or 0 for row in rows]) * (1.0, 1.06)[i]
            tests = [row.test for row in rows]
            axis.errorbar(
                x,
                [e.value for e in tests],
                _bars(tests),
                color=series_colour(i),
                marker=_marker(i),
                capsize=3,
                label=f"{method}, test",
            )
            axis.plot(
                x,
                [row.val.value for row in rows],
                _marker(i),
                color=series_colour(i),
                fillstyle="none",
                markersize=5,
                alpha=0.7,
                label=f"{method}, val",
            )
        axis.set_xscale("log", base=2)
        _ticks(axis, sorted({row.condition.value or 0 for row in report.of(head)}))
        axis.set_ylim(0, 1.03)
        axis.set_title(head, fontsize=10, loc="left")
        axis.set_xlabel("dimensions (log scale)")
        axis.set_ylabel("accuracy")
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    _caption(figure, report)
    return figure


def conditions(report: StudyReport) -> Figure:
    """Accuracy, paired difference and, where it was measured, the cost of embedding."""
    priced = any(row.cost is not None for row in report.rows)
    names = list(dict.fromkeys(row.condition.name for row in report.rows))
    figure, axes = new_figure(
        12.6 if priced else 9.4,
        float(np.clip(2.4 + 0.5 * len(names), 3.4, 9)),
        1,
        3 if priced else 2,
        f"{report.question}  ({report.dataset})",
    )
    place = {name: len(names) - 1 - number for number, name in enumerate(names)}
    _accuracies(axes[0], report, place)
    _differences(axes[1], report, place)
    if priced:
        _prices(axes[2], report, place)
    for number, axis in enumerate(axes):
        axis.set_yticks(list(place.values()), names if number == 0 else [""] * len(names))
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.grid(visible=False, axis="y")
    axes[0].set_ylabel(report.axis)
    _caption(figure, report)
    return figure


def _accuracies(axis: Axes, report: StudyReport, place: dict[str, int]) -> None:
    for i, head in enumerate(report.heads):
        rows = report.of(head)
        y = _heights(rows, place, i, len(report.heads))
        tests = [row.test for row in rows]
        axis.errorbar(
            [e.value for e in tests],
            y,
            xerr=_bars(tests),
            fmt=_marker(i),
            color=series_colour(i),
            capsize=3,
            label=f"{head}, test",
        )
        # One head is measured on every resolution, and on val at the original one only.
        once = report.study == "resolution"
        shown = [
            (row.val.value, height)
            for row, height in zip(rows, y, strict=True)
            if not once or row.condition.name == report.reference
        ]
        axis.plot(
            *zip(*shown, strict=True),
            _marker(i),
            color=series_colour(i),
            fillstyle="none",
            markersize=5,
            alpha=0.7,
            label=f"{head}, val",
        )
    low = min(row.test.low for row in report.rows)
    axis.set_xlim(max(0.0, low - 0.05), 1.01)
    axis.set_xlabel("accuracy")
    _legend_above(axis)


def _differences(axis: Axes, report: StudyReport, place: dict[str, int]) -> None:
    axis.axvline(0, color=GREY, linewidth=1)
    for i, head in enumerate(report.heads):
        rows = [row for row in report.of(head) if row.difference is not None]
        gaps = [row.difference.value for row in rows if row.difference is not None]
        y = _heights(rows, place, i, len(report.heads))
        axis.errorbar(
            [100 * e.value for e in gaps],
            y,
            xerr=100 * _bars(gaps),
            fmt=_marker(i),
            color=series_colour(i),
            capsize=3,
            label=head,
        )
        if len(report.heads) > 2:
            continue
        for row, height in zip(rows, y, strict=True):
            if row.difference is not None:
                axis.annotate(
                    f"p = {row.difference.p_value:.2g}",
                    (100 * row.difference.value.value, height),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                    color=GREY,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                )
    axis.set_xlabel(f"points of test accuracy against {report.reference}")


def _prices(axis: Axes, report: StudyReport, place: dict[str, int]) -> None:
    rows = [row for row in report.of(report.heads[0]) if row.cost is not None]
    reference = report.reference_row(report.heads[0]).cost
    costs = [row.cost for row in rows if row.cost is not None]
    y = [place[row.condition.name] for row in rows]
    decode = np.array([1000 * cost.decode_s.value / max(cost.videos, 1) for cost in costs])
    encode = np.array([1000 * cost.encode_s.value / max(cost.videos, 1) for cost in costs])
    axis.barh(y, decode, height=0.55, color=PALE, label="decode")
    axis.barh(y, encode, left=decode, height=0.55, color=A_COLOUR, label="encode")
    for height, cost, length in zip(y, costs, decode + encode, strict=True):
        ratio = None if reference is None else speed_up(reference, cost)
        if ratio is not None and ratio.excludes_1:
            text = f"  {ratio.value:.2g}x [{ratio.low:.2g}, {ratio.high:.2g}]"
            axis.text(length, height, text, va="center", fontsize=8.5)
    axis.set_xlim(0, 1.4 * float((decode + encode).max(initial=1e-9)))
    axis.set_xlabel("ms per video (and speed-up, where shown)")
    _legend_above(axis)


def _heights(rows: Sequence[Row], place: dict[str, int], number: int, heads: int) -> list[float]:
    shift = 0.0 if heads == 1 else 0.36 * ((heads - 1) / 2 - number) / (heads - 1)
    return [place[row.condition.name] + shift for row in rows]


def _bars(estimates: Sequence[Estimate]) -> np.ndarray:
    below = [max(0.0, e.value - e.low) for e in estimates]
    above = [max(0.0, e.high - e.value) for e in estimates]
    return np.array([below, above])


def _error(e: Estimate) -> Estimate:
    """The error, given an accuracy."""
    return Estimate(value=1 - e.value, low=1 - e.high, high=1 - e.low)


def _ticks(axis: Axes, values: Sequence[float]) -> None:
    """Label these values on a logarithmic axis, without labels that would overlap."""
    chosen: list[float] = []
    apart = max(1.05, (values[-1] / values[0]) ** 0.045)
    for value in reversed(values):
        if not chosen or value < chosen[-1] / apart:
            chosen.append(value)
    axis.set_xticks(chosen)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.minorticks_off()


def _legend_above(axis: Axes) -> None:
    axis.legend(
        frameon=False,
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
        borderaxespad=0.2,
        columnspacing=1.2,
        handletextpad=0.4,
    )


def _caption(figure: Figure, report: StudyReport) -> None:
    seeds = max(row.fits for row in report.rows)
    figure.supxlabel(
        f"{report.test_videos:,} test and {report.val_videos:,} val videos; "
        f"{seeds} training{'s' if seeds > 1 else ''} each; bars are 95 % intervals",
        fontsize=8,
        color=GREY,
        x=0.01,
        ha="left",
    )


def _marker(index: int) -> str:
    return _MARKERS[index % len(_MARKERS)]
