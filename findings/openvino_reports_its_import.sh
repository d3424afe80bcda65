#!/usr/bin/env bash
# `import openvino` (2026.4.1) asks www.google-analytics.com for its address from a child process,
# and writes a client's id and counts to ~/intel, without a question before: its package
# openvino-telemetry, which pip installs with it, takes a missing file of consent for consent.
# With CI=true it does not.
#
# Seen with Python 3.11:
#   with telemetry: asked for ['www.google-analytics.com'], wrote intel/openvino_ga_cid and intel/stats
#   without: asked for nothing, wrote nothing
# What to do: sys.modules["openvino_telemetry"] = None before the import (OpenVINO then uses an empty
# stand-in of its own), or `opt_in_out --opt_out` for each user.
#
# No address is looked up here: the script replaces the function that does it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check openvino==2026.4.1
cat > "$work/look.py" <<'P'
import pathlib
import socket
import sys
import time

home = pathlib.Path.home()
note = home / "asked"


def getaddrinfo(host, *_, **__):
    note.open("a").write(f"{host}\n")
    raise OSError("no network in this process")


socket.getaddrinfo = getaddrinfo
telemetry = sys.argv[1] == "with"
if not telemetry:
    sys.modules["openvino_telemetry"] = None
import openvino

time.sleep(5)
asked = sorted(set(note.read_text().split())) if note.exists() else []
wrote = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path != note)
print(f"openvino {openvino.__version__}, {sys.argv[1]} telemetry: asked for {asked}, wrote {wrote}")
assert asked == (["www.google-analytics.com"] if telemetry else [])
assert wrote == (["intel", "intel/openvino_ga_cid", "intel/stats"] if telemetry else [])
P
for telemetry in with without; do
  mkdir "$work/$telemetry"
  env -u CI HOME="$work/$telemetry" "$work/venv/bin/python" "$work/look.py" "$telemetry"
done
echo "as stated"
