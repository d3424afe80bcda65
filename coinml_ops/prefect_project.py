"""Where the Prefect project lies: the packages `flows` and `tasks`, and prefect.yaml.

In a checkout it is the checkout itself. The wheel puts it into a folder below coinml_ops, so
that an installation has no `flows` and no `tasks` at the top level of site-packages, where other
Prefect projects may have packages of these names.
"""

from __future__ import annotations

import sys
from pathlib import Path

from coinml.errors import LocalError

_HERE = Path(__file__).resolve().parent
PROJECT = _HERE / "project" if (_HERE / "project").is_dir() else _HERE.parent
"""The folder that contains `flows/`, `tasks/` and prefect.yaml."""


def import_from_project() -> None:
    """Make `flows` and `tasks` in this process mean the packages of this project.

    Modules of coinml_ops import them in functions, so that they can be imported before.

    Raises:
        LocalError: A package of one of these names from elsewhere is loaded already.
    """
    if str(PROJECT) != sys.path[0]:
        sys.path.insert(0, str(PROJECT))
    for name in ("flows", "tasks"):
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded and Path(loaded).resolve().parent != PROJECT / name:
            raise LocalError(
                f"this process has loaded another package called {name} ({loaded}), so coinml "
                "cannot load its own; run coinml in a process or an environment without it"
            )
