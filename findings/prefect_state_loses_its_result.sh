#!/usr/bin/env bash
# Prefect 3.8.8: a flow that returns `Completed(data=…, message=…)` loses its result where the answer
# to its last state is lost on the way (a reset connection, a 503 after the commit). The client asks
# again, the server rejects the state as already set and returns the one that it knows, without data,
# and the caller of the flow gets MissingResult although the run is Completed. A flow that returns
# its data and no state keeps it in the same case, also without persisted results.
#
# Seen with Python 3.11: undisturbed 3, 3; with lost answers: data 3, state MissingResult, state with
# a stored record 3.
# What to do: return plain data, or store the record oneself (`ResultStore.persist_result_record`)
# and give it to the state; the server then keeps a reference to it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
    prefect==3.8.8 fastapi==0.150.0 starlette==1.10.0
cat > "$work/look.py" <<'P'
import sys
import tempfile

from prefect import __version__, flow
from prefect.client.base import PrefectHttpxSyncClient
from prefect.exceptions import MissingResult
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.states import Completed
from prefect.testing.utilities import prefect_test_harness


@flow
def data():
    return 3


@flow
def state():
    return Completed(data=3, message="three")


@flow
def stored():
    store = ResultStore(result_storage=LocalFileSystem(basepath=tempfile.mkdtemp()))
    record = store.create_result_record(3)
    store.persist_result_record(record)
    return Completed(data=record, message="three")


def result(called):
    try:
        return called()
    except MissingResult as err:
        return type(err).__name__


send = PrefectHttpxSyncClient.send


def send_again(client, request, *args, **kwargs):
    """Send a state twice; the first answer is lost."""
    if request.url.path.endswith("/set_state"):
        send(client, request, *args, **kwargs)
    return send(client, request, *args, **kwargs)


with prefect_test_harness(server_startup_timeout=180):
    undisturbed = [result(data), result(state)]
    PrefectHttpxSyncClient.send = send_again
    lost = [result(data), result(state), result(stored)]
print(f"prefect {__version__}: undisturbed {undisturbed}, with lost answers {lost}")
sys.exit(0 if (undisturbed, lost) == ([3, 3], [3, "MissingResult", 3]) else 1)
P
PREFECT_HOME="$work/prefect" DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false \
    "$work/venv/bin/python" "$work/look.py" 2> "$work/log" || { cat "$work/log"; exit 1; }
echo "as stated"
