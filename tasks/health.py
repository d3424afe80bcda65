"""Whether a scheduled collection is well, judged at the end of its run."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from prefect.client.orchestration import get_client
from prefect.runtime import deployment

from coinml.collection.health import BLOCKED, read_facts, troubles_of
from coinml.collection.options import CollectOptions
from coinml.collection.sources import asked_sources
from coinml.errors import CoinmlError, SourceBlockedError, TransientError
from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.alerts import announce_changes
from tasks.download import fetch_options
from tasks.events import is_subflow

logger = logging.getLogger(__name__)


def judge_collection(dataset: str, selection: Selection, options: CollectOptions) -> None:
    """Emit `coinml.blocked` or `coinml.stalled` when that begins, and `coinml.recovered` after.

    Only runs of deployments are judged: others have no schedule, and somebody reads their output.

    Raises:
        SourceBlockedError: The source has refused everyone for more than a day. A parent flow goes
            on with the videos that are there.
        TransientError: No source has answered for more than a day, although videos are due.
    """
    if not deployment.id or selection.is_folder:
        return
    try:
        troubles = _troubles(dataset, selection, options)
    # A run must not fail because its health cannot be read; the next one is judged.
    except Exception as err:
        logger.warning("whether the collection of %s is well is unknown: %s", dataset, err)
        return
    told = {f"coinml.{trouble}": text for trouble, text in troubles.items()}
    announce_changes(f"coinml.collection.{dataset}", dataset, lambda: told)
    for trouble, text in troubles.items():
        if not is_subflow():
            error: type[CoinmlError] = SourceBlockedError if trouble == BLOCKED else TransientError
            raise error(f"{dataset}: {text}")


def _troubles(dataset: str, selection: Selection, options: CollectOptions) -> dict[str, str]:
    settings = Settings()
    now = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        begun = client.read_deployment(str(deployment.id)).created
    with Ledger.of(settings) as ledger:
        facts = read_facts(
            ledger,
            dataset,
            asked_sources(options.sources, is_mini=selection.is_mini),
            now=now,
            begun=begun,
            planned=now,
            credentials=fetch_options(settings).credentials(),
        )
    return troubles_of(facts, now=now)
