"""The deployments of prefect.yaml, and what a Prefect server must have for them."""
