"""What a decoding process can reach: its open file and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from coinml import media
from coinml.media.worker_messages import receive, send
from tests.helpers.drawn_videos import draw

# What a decoder that has been taken over could try; each line is refused by the kernel.
ATTEMPTS = """
import ctypes, json, os, signal, socket, sys, threading
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
import resource, subprocess
from coinml.runtime.confinement import confine
victim, open_file, port, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
folder = Path(victim).parent
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stream = socket.socket()
layers = confine()
def fork():
    if os.fork() == 0:
        os._exit(0)
attempts = {
    "read": lambda: open(victim).read(),
    "read through /proc": lambda: open(f"/proc/self/fd/{open_file}").read(),
    "environment of the parent": lambda: open(f"/proc/{parent}/environ").read(),
    "write": lambda: open(folder / "new", "w"),
    "list": lambda: os.listdir(folder),
    "truncate": lambda: os.truncate(victim, 0),
    "remove": lambda: os.unlink(victim),
    "rename": lambda: os.rename(victim, victim + "2"),
    "make a folder": lambda: os.mkdir(folder / "d"),
    "link": lambda: os.link(victim, folder / "l"),
    "mode": lambda: os.chmod(victim, 0o777),
    "TCP": lambda: socket.socket().connect(("127.0.0.1", port)),
    "TCP with an earlier socket": lambda: stream.connect(("127.0.0.1", port)),
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "local socket": lambda: socket.socket(socket.AF_UNIX),
    "program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "process": fork,
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
    "signal": lambda: os.kill(parent, 0),
    "limits of the parent": lambda: resource.prlimit(parent, resource.RLIMIT_CORE, (0, 0)),
}
found = {}
for name, attempt in attempts.items():
    try:
        attempt()
    except PermissionError:
        found[name] = "refused"
    except OSError as err:
        found[name] = repr(err)
    else:
        found[name] = "done"
allowed = {"the open file": os.pread(open_file, 4, 0).decode()}
thread = threading.Thread(target=lambda: allowed.setdefault("threads", True))
thread.start(); thread.join()
os.close(os.memfd_create("pixels"))
resource.setrlimit(resource.RLIMIT_CPU, (1000, -1))
print(json.dumps({"layers": layers, "found": found, "allowed": allowed}))
"""


def test_a_confined_process_reaches_nothing(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "victim").open() as file:
        port = server.getsockname()[1]
        run = subprocess.run(
            [
                *(sys.executable, "-P", "-c", ATTEMPTS, str(tmp_path / "victim")),
                *(str(file.fileno()), str(port), str(os.getpid())),
            ],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    said = json.loads(run.stdout)
    if len(said["layers"]) < 2:
        pytest.skip(f"this kernel has {said['layers']}")
    assert said["layers"][-1] == "seccomp"
    assert len(said["found"]) == 20
    assert set(said["found"].values()) == {"refused"}, said["found"]
    assert said["allowed"] == {"the open file": "secr", "threads": True}
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert (tmp_path / "victim").read_text() == "secret"


@pytest.mark.parametrize("layer", ["_landlock", "_seccomp"])
def test_each_layer_alone_keeps_files_closed(layer: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("secret")
    code = (
        "import ctypes, sys\nfrom coinml.runtime import confinement\n"
        "libc = ctypes.CDLL(None, use_errno=True)\nlibc.prctl(38, 1, 0, 0, 0)\n"
        f"there = confinement.{layer}(libc)\n"
        "try:\n    open(sys.argv[1]).read()\nexcept PermissionError:\n    print(1)\n"
        "else:\n    print(0 if there else -1)\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path / "victim")],
        capture_output=True,
        text=True,
        check=True,
    )
    if run.stdout.strip() == "-1":
        pytest.skip(f"this kernel has no {layer}")
    assert run.stdout.strip() == "1"


@pytest.fixture
def good(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path / "good.mp4")


def test_a_worker_has_its_socket_and_no_secret(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "COINML_PROXY": "http://user:hunter2@proxy:1",
        "https_proxy": "http://user:hunter2@proxy:1",
        "COINML_LEDGER_URL": "postgresql://user:hunter2@host/db",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "HF_TOKEN": "hunter2",
        "MLFLOW_TRACKING_PASSWORD": "hunter2",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with media.DecodePool() as pool:
        assert pool.check(good).verdict == "ok"
        (pid,) = pool.pids
        environment = psutil.Process(pid).environ()
        opened = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
        status = Path(f"/proc/{pid}/status").read_text()
        limits = Path(f"/proc/{pid}/limits").read_text()
    assert "hunter2" not in str(environment)
    assert not set(secrets) & set(environment)
    assert {name.split(":")[0] for name in opened} == {"/dev/null", "socket"}
    assert "NoNewPrivs:\t1" in status
    rows = {row[:25].strip(): row[25:].split()[:2] for row in limits.splitlines()[1:]}
    for name in ("Max address space", "Max file size"):
        assert rows[name] == [str(8 << 30)] * 2
    assert rows["Max open files"] == ["64", "64"]
    assert rows["Max core file size"] == ["0", "0"]


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord"])
def test_clips_from_a_confined_worker_equal_those_of_this_process(
    decoder: str, tmp_path: Path
) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    spec = media.ClipSpec(clips=2, frames=4, stride=2)
    with media.DecodePool() as pool:
        for codec, ending in (("libx264", "mp4"), ("mpeg4", "avi"), ("libvpx-vp9", "webm")):
            path = draw(tmp_path / f"a.{ending}", codec, numbers=range(60))
            here = media.sample(path, spec, decoder=decoder)
            there = pool.submit_sample(path, spec, decoder=decoder).result()
            assert there.decoder == here.decoder
            np.testing.assert_array_equal(there.frames, here.frames)
            np.testing.assert_array_equal(there.timestamps_s, here.timestamps_s)


def test_a_worker_loads_decord_only_if_asked_to(good: Path) -> None:
    pytest.importorskip("decord")
    loaded = {}
    with media.DecodePool() as pool:
        for decoder in ("auto", "decord", "auto"):
            clips = pool.submit_sample(good, media.ClipSpec(clips=1), decoder=decoder).result()
            maps = Path(f"/proc/{pool.pids[0]}/maps").read_text()
            loaded[decoder] = (clips.decoder, "decord" in maps)
    assert loaded == {"auto": ("pyav", False), "decord": ("decord", True)}


@pytest.mark.parametrize("ending", ["m3u8", "ffconcat", "mp4", "mkv", "sdp", "mpd"])
@pytest.mark.parametrize("in_worker", [True, False])
def test_a_file_that_names_another_opens_nothing(
    ending: str, in_worker: bool, good: Path, tmp_path: Path
) -> None:
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{good}\n#EXT-X-ENDLIST\n",
        "hls of descriptors": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfd:\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{good}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    }
    with media.DecodePool() as pool:
        for text in texts.values():
            path = tmp_path / f"list.{ending}"
            path.write_text(text)
            verdict = pool.check(path) if in_worker else media.check(path, deadline_s=None)
            assert verdict.verdict == "unusable"


def test_a_file_that_takes_too_much_cpu_time_ends_the_worker(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    path = media.write_video(tmp_path / "long.mp4", [noise] * 400, preset="ultrafast", gop=1)
    ours, theirs = socket.socketpair()
    # The pool's own deadline would come first.
    worker = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "coinml.media.decode_worker"),
            *(str(theirs.fileno()), "0", "pyav"),
        ],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    request = {"kind": "check", "path": "long.mp4", "given_back": []}
    with ours, path.open("rb") as file:
        ours.settimeout(60)
        receive(ours)
        # Negative: it has used that much CPU time already.
        send(ours, {**request, "deadline_s": -1.9}, file.fileno())
        with pytest.raises(EOFError):
            receive(ours)
    assert worker.wait(60) == -signal.SIGXCPU
