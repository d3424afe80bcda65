"""What Prometheus is told about a home, read anew at each request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coinml.collection.health import TROUBLES
from coinml.embedding_sets.listing import find_sets
from coinml.embedding_sets.places import filesystem_of, is_local
from coinml.embedding_sets.sets import EmbeddingSet
from coinml.ledger import DOWNLOADED, PENDING, Ledger
from coinml.ledger.database import is_current
from coinml.monitoring.score_store import find_stores
from coinml.runtime.settings import Settings
from coinml.upkeep.disk import DiskForecast, forecast_disk, free_bytes
from coinml_ops.deployments.health import find_troubles
from coinml_ops.metrics.prefect_metrics import ask, prefect_metrics
from coinml_ops.stack.health import Api

DISK_EVERY_S = 300.0
"""The disk forecast looks at every file of the home, so it is not made for each request."""

logger = logging.getLogger(__name__)


class HomeCollector(Collector):
    """Reads ledger, embedding sets, Prefect's server and disk of a home.

    A part that cannot be read is left out, and `coinml_part_readable` says so.

    Args:
        settings: Whose home.
        api: Of its Prefect server.
    """

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api
        self._set_videos: dict[str, tuple[dict[str, int], int]] = {}
        self._forecast: tuple[float, DiskForecast] | None = None
        # Two requests at a time would read everything twice.
        self._lock = threading.Lock()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All metrics; called by prometheus_client for each request."""
        readable = GaugeMetricFamily(
            "coinml_part_readable", "Whether a part of these metrics could be read", labels=["part"]
        )
        parts: dict[str, Callable[[], Iterable[GaugeMetricFamily]]] = {
            "ledger": self._videos,
            "embeddings": self._sets,
            "scores": self._scores,
            "prefect": lambda: prefect_metrics(self._api),
            "troubles": self._troubles,
            "disk": self._disk,
        }
        with self._lock:
            for part, read in parts.items():
                try:
                    families = list(read())
                # One part that cannot be read must not hide the others.
                except Exception as err:
                    logger.warning("%s: %s: %s", part, type(err).__name__, err)
                    readable.add_metric([part], 0)
                else:
                    readable.add_metric([part], 1)
                    yield from families
        yield readable

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: prometheus_client would otherwise collect once to learn the names."""
        return ()

    def _videos(self) -> Iterator[GaugeMetricFamily]:
        settings = self._settings
        # Opening another version's ledger would migrate it.
        if not is_current(settings.ledger_url):
            return
        videos = GaugeMetricFamily(
            "coinml_videos", "Videos by their state in the ledger", labels=["dataset", "state"]
        )
        due = GaugeMetricFamily("coinml_videos_due", "Videos that are due", labels=["dataset"])
        possible = GaugeMetricFamily(
            "coinml_videos_possible", "Videos neither downloaded nor lost", labels=["dataset"]
        )
        asked = GaugeMetricFamily(
            "coinml_videos_asked_last_hour",
            "Videos that were asked for in the last hour: the pace",
            labels=["dataset"],
        )
        rate = GaugeMetricFamily(
            "coinml_rate_limit_videos_per_hour",
            "Videos that a source may be asked for in an hour",
            value=settings.rate_per_hour,
        )
        with Ledger.of(settings) as ledger:
            hour_ago = datetime.now(UTC) - timedelta(hours=1)
            for dataset in ledger.datasets():
                status = ledger.status(dataset)
                states = {DOWNLOADED: status.downloaded, PENDING: status.pending, **status.faults}
                for state, count in states.items():
                    videos.add_metric([dataset, state], count)
                due.add_metric([dataset], status.due)
                possible.add_metric([dataset], status.possible)
                asked.add_metric([dataset], ledger.asked_since(dataset, hour_ago))
        yield from (videos, due, possible, asked, rate)

    def _sets(self) -> Iterator[GaugeMetricFamily]:
        labels = ["dataset", "set"]
        videos = GaugeMetricFamily("coinml_set_videos", "Videos in an embedding set", labels=labels)
        size = GaugeMetricFamily("coinml_set_bytes", "Size of an embedding set", labels=labels)
        # Of sets in a bucket nothing is read: Prometheus would cause requests all day.
        root = self._settings.embeddings_root
        sets = find_sets(root)[0] if is_local(filesystem_of(root)[0]) else []
        for one in sets:
            named = [one.spec.dataset, one.spec.fingerprint]
            sizes = one.part_sizes()
            videos.add_metric(named, self._videos_in(one, sizes))
            size.add_metric(named, sum(sizes.values()))
        yield from (videos, size)

    def _scores(self) -> Iterator[GaugeMetricFamily]:
        files = GaugeMetricFamily(
            "coinml_scored_files",
            "Files that were classified by the champion, failed, or wait",
            labels=["model", "state"],
        )
        drift = GaugeMetricFamily(
            "coinml_drift",
            "Whether the last full window of new videos differs from the training set",
            labels=["model"],
        )
        p_values = GaugeMetricFamily(
            "coinml_drift_p_value",
            "Adjusted p-value of a test of the last full window",
            labels=["model", "test"],
        )
        accuracy = GaugeMetricFamily(
            "coinml_labelled_accuracy", "Accuracy on files with late labels", labels=["model"]
        )
        for scores in find_stores(self._settings.data_dir):
            last = scores.latest()
            if last is None:
                continue
            model = last["model"]
            files.add_metric([model, "classified"], last["classified"])
            files.add_metric([model, "failed"], last["failed_ever"])
            files.add_metric([model, "waiting"], last["waiting"] + len(last["unread"]))
            if last["last_window"]:
                drift.add_metric([model], bool(last["drift"]))
                for name, test in last["last_window"]["tests"].items():
                    p_values.add_metric([model, name], test["adjusted_p_value"])
            for one in last["labelled"][:1]:
                accuracy.add_metric([model], one["accuracy"])
        yield from (files, drift, p_values, accuracy)

    def _videos_in(self, one: EmbeddingSet, sizes: dict[str, int]) -> int:
        """Number of videos in a set, counted anew where its parts have changed."""
        known, count = self._set_videos.get(one.path, (None, 0))
        if known != sizes:
            count = len({key[0] for key in one.done()})
            self._set_videos[one.path] = (sizes, count)
        return count

    def _troubles(self) -> Iterator[GaugeMetricFamily]:
        troubles = GaugeMetricFamily(
            "coinml_deployment_trouble",
            "Whether a deployment is blocked, has stalled, or has failed twice",
            labels=["deployment", "trouble"],
        )
        found = find_troubles(self._settings, partial(ask, self._api), now=datetime.now(UTC))
        for deployment, some in found.items():
            for trouble in TROUBLES:
                troubles.add_metric([deployment, trouble], trouble in some)
        yield troubles

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        now = time.monotonic()
        if self._forecast is None or now - self._forecast[0] > DISK_EVERY_S:
            self._forecast = (now, forecast_disk(self._settings))
        forecast = self._forecast[1]
        yield GaugeMetricFamily(
            "coinml_disk_free_bytes",
            "Free space of the disk with the home's data",
            value=free_bytes(self._settings),
        )
        yield GaugeMetricFamily(
            "coinml_disk_low",
            "Whether the disk will be nearly full in two weeks, with all videos",
            value=forecast.low,
        )
        sizes = GaugeMetricFamily(
            "coinml_home_bytes", "Size of a part of the home", labels=["part"]
        )
        for part, size in forecast.sizes_bytes.items():
            sizes.add_metric([part], size)
        yield sizes
