"""The servers and workers of one machine: started, watched, stopped (`coinml up`, `down`).

Nothing here imports Prefect or MLflow; they are run as processes of their own.
"""
