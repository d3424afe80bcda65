#!/usr/bin/env bash
# yt-dlp 2026.8.19: what becomes of a partial file (`.part`) whose source has nothing to add to it,
# or that is of another format.
#
# 1. It is as long as the source's file (killed between the last byte and the rename) or longer.
#    The source answers 416, and the request that yt-dlp then makes "without the range header" has
#    it still, since both requests share one dict of headers. So it fails, each time anew.
# 2. A download of one format is cut off, and the next call takes another format with the same
#    ending. The second is appended to the first, and the splice is called a success.
#
# Seen with Python 3.11, requests 2.34.2:
#   yt-dlp 2026.08.19: whole partial file: 416 twice, DownloadError; other format: success, spliced
# What to do: note the format beside the partial file, and delete it where the note says another,
# or after a 416.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check yt-dlp==2026.8.19 requests==2.34.2
cat > "$work/look.py" <<'P'
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from yt_dlp import YoutubeDL
from yt_dlp.utils import DownloadError
from yt_dlp.version import __version__

BODIES = {"/a.mp4": b"a" * 4000, "/b.mp4": b"b" * 4000}
ranges = []


class Host(BaseHTTPRequestHandler):
    def do_GET(self):
        whole, asked = BODIES[self.path], self.headers.get("Range")
        ranges.append(asked)
        start = int(asked[6:].rstrip("-")) if asked else 0
        if start >= len(whole):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        self.wfile.write(whole[start:])

    def log_message(self, *_):
        pass


class Quiet:
    debug = info = warning = error = staticmethod(lambda message: None)


server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
threading.Thread(target=server.serve_forever, daemon=True).start()


def download(folder, name):
    url = f"http://127.0.0.1:{server.server_port}/{name}.mp4"
    formats = [{"format_id": name, "ext": "mp4", "url": url}]
    info = {"id": "v", "title": "v", "extractor": "x", "extractor_key": "X", "formats": formats}
    with YoutubeDL({"outtmpl": f"{folder}/v.%(ext)s", "logger": Quiet, "noprogress": True}) as ydl:
        ydl.process_ie_result({**info, "webpage_url": "http://127.0.0.1/"}, download=True)


first, second = Path(sys.argv[1], "1"), Path(sys.argv[1], "2")
first.mkdir(), second.mkdir()
(first / "v.mp4.part").write_bytes(BODIES["/a.mp4"])
try:
    download(first, "a")
    said = "success"
except DownloadError:
    again = ranges == ["bytes=4000-"] * 2
    said = "416 twice, DownloadError" if again else f"DownloadError {ranges}"
# Format a, cut off in its middle; then format b.
(second / "v.mp4.part").write_bytes(BODIES["/a.mp4"][:2000])
download(second, "b")
spliced = (second / "v.mp4").read_bytes() == b"a" * 2000 + b"b" * 2000
other = "spliced" if spliced else "whole"
print(f"yt-dlp {__version__}: whole partial file: {said}; other format: success, {other}")
sys.exit(0 if said.startswith("416 twice") and spliced else 1)
P
"$work/venv/bin/python" "$work/look.py" "$work"
echo "as stated"
