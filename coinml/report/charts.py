"""The page's charts: the only importer of plotly."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from coinml.evaluation.calibration import calibration_error, reliability
from coinml.figures.style import (
    A_COLOUR,
    B_COLOUR,
    GREY,
    PALE,
    TRAIN_COLOUR,
    VAL_COLOUR,
    series_colour,
)
from coinml.ledger import Status
from coinml.report.gathering import HeadView
from coinml.runtime.escaping import printable
from coinml.tracking.compare_runs import RunComparison

_PANELS = (("loss", "loss (nats)"), ("accuracy", "accuracy"), ("f1_macro", "macro-F1"))
_MOST_EXAMPLES = 50


def script() -> str:
    """The source of plotly.js, which is embedded in the page."""
    return str(get_plotlyjs())


def embed(figure: go.Figure, name: str) -> str:
    """A figure as an HTML fragment for a page that contains `script`.

    Args:
        figure: The figure.
        name: Id of its HTML element.
    """
    figure.update_layout(
        template="plotly_white",
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    # A figure with a width is narrower where the screen is.
    width_px = figure.layout.width
    figure.update_layout(width=None)
    drawn = to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=name,
        config={"displaylogo": False, "responsive": True},
    )
    return f'<div style="max-width: {width_px}px">{drawn}</div>' if width_px else str(drawn)


def chart_text(text: str) -> str:
    """Text from outside for a chart: Plotly reads some HTML in labels and hover texts."""
    return html.escape(printable(text))


def coverage(status: Status) -> go.Figure:
    """Videos of each official split: downloaded, still possible, lost."""
    figure = go.Figure()
    sides = list(status.by_split)
    parts = {
        "downloaded": [status.by_split[side].downloaded for side in sides],
        "still possible": [status.by_split[side].possible for side in sides],
        "lost": [status.by_split[side].lost for side in sides],
    }
    for (name, counts), colour in zip(parts.items(), (A_COLOUR, PALE, B_COLOUR), strict=True):
        figure.add_bar(y=sides, x=counts, name=name, orientation="h", marker_color=colour)
    figure.update_layout(
        barmode="stack",
        height=90 + 50 * len(sides),
        xaxis_title="videos",
        legend_traceorder="normal",
    )
    return figure


def lost_by_class(
    status: Status, domains: Mapping[str, str], *, most: int = 25
) -> go.Figure | None:
    """The classes with the largest share of lost videos; None if no video is lost."""
    worst = sorted(
        ((c.lost / c.total, label, c) for label, c in status.by_class.items() if c.lost),
        key=lambda one: (-one[0], one[1]),
    )[:most]
    if not worst:
        return None
    labels = [chart_text(label) for _, label, _ in worst][::-1]
    figure = go.Figure(
        go.Bar(
            y=labels,
            x=[share for share, _, _ in worst][::-1],
            orientation="h",
            marker_color=B_COLOUR,
            customdata=[
                [c.lost, c.total, chart_text(domains.get(label, ""))] for _, label, c in worst
            ][::-1],
            hovertemplate="%{y} %{customdata[2]}<br>%{customdata[0]} of %{customdata[1]} lost"
            "<extra></extra>",
        )
    )
    figure.update_layout(
        height=80 + 22 * len(labels), xaxis_title="share lost", xaxis_tickformat="~%"
    )
    figure.update_yaxes(automargin=True)
    return figure


def curves(head: HeadView) -> go.Figure | None:
    """Loss, accuracy and macro-F1 by epoch; None for a head without epochs."""
    from plotly.subplots import make_subplots

    panels = [(metric, title) for metric, title in _PANELS if f"val_{metric}" in head.history]
    if not panels:
        return None
    figure = make_subplots(cols=len(panels), subplot_titles=[title for _, title in panels])
    last = head.history["step"].max()
    for column, (metric, _) in enumerate(panels, start=1):
        for side, colour in (("train", TRAIN_COLOUR), ("val", VAL_COLOUR)):
            if f"{side}_{metric}" not in head.history:
                continue
            # The last step repeats the metrics of the epoch that was kept.
            epochs = head.history[head.history["step"] < last]
            figure.add_scatter(
                x=epochs["step"],
                y=epochs[f"{side}_{metric}"],
                name=side,
                legendgroup=side,
                showlegend=column == 1,
                line_color=colour,
                col=column,
                row=1,
            )
    if best := head.params.get("best_epoch"):
        figure.add_vline(x=int(best), line_dash="dot", line_color=GREY)
    figure.update_xaxes(title="epoch")
    figure.update_layout(height=320)
    return figure


def measured(heads: Sequence[HeadView], split: str = "test") -> go.Figure:
    """Each head's metrics with 95 % intervals."""
    names = {
        "accuracy": "accuracy",
        "accuracy_missing_wrong": "missing counted wrong",
        "f1_macro": "macro-F1",
        "top5_accuracy": "top-5",
    }
    names = {
        key: name
        for key, name in names.items()
        if any(f"{split}_{key}" in head.metrics for head in heads)
    }
    figure = go.Figure()
    for index, head in enumerate(heads):
        values = [head.metrics.get(f"{split}_{key}", float("nan")) for key in names]
        high = [head.metrics.get(f"{split}_{key}_high", float("nan")) for key in names]
        low = [head.metrics.get(f"{split}_{key}_low", float("nan")) for key in names]
        figure.add_scatter(
            x=list(names.values()),
            y=values,
            error_y={
                "array": np.subtract(high, values).tolist(),
                "arrayminus": np.subtract(values, low).tolist(),
            },
            mode="markers",
            marker={"size": 10, "color": series_colour(index)},
            name=head.title,
        )
    majority = heads[0].metrics.get(f"{split}_majority_rate")
    if majority is not None:
        figure.add_hline(
            y=majority,
            line_dash="dot",
            line_color=GREY,
            annotation_text="always the most frequent class",
            annotation_position="bottom right",
        )
    figure.update_layout(height=340, scattermode="group", scattergap=0.7, yaxis_range=[0, 1.02])
    return figure


def confusion(
    predictions: pd.DataFrame,
    domains: Mapping[str, str],
    classes: Sequence[str] | None = None,
) -> go.Figure:
    """Row-normalised confusion matrix, with the classes of a domain next to each other.

    Args:
        predictions: What a head predicted.
        domains: Domain by class, if known.
        classes: The classes as `classes_in_order` returns them; by default those predicted.
    """
    classes = list(classes or classes_in_order([predictions], domains))
    counts = pd.crosstab(predictions["label"], predictions["predicted"]).reindex(
        index=classes, columns=classes, fill_value=0
    )
    support = counts.sum(axis=1).to_numpy()[:, None]
    shown = [chart_text(name) for name in classes]
    shares = counts.to_numpy() / np.maximum(support, 1)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=shown,
            y=shown,
            customdata=counts.to_numpy(),
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            colorbar={"title": "share of<br>the true class"},
            hovertemplate="in truth %{y}<br>answered %{x}<br>%{customdata} videos (%{z:.0%})"
            "<extra></extra>",
        )
    )
    edges = [
        place
        for place in range(1, len(classes))
        if domains.get(classes[place]) != domains.get(classes[place - 1])
    ]
    for edge in edges:
        figure.add_hline(y=edge - 0.5, line_width=0.6, line_color=GREY)
        figure.add_vline(x=edge - 0.5, line_width=0.6, line_color=GREY)
    if edges:
        # With many classes, the axes show domain names, since class names do not fit.
        starts = [0, *edges]
        ends = [*edges, len(classes)]
        middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
        names = [chart_text(domains.get(classes[start], "no domain")) for start in starts]
        if len(classes) > 40:
            for axis in (figure.update_xaxes, figure.update_yaxes):
                axis(tickvals=middles, ticktext=names)
            # Numeric axes, so that labels can be placed between classes.
            figure.update_traces(x=list(range(len(classes))), y=list(range(len(classes))))
            figure.update_traces(
                text=[[f"{a} as {b}" for b in shown] for a in shown],
                hovertemplate="%{text}<br>%{customdata} videos (%{z:.0%})<extra></extra>",
            )
    side = 340 + min(14 * len(classes), 560)
    figure.update_layout(height=side, width=side + 220, xaxis_title="answer", yaxis_title="truth")
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(automargin=True, tickangle=45)
    return figure


def calibration(predictions: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Accuracy by score on the test videos, a line for each head.

    Args:
        predictions: Predictions of each head by its title, test videos only.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": GREY}, name="calibrated"
    )
    for index, (title, rows) in enumerate(predictions.items()):
        correct = (rows["label"] == rows["predicted"]).to_numpy()
        bins = reliability(rows["score"].to_numpy(dtype=float), correct)
        if bins.empty:
            continue
        figure.add_scatter(
            x=bins["score"],
            y=bins["accuracy"],
            error_y={
                "array": (bins["accuracy_high"] - bins["accuracy"]).tolist(),
                "arrayminus": (bins["accuracy"] - bins["accuracy_low"]).tolist(),
            },
            customdata=bins["videos"],
            mode="lines+markers",
            marker={"color": series_colour(index), "symbol": index},
            name=f"{chart_text(title)} (ECE {calibration_error(bins):.3f})",
            hovertemplate="score %{x:.2f}, accuracy %{y:.2f}, %{customdata} videos",
        )
    figure.update_layout(
        height=420,
        xaxis={"title": "score", "range": [0, 1.02]},
        yaxis={"title": "accuracy", "range": [0, 1.02]},
    )
    return figure


def classes_in_order(predictions: Iterable[pd.DataFrame], domains: Mapping[str, str]) -> list[str]:
    """The classes of a confusion matrix of these predictions, those of a domain side by side."""
    names = {name for rows in predictions for side in ("label", "predicted") for name in rows[side]}
    return sorted(names, key=lambda label: (domains.get(label, ""), label))


def differences(comparison: RunComparison) -> list[dict[str, Any]]:
    """Rows for the videos on which exactly one of two heads is right, at most fifty."""
    rows = comparison.result.discordant.head(_MOST_EXAMPLES).to_dict(orient="records")
    return [{str(key): value for key, value in row.items()} for row in rows]
