"""The score from which a registered model's answers have a wanted precision, as val shows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coinml.errors import NoModelError
from coinml.evaluation.abstention import Threshold, ValAnswers
from coinml.registry.versions import version_at, version_numbered

if TYPE_CHECKING:
    from coinml.tracking.mlflow_store import MlflowStore

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")


def abstention_threshold(store: MlflowStore, uri: str, precision: float) -> Threshold:
    """The lowest score from which a model's answers have a precision, with 95 % confidence.

    It rests on the predictions for val that the model's run recorded, as the threshold of a served
    model does, which carries them (`VideoClassifier`).

    Args:
        store: Where the registry is.
        uri: The model, as `models:/mini-task@champion` or `models:/mini-task/3`.
        precision: The wanted share of right answers among those that are taken.

    Raises:
        InvalidInputError: The precision is not between 0 and 1, val cannot show it, or the run
            has no predictions.
        NoModelError: There is no such model.
    """
    return _val_answers(store, uri).threshold(precision, model=uri)


def _val_answers(store: MlflowStore, uri: str) -> ValAnswers:
    named = _URI.fullmatch(uri)
    if named is None:
        raise NoModelError(
            f"{uri}: with a precision, a model is named as models:/NAME@ALIAS or models:/NAME/3"
        )
    if named["alias"]:
        version = version_at(store, named["name"], named["alias"])
    else:
        version = version_numbered(store, named["name"], int(named["number"]))
    if version is None:
        raise NoModelError(f"no alias {named['alias']} of {named['name']} at {store.shown}")
    return ValAnswers.of(store.read_table(version.run_id or "", "predictions"))
