"""The score from which a registered model's answers have a wanted precision, as val shows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError, RegistryError
from coinml.evaluation.abstention import ALPHA, Threshold, fewest_videos, threshold_for
from coinml.registry.versions import version_at, version_numbered
from coinml.registry.video_classifier import SCORE_DIGITS

if TYPE_CHECKING:
    import pandas as pd

    from coinml.tracking.mlflow_store import MlflowStore

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")
_SHOWN_PRECISIONS = tuple(round(0.99 - step / 100, 2) for step in range(50))


def abstention_threshold(store: MlflowStore, uri: str, precision: float) -> Threshold:
    """The lowest score from which a model's answers have a precision, with 95 % confidence.

    It rests on the predictions for val that the model's run recorded, one segment a video.

    Args:
        store: Where the registry is.
        uri: The model, as `models:/mini-task@champion` or `models:/mini-task/3`.
        precision: The wanted share of right answers among those that are taken.

    Raises:
        InvalidInputError: The precision is not between 0 and 1, val cannot show it, or the run
            has no predictions.
        RegistryError: There is no such model.
    """
    if not 0 < precision < 1:
        raise InvalidInputError(f"precision {precision:g}: a number between 0 and 1 is allowed")
    val = _val_predictions(store, uri)
    # As rounded as the answers are.
    score = val["score"].to_numpy(dtype=float).round(SCORE_DIGITS)
    correct = (val["label"] == val["predicted"]).to_numpy()
    found = threshold_for(score, correct, precision)
    if found is not None:
        return found
    within = next(
        (
            one
            for one in _SHOWN_PRECISIONS
            if one < precision and threshold_for(score, correct, one)
        ),
        None,
    )
    raise InvalidInputError(
        f"precision {precision:g}: the {len(val):,} val videos of {uri}, {correct.sum():,} of them "
        f"answered right, show no score that keeps it with {1 - ALPHA:.0%} confidence; it takes "
        f"at least {fewest_videos(precision):,} best answers without an error. "
        + (f"They show {within:g}" if within else "They show no precision of 0.5 or more")
    )


def _val_predictions(store: MlflowStore, uri: str) -> pd.DataFrame:
    named = _URI.fullmatch(uri)
    if named is None:
        raise RegistryError(
            f"{uri}: with a precision, a model is named as models:/NAME@ALIAS or models:/NAME/3"
        )
    if named["alias"]:
        version = version_at(store, named["name"], named["alias"])
    else:
        version = version_numbered(store, named["name"], int(named["number"]))
    if version is None:
        raise RegistryError(f"no alias {named['alias']} of {named['name']} at {store.shown}")
    predictions = store.read_table(version.run_id or "", "predictions")
    val = predictions[predictions["split"] == "val"]
    if "of_video" in val:
        # Segments of one video are no independent evidence.
        val = val.sample(frac=1, random_state=0).drop_duplicates("of_video")
    return val
