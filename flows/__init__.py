"""The Prefect flows, one a file: order, policy, and what a partial failure means."""
