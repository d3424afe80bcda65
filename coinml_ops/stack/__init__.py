"""The servers and workers of one machine, as `coinml up` starts and `coinml down` stops them.

Nothing here imports Prefect or MLflow; they run as processes of their own.
"""
