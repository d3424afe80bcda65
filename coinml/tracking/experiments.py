"""An experiment of MLflow, with the tags by which its pages open."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_EXPERIMENT_PRIMARY_METRIC_GREATER_IS_BETTER,
    MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME,
)

from coinml.errors import LocalError
from coinml.tracking.metric_names import PRIMARY

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NOTE = "mlflow.note.content"
_TAGS = {
    # Otherwise MLflow's page of an experiment opens with traces, judges and prompts.
    "mlflow.experimentKind": "custom_model_development",
    MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME: PRIMARY,
    MLFLOW_EXPERIMENT_PRIMARY_METRIC_GREATER_IS_BETTER: "True",
}


def experiment_id(
    client: MlflowClient, name: str, *, location: str | None, description: str, shown: str
) -> str:
    """The id of an experiment, which is created if needed; tags are not overwritten.

    Args:
        client: Of the store.
        name: The experiment's.
        location: URI of its artifacts; None: a place of the server's.
        description: Shown on its page, or "".
        shown: The store's URI without its secrets, for messages.

    Raises:
        LocalError: The experiment is deleted; says how it is restored.
    """
    tags = {**_TAGS, **({_NOTE: description} if description else {})}
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=location, tags=tags)
        except MlflowException:
            # Another process may have created it meanwhile.
            if client.get_experiment_by_name(name) is None:
                raise
        found = client.get_experiment_by_name(name)
        assert found is not None  # It was created just now.
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise LocalError(
            f"experiment {name!r} is deleted in MLflow at {shown}. Restore it, with the "
            f"runs that were deleted in it: MLFLOW_TRACKING_URI='{shown}' "
            f"mlflow experiments restore -x {found.experiment_id}; or record under another --name"
        )
    for key in tags.keys() - found.tags.keys():
        # Of two processes that set the tag at the same time, the second one fails.
        with suppress(MlflowException):
            client.set_experiment_tag(found.experiment_id, key, tags[key])
    return str(found.experiment_id)
