#!/usr/bin/env bash
# mlflow 3.17.2: `mlflow gc --run-ids RUN` removes for good, besides that run, every experiment in the
# state "deleted", with its runs: the list of runs does not limit the experiments, and the command's
# help does not say so. An experiment that somebody deleted in the pages, and could have restored, is
# lost.
#
# Seen with Python 3.11: run removed, experiment "theirs" gone
# What to do: restore such experiments before, or use the store's methods for single runs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check mlflow==3.17.2
cat > "$work/look.py" <<'P'
import subprocess
import sys
from pathlib import Path

import mlflow
from mlflow.entities import ViewType

uri = f"sqlite:///{Path(sys.argv[1]) / 'mlflow.db'}"
client = mlflow.MlflowClient(uri)
ours = client.create_experiment("ours", artifact_location=f"file://{sys.argv[1]}/ours")
theirs = client.create_experiment("theirs", artifact_location=f"file://{sys.argv[1]}/theirs")
run = client.create_run(ours).info.run_id
client.delete_run(run)
client.delete_experiment(theirs)
command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
subprocess.run([*command, "--tracking-uri", uri, "--run-ids", run], check=True)
left = {one.name for one in client.search_experiments(view_type=ViewType.ALL)}
print(f"mlflow {mlflow.__version__}: experiments left: {sorted(left)}")
sys.exit(0 if "theirs" not in left else 1)
P
"$work/venv/bin/python" "$work/look.py" "$work"
echo "as stated"
