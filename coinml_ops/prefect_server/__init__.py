"""Prefect servers as processes."""
