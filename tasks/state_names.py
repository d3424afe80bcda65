"""Names of a flow run's final state that are not Prefect's."""

SKIPPED = "Skipped"
"""Of a run that had nothing to do (its type is Completed), and of one that was due while the
previous one was in progress (Cancelled, by `coinml_ops.deployments.automations`).
"""
