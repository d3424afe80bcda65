#!/usr/bin/env bash
# distributed 2026.8.0: `dashboard=False` does not keep a scheduler and its workers from serving
# pages by HTTP, and `Security` with TLS does not cover them. Every user of the machine reads the
# workers, tasks and logs, also where the connections themselves ask for a certificate.
#
# Seen with Python 3.11: distributed 2026.8.0: /health 200, /info/main/workers.html 200; without
# routes 404, 404.
# What to do: set `distributed.scheduler.http.routes` and `distributed.worker.http.routes` to [].
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
    distributed==2026.8.0 dask==2026.8.0 cryptography==50.0.2 jinja2
cat > "$work/look.py" <<'P'
import sys
import urllib.error
import urllib.request

import dask
import distributed
from distributed import Scheduler, SpecCluster
from distributed.security import Security

PATHS = ("/health", "/info/main/workers.html")


def status(url):
    try:
        return urllib.request.urlopen(url, timeout=10).status
    except urllib.error.HTTPError as err:
        return err.code


def seen():
    security = Security.temporary()
    options = {
        "host": "tls://127.0.0.1",
        "port": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
        "security": security,
    }
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster(workers={}, scheduler=scheduler, security=security) as cluster:
        port = cluster.scheduler.http_server.port
        return [status(f"http://127.0.0.1:{port}{path}") for path in PATHS]


if __name__ == "__main__":
    plain = seen()
    names = ("distributed.scheduler.http.routes", "distributed.worker.http.routes")
    with dask.config.set({name: [] for name in names}):
        closed = seen()
    print(f"distributed {distributed.__version__}: {plain}; without routes {closed}")
    sys.exit(0 if plain == [200, 200] and closed == [404, 404] else 1)
P
"$work/venv/bin/python" "$work/look.py"
echo "as stated"
