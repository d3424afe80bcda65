"""Names and descriptions of experiments, runs, models and versions in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from coinml.data.records import Split, Target
from coinml.embedding_sets.spec import SetSpec
from coinml.heads.kinds import head_kind
from coinml.runtime.markdown import markdown_table

if TYPE_CHECKING:
    from coinml.training.sweep import SweepResult
    from coinml.training.training_data import TrainingData

_ROWS = (
    ("accuracy on test", "test_accuracy"),
    ("with the missing counted wrong", "test_accuracy_missing_wrong"),
    ("with the missing counted right", "test_accuracy_missing_right"),
    ("macro-F1 on test", "test_f1_macro"),
    ("top-5 on test", "test_top5_accuracy"),
    ("share of the official test {things}", "test_coverage"),
    ("accuracy on val", "val_accuracy"),
)

_SIZES = ("tiny", "small", "base", "large", "huge", "giant")

_EXTENTS: dict[str, tuple[str, str]] = {
    "video": ("video", ""),
    "annotated": (
        "video",
        "It was trained on the annotated extent of each video; of a file it uses the whole, or "
        "from start_s to end_s where they are given.",
    ),
    "segments": (
        "segment",
        "It was trained on annotated segments; of a file it uses the whole, or from start_s to "
        "end_s where they are given.",
    ),
}
"""By extent: what a row is called, and how training differs from prediction."""


def run_name(head: str, spec: SetSpec, *, train: int, val_accuracy: float | None = None) -> str:
    """A run's name, whose first 20 characters distinguish it from others: `mlp b 0.962 139v`.

    Args:
        head: Name of the head.
        spec: The embedding set.
        train: Number of training videos (or segments).
        val_accuracy: Accuracy on val; None while it is not known.
    """
    measured = [] if val_accuracy is None else [f"{val_accuracy:.3f}"]
    counted = f"{train}{_EXTENTS[spec.extent][0][0]}"
    return " ".join([head, _short_name(spec.encoder.encoder), *measured, counted])


def _short_name(encoder: str) -> str:
    """`b` for VideoMAE-base, else the first letters of the encoder's name."""
    name = encoder.rstrip("/").rpartition("/")[2].lower()
    sizes = [word for word in re.split("[-_.]", name) if word in _SIZES]
    return sizes[0][0] if sizes else name[:4]


def run_description(
    head: str,
    data: TrainingData,
    *,
    sizes: Mapping[Split, int],
    metrics: Mapping[str, float] | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """A run's description in Markdown: what was trained on what, and the results.

    Args:
        head: Name of the head.
        data: What it is trained and measured on.
        sizes: Videos (or segments) used, by split.
        metrics: The final numbers; None while there are none.
        links: Addresses by what they lead to.
    """
    spec = data.spec
    what, how = _EXTENTS[spec.extent]
    embeddings = "the" if head_kind(head).takes_clips else "the mean of"
    counted = ", ".join(f"{size:,} {split}" for split, size in sizes.items())
    parts = [
        f"**{head}** on {embeddings} {spec.encoder.clips} clip embeddings a {what} "
        f"({spec.encoder.encoder}, set `{spec.fingerprint}`) of **{data.dataset.name}**: {counted} "
        f"{what}s of {len(data.classes)} classes (target {data.target}). {how}".strip()
    ]
    if metrics:
        rows = [
            (
                label.format(things=f"{what}s"),
                f"{metrics[name]:.3f}",
                f"{metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f}",
            )
            for label, name in _ROWS
            # With five classes or fewer there is no top-5.
            if name in metrics
        ]
        parts.append(markdown_table(("", "", "95 % interval"), rows))
        parts.append(
            "Always answering the most frequent class would score "
            f"{metrics['test_majority_rate']:.3f} on test."
        )
    if links:
        parts.append(", ".join(f"[{name}]({address})" for name, address in links.items()))
    return "\n\n".join(parts)


def cv_description(head: str, data: TrainingData, metrics: Mapping[str, float]) -> str:
    """A cross-validation's description in Markdown: what was cut, and the accuracy.

    Args:
        head: Name of the head.
        data: What it was trained and measured on.
        metrics: The run's numbers, `cv_accuracy` and so on.
    """
    what = f"{_EXTENTS[data.spec.extent][0]}s"
    unused = " The official test set was not used." if data.dataset.official_split else ""
    return (
        f"**{head}** on **{data.dataset.name}**: {metrics['cv_videos']:,.0f} {what} in "
        f"{metrics['cv_groups']:,.0f} independent groups, cut into {metrics['cv_folds']:.0f} folds "
        f"{metrics['cv_repeats']:.0f} times.{unused}\n\nAccuracy {metrics['cv_accuracy']:.3f} "
        f"[{metrics['cv_accuracy_low']:.3f}, {metrics['cv_accuracy_high']:.3f}], macro-F1 "
        f"{metrics['cv_f1_macro']:.3f}, calibration error {metrics['cv_calibration_error']:.3f}; "
        "always answering the most frequent class would score "
        f"{metrics['cv_majority_rate']:.3f}. The interval allows for the dependence of the folds."
    )


def sweep_description(head: str, dataset: str, target: Target, result: SweepResult) -> str:
    """A sweep's description in Markdown: the best options, and how they were found."""
    options = ", ".join(f"`{name}` {value}" for name, value in result.options.items())
    return (
        f"Options of **{head}** for the {target}s of **{dataset}**, tried on train and val alone: "
        f"{result.completed} trials completed, {result.pruned} stopped early.\n\n"
        f"Best: trial {result.trial}, val accuracy {result.val_accuracy:.3f}, val loss "
        f"{result.val_loss:.3f}, with {options or 'the defaults'}. Of many trials the best on val "
        "is partly luck."
    )


def experiment_description(dataset: str, target: Target, model: str) -> str:
    """An experiment's description in Markdown: what is in it, and how to filter its runs."""
    return (
        f"Heads that predict the {target} of videos of **{dataset}**; registered heads are "
        f"versions of `{model}`. Sweeps contain their trials.\n\n"
        "To filter: `tags.kind = 'head'` (or `sweep`, `trial`, `cv`), `tags.head = 'mlp'`, "
        "`tags.encoder = '…'`, `tags.set_fingerprint = '…'`, metrics.`test/coverage` > 0.9."
    )


def model_description(dataset: str, target: Target, model: str) -> str:
    """A registered model's description in Markdown."""
    return (
        f"Predicts the {target} (of {dataset}) of a video file, with scores and the five best.\n\n"
        "```python\n"
        f'model = mlflow.pyfunc.load_model("models:/{model}@champion")\n'
        'model.predict(pd.DataFrame({"video": ["holiday.mp4"]}))\n'
        "```\n\n"
        "`champion` has passed the gate or was decided for by a person, `challenger` has not, "
        "`previous` was the champion before. The decision on a version is in its tags `gate` and "
        "`gate_reason`, a person's also in `decided_by`, `decided_at` and `decided_because`; "
        "tags that it replaced are in the artifacts of the run, in `decisions`."
    )
