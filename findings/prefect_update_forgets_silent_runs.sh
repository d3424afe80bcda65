#!/usr/bin/env bash
# Prefect 3.8.8 and 3.9.1: an update of an automation (PUT /api/automations/ID, which is also
# `client.update_automation` and a click on Save) gives its trigger a new id, even if it is sent just as
# it was read. A proactive trigger ("no heartbeat for four minutes: mark the run as crashed") keeps
# what it waits for by the trigger's id, so that the update forgets every run that has fallen silent
# before it: nothing happens, and the runs stay Running for ever. A server that applies its automations at each
# start forgets exactly the runs that died with it.
#
# Seen with Python 3.11: two automations await a second event, and the first event comes once. The one that is
# left alone fires; the one that is sent again as it was does not, and its trigger has another id.
# What to do: compare before an update, and leave alone what is as it should be.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cat > "$work/look.py" <<'P'
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from datetime import datetime, timedelta, timezone

from prefect import __version__

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
url = f"http://127.0.0.1:{port}/api"
server = subprocess.Popen(
    [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    + ["--host", "127.0.0.1", "--port", str(port), "--log-level", "critical"]
)


def ask(path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def fired():
    since = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat()
    wanted = {"occurred": {"since": since}, "event": {"name": ["prefect.automation.triggered"]}}
    found = ask("/events/filter", {"filter": wanted, "limit": 50})["events"]
    return sorted(one["resource"]["prefect.resource.name"] for one in found)


try:
    for _ in range(240):
        with contextlib.suppress(OSError):
            ask("/health")
            break
        time.sleep(0.5)
    trigger = {
        "type": "event",
        "after": ["beat"],
        "expect": ["beat"],
        "match": {"prefect.resource.id": "run.*"},
        "for_each": ["prefect.resource.id"],
        "posture": "Proactive",
        "threshold": 1,
        "within": 20,
    }
    made = {}
    for name in ("left alone", "sent again"):
        body = {"name": name, "trigger": trigger, "actions": [{"type": "do-nothing"}]}
        made[name] = ask("/automations/", body)
    time.sleep(2)
    now = datetime.now(timezone.utc).isoformat()
    resource = {"prefect.resource.id": "run.1"}
    beat = {"id": str(uuid.uuid4()), "occurred": now, "event": "beat", "resource": resource}
    ask("/events", [beat])
    time.sleep(8)
    before = ask(f"/automations/{made['sent again']['id']}")
    kept = {key: before[key] for key in before if key not in ("id", "created", "updated")}
    ask(f"/automations/{before['id']}", kept, method="PUT")
    after = ask(f"/automations/{before['id']}")
    is_same = before["trigger"]["id"] == after["trigger"]["id"]
    for _ in range(60):
        time.sleep(1)
        if fired():
            # Time for the other one.
            time.sleep(20)
            break
    seen = (is_same, fired())
finally:
    server.terminate()
    server.wait(60)
print(f"prefect {__version__}: trigger's id kept: {seen[0]}; fired: {', '.join(seen[1])}")
sys.exit(0 if seen == (False, ["left alone"]) else 1)
P
for version in 3.8.8 3.9.1; do
    "$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
        "prefect==$version" fastapi==0.150.0 starlette==1.10.0
    rm -rf "$work/prefect"
    PREFECT_HOME="$work/prefect" DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false \
        "$work/venv/bin/python" "$work/look.py" 2> "$work/log" || { cat "$work/log"; exit 1; }
done
echo "as stated"
