#!/usr/bin/env bash
# PyAV 18.1.0: reading `frame.side_data` raises ValueError for a frame with Exif data (FFmpeg's
# TIFF decoder attaches it to every frame), since its enumeration of side data ends before that
# kind. `frame.rotation`, which asks FFmpeg itself, works. A program that looks for the display
# matrix by `frame.side_data` loses whole files.
#
# Seen with Python 3.11, numpy 2.4.6: av 18.1.0: ValueError: 31 is not a valid Type; rotation 0
# What to do: catch ValueError around `side_data`, and take `rotation` then.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6
cat > "$work/look.py" <<'P'
import sys

import av
import numpy as np

path = sys.argv[1]
with av.open(path, "w") as container:
    stream = container.add_stream("tiff", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
    for number in range(3):
        pixels = np.full((48, 64, 3), 40 * number, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode(None))
with av.open(path) as container:
    frame = next(container.decode(video=0))
    try:
        said = f"{len(list(frame.side_data))} kinds"
    except ValueError as err:
        said = f"ValueError: {err}"
    print(f"av {av.__version__}: {said}; rotation {frame.rotation}")
sys.exit(0 if said.startswith("ValueError") and frame.rotation == 0 else 1)
P
"$work/venv/bin/python" "$work/look.py" "$work/a.mov"
echo "as stated"
