"""Thin Prefect tasks, one core call each."""

import logging

LOGGED = ("coinml", "tasks")
"""Loggers whose lines a run shows in Prefect; `prefect.yaml` and the environment name them, too."""

for _name in LOGGED:
    # Prefect 3.8 gives such loggers its handler and no level, and the root logger's is WARNING.
    logging.getLogger(_name).setLevel(logging.INFO)
