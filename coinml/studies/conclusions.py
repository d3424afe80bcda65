"""A study's results as sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from coinml.evaluation.intervals import Estimate
from coinml.studies.costs import Cost, speed_up
from coinml.studies.estimates import Difference
from coinml.studies.report import Prediction, Row

_SUBJECTS: dict[str, Callable[[Row, Row], str]] = {
    "snap": lambda _row, _: "letting clips begin at key frames",
    "tokens": lambda row, _: f"keeping {row.condition.name} of the tokens",
    "precision": lambda row, all_: (
        f"{row.condition.name} in place of {all_.condition.name} precision"
    ),
    "clips": lambda row, all_: f"{row.condition.name} in place of {all_.condition.name} clips",
    "resolution": lambda row, _: f"a picture of {row.condition.value:g} rows",
    "dims": lambda row, all_: f"{row.condition.name.replace(' ', ' to ')} of {all_.dim} dimensions",
}


def conclude_conditions(study: str, rows: Sequence[Row], reference: Row) -> list[str]:
    """One sentence for each condition but the reference, from one head's rows."""
    return [
        f"{_capital(_SUBJECTS[study](row, reference))} {_effect(row.difference)}"
        f"{_price(row.cost, reference.cost)}."
        for row in rows
        if row.difference is not None
    ]


def conclude_dims(rows: Sequence[Row], reference: Row) -> list[str]:
    """One sentence for each method, on the number of dimensions that is best on val."""
    sentences = []
    for method in ("PCA", "LDA"):
        tried = [row for row in rows if row.condition.name.startswith(method)]
        if not tried:
            continue
        chosen = max(tried, key=lambda row: (row.val.value, -(row.condition.value or 0)))
        assert chosen.difference is not None
        subject = _SUBJECTS["dims"](chosen, reference)
        sentences.append(f"{subject}, the best number on val, {_effect(chosen.difference)}.")
    return sentences


def conclude_data(
    whole: Row, gaps: Sequence[tuple[Row, Difference]], predictions: Sequence[Prediction]
) -> list[str]:
    """Whether more data helps, and what the power law predicts for other sizes.

    Args:
        whole: The row with all training videos.
        gaps: Rows with fewer, and by how much the accuracy with all videos exceeds theirs.
        predictions: Predicted errors of the same head.
    """
    sentences = [
        f"From {row.train_videos:,} to {whole.train_videos:,} training videos the test accuracy of "
        f"{whole.head} changes by {_points(gap.value)} ({_p(gap.p_value)}): {_verdict(gap)}."
        for row, gap in gaps
    ]
    sentences += [
        f"The fitted power law predicts a test error of {_percent(prediction.error)} with "
        f"{prediction.train_videos:,} training videos ({prediction.what})."
        for prediction in predictions
    ]
    return sentences


def _verdict(gap: Difference) -> str:
    if not gap.shown:
        return "no significant difference"
    return "more data helps" if gap.value.value > 0 else "more data hurts"


def conclude_heads(first: str, second: str, gap: Difference, videos: int) -> str:
    """Which of two heads is better with all training videos."""
    if gap.shown:
        better = first if gap.value.value > 0 else second
        verdict = f"{better} is better"
    else:
        verdict = "the difference is not significant"
    return (
        f"{first} less {second} with all training videos: {_points(gap.value)} "
        f"({_p(gap.p_value)}) on {videos} test videos, so {verdict}."
    )


def _effect(gap: Difference | None) -> str:
    assert gap is not None
    e = gap.value
    if e.value > 0:
        text = f"gains {_points(e, signed=False)}"
    else:
        lost = Estimate(value=-e.value, low=-e.high, high=-e.low, caveat=e.caveat)
        text = f"costs {_points(lost, signed=False)}"
    return f"{text} of accuracy ({_p(gap.p_value)}{'' if gap.shown else ', not significant'})"


def _price(cost: Cost | None, reference: Cost | None) -> str:
    if cost is None or reference is None:
        return ""
    frames = ""
    if cost.frames != reference.frames:
        frames = f", reading {cost.frames:,} frames in place of {reference.frames:,}"
    before, after = (one.encode_cpu_s_a_clip for one in (reference, cost))
    cpu = f"; {after} in place of {before} CPU s of encoding a clip" if after.value else ""
    ratio = speed_up(reference, cost)
    if not ratio.excludes_1:
        return (
            f"; that it embeds faster or slower is not shown ({ratio.low:.2g} to {ratio.high:.2g} "
            f"times as fast in {ratio.rounds} rounds{cpu}){frames}"
        )
    parts = ", ".join(
        f"{name} {speed_up(reference, cost, seconds)}"
        for name, seconds in (
            ("decoding", attrgetter("decode_s")),
            ("encoding", attrgetter("encode_s")),
        )
    )
    return f" and embeds {ratio} times as fast ({parts}{cpu}){frames}"


def _points(e: Estimate, *, signed: bool = True) -> str:
    sign = "+" if signed else ""
    value, low, high = (100 * (n + 0.0) for n in (e.value, e.low, e.high))
    said = f"; {e.caveat}" if e.caveat else ""
    return f"{value:{sign}.1f} points [{low:{sign}.1f}, {high:{sign}.1f}{said}]"


def _percent(e: Estimate) -> str:
    return f"{100 * e.value:.1f} % [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def _p(p_value: float) -> str:
    return f"p = {p_value:.2g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
