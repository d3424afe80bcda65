"""Collecting all of COIN from loopback: coinml compared with yt-dlp and a download archive.

Both sides collect the same list from the same flaky host (5 % gone, 5 % failing once or twice, a
short and a long refusal of all requests), with equally many concurrent downloads and runs. The
exit code is 1 if a claim does not hold. `--videos N` takes the first N ids, for a quick run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

DATASET = "coin"
LONG_PAUSE_S, MAX_WAIT_S = 12.0, 4.0
BATCH = 20
SHARED = Path(os.environ.get("COINML_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
INDEX = SHARED / "coin" / "index_11827.csv"
BIN = Path(sys.executable).parent


def main() -> int:
    options = _options()
    if options.side:
        return collect_here(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = video_ids(options.videos)
        serve_from(folder / "served", ids)
        plan = make_plan(ids)
        (folder / "plan.json").write_text(json.dumps(plan))
        print(f"{len(ids):,} videos, {options.parallel} at once", flush=True)
        ours = run_coinml(folder, ids, options)
        holds = claims(ids, plan, ours)
        theirs = run_ytdlp(folder, ids, runs=int(ours["runs"]), options=options)
        compare(ids, plan, ours, theirs)
        return 0 if holds else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=11_827, help="the first N ids (default: all)")
    parser.add_argument("--parallel", type=int, default=8, help="videos at once, on both sides")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def video_ids(count: int) -> list[str]:
    """COIN's ids, or generated ones if the list is missing."""
    if not INDEX.is_file():
        print(f"{INDEX} is missing: using generated ids")
        return [f"{number:011d}" for number in range(count)]
    with INDEX.open(newline="") as file:
        return [row["video_id"] for row in csv.DictReader(file)][:count]


def serve_from(folder: Path, ids: Sequence[str]) -> None:
    """Serve one small video under every id."""
    from coinml.media import write_video

    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (10, 48, 64, 3), dtype=np.uint8)
    first = folder / f"{ids[0]}.mp4"
    write_video(first, iter(frames), fps=25)
    for video_id in ids[1:]:
        os.link(first, folder / f"{video_id}.mp4")


def make_plan(ids: Sequence[str]) -> dict[str, Any]:
    """The same faults in every run; an available video takes two requests."""
    rng = random.Random(0)
    unlucky = rng.sample(list(ids), len(ids) // 10)
    gone, flaky = unlucky[::2], unlucky[1::2]
    passing = (["503", "ok"], ["ok", "reset", "ok"], ["503", "500", "ok"], ["ok", "short", "ok"])
    videos = {one: rng.choice((["404"], ["410"])) for one in gone}
    videos |= {one: list(rng.choice(passing)) for one in flaky}
    return {
        "videos": videos,
        "source": [
            {"after_requests": len(ids) // 2, "retry_after_s": 1.5, "times": 4},
            {
                "after_requests": len(ids),
                "retry_after_s": LONG_PAUSE_S,
                "times": None,
                "for_s": LONG_PAUSE_S,
            },
        ],
    }


@contextmanager
def host_of(folder: Path) -> Iterator[str]:
    """The host in its own process, so that its CPU time counts for neither side."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "coinml.miniature.host",
            str(folder / "served"),
            "--plan",
            str(folder / "plan.json"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def requests_of(source: str) -> list[tuple[str, str]]:
    with urllib.request.urlopen(source.replace("{id}.mp4", "_log/full")) as answer:
        return [(video_id, said) for video_id, said in json.load(answer)]


def run_coinml(folder: Path, ids: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Collect until nothing is due, each run in its own process."""
    from coinml.data.records import Dataset, Video
    from coinml.ledger import Ledger

    url = f"sqlite:///{folder / 'ledger.db'}"
    videos = tuple(
        Video(video_id=one, label=f"class{number % 180:03d}", subset="training", split="train")
        for number, one in enumerate(ids)
    )
    with Ledger(url) as ledger:
        ledger.register(Dataset(name=DATASET, videos=videos))
    found: dict[str, Any] = {
        "runs": 0,
        "cpu_beyond_s": 0.0,
        "decode_s": 0.0,
        "ytdlp_s": 0.0,
        "memory_mb": 0.0,
    }
    with host_of(folder) as source:
        begun = time.perf_counter()
        blocked_until = None
        while found["runs"] == 0 or blocked_until is not None:
            time.sleep(max(0.0, (blocked_until or 0.0) - time.time()))
            command = [
                sys.executable,
                __file__,
                "--parallel",
                str(options.parallel),
                "--side",
                url,
                source,
                str(folder / "ours"),
                f"run{found['runs']}",
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout)
            blocked_until = result.pop("blocked_until")
            found["memory_mb"] = max(found["memory_mb"], result.pop("memory_mb"))
            for key, value in result.items():
                found[key] += value
            found["runs"] += 1
        found["seconds"] = time.perf_counter() - begun
        found["requests"] = requests_of(source)
    with Ledger(url) as ledger:
        rows = ledger.rows(DATASET)
        found["attempts"] = {row.video_id: row.attempts for row in rows}
    found["got"] = {row.video_id for row in rows if row.state == "downloaded"}
    found["status_s"] = status_seconds(url, folder)
    return found


def collect_here(options: argparse.Namespace) -> int:
    """One run of the library's collector, as in the flow; prints its time and memory."""
    from coinml.collection import batch, collector
    from coinml.collection.collector import SourcePausedError
    from coinml.ledger import Ledger

    url, source, folder, run_id = options.side
    fetching = 0.0
    lock = threading.Lock()
    fetch = batch.fetch

    def timed(*arguments: Any, **keywords: Any) -> Any:
        nonlocal fetching
        begun = time.thread_time()
        try:
            return fetch(*arguments, **keywords)
        finally:
            with lock:
                fetching += time.thread_time() - begun

    batch.fetch = timed  # type: ignore[attr-defined]
    begun = time.process_time()
    blocked: list[float] = []

    def one_batch(ids: Sequence[str]) -> None:
        try:
            collector.collect(
                url,
                DATASET,
                ids,
                source=source,
                folder=folder,
                run_id=run_id,
                max_wait_s=MAX_WAIT_S,
            )
        except SourcePausedError as err:
            if err.blocked_until is not None:
                blocked.append(err.blocked_until.timestamp())

    due = Ledger.shared(url).due(DATASET)
    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(one_batch, [due[at : at + BATCH] for at in range(0, len(due), BATCH)]))
    own = time.process_time() - begun
    # The decoding processes are counted when they have ended.
    from coinml.collection import video_folder

    for decoders in video_folder._pools.values():
        decoders.close()
    used, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "blocked_until": max(blocked, default=None),
                "cpu_beyond_s": own - fetching,
                "ytdlp_s": fetching,
                "decode_s": children.ru_utime + children.ru_stime,
                "memory_mb": (used.ru_maxrss + children.ru_maxrss) / 1024,
            }
        )
    )
    return 0


def status_seconds(url: str, home: Path) -> float:
    """Seconds of `coinml status` without Python's own start; the best of five."""
    environment = os.environ | {"COINML_LEDGER_URL": url, "COINML_HOME": str(home)}
    best = {}
    for name, command in (
        ("python", [sys.executable, "-c", "pass"]),
        ("status", [str(BIN / "coinml"), "status"]),
    ):
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begun)
        best[name] = min(times)
    return best["status"] - best["python"]


def run_ytdlp(
    folder: Path, ids: Sequence[str], *, runs: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Collect the same list with equally many yt-dlp processes, each with an archive, and runs."""
    target = folder / "theirs"
    with host_of(folder) as source:
        begun = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(runs):
            processes = []
            for part in range(options.parallel):
                urls = folder / f"urls{part}.txt"
                urls.write_text(
                    "".join(
                        source.replace("{id}", one) + "\n" for one in ids[part :: options.parallel]
                    )
                )
                command = [
                    str(BIN / "yt-dlp"),
                    "--ignore-config",
                    "--quiet",
                    "--no-warnings",
                    "--no-progress",
                    "--ignore-errors",
                    "--no-cache-dir",
                    "--batch-file",
                    str(urls),
                    "--download-archive",
                    str(folder / f"done{part}"),
                    "--output",
                    str(target / "%(id)s.%(ext)s"),
                ]
                processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            for process in processes:
                process.wait()
        seconds = time.perf_counter() - begun
        requests = requests_of(source)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    got = {path.stem for path in target.glob("*.mp4")}
    return {"runs": runs, "seconds": seconds, "requests": requests, "got": got, "cpu_s": cpu}


def dead_in(plan: dict[str, Any]) -> set[str]:
    return {one for one, answers in plan["videos"].items() if answers[-1] != "ok"}


def asked_in(side: dict[str, Any]) -> Counter[str]:
    """Number of requests per video, without those that the source refused."""
    return Counter(one for one, said in side["requests"] if not said.startswith("source"))


def claims(ids: Sequence[str], plan: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Print the claims about coinml at this size and whether each holds."""
    dead, asked = dead_in(plan), asked_in(ours)
    live = set(ids) - dead
    # An "ok" first means that the second request of the attempt fails.
    failures = {one: sum(said != "ok" for said in plan["videos"].get(one, ())) for one in live}
    blamed = [one for one in live if ours["attempts"][one] > 1 + failures[one]]
    per_video = 1000 / len(ids)
    beyond = ours["cpu_beyond_s"] * per_video
    print(
        f"coinml: {ours['seconds']:.0f} s in {ours['runs']} runs; CPU a video: {beyond:.2f} ms "
        f"beyond yt-dlp ({ours['ytdlp_s'] * per_video:.1f} ms) and the verifying decode "
        f"({ours['decode_s'] * per_video:.1f} ms, in processes of its own)"
    )
    found = {
        "every live video is downloaded": ours["got"] == live,
        "every dead one was asked for exactly once": all(asked[one] == 1 for one in dead),
        "the refusals cost no video an attempt": not blamed,
        f"at most 5 ms a video beyond ({beyond:.2f})": beyond <= 5,
        f"at most 600 MB, a decoder included ({ours['memory_mb']:.0f})": ours["memory_mb"] <= 600,
        f"status within 1 s of Python's start ({ours['status_s']:.2f})": ours["status_s"] <= 1,
    }
    for claim, holds in found.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}", flush=True)
    return all(found.values())


def compare(
    ids: Sequence[str], plan: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Print the results of both sides next to each other."""
    dead = dead_in(plan)
    live = set(ids) - dead
    ours["cpu_s"] = ours["ytdlp_s"] + ours["decode_s"] + ours["cpu_beyond_s"]
    columns = []
    for side in (ours, theirs):
        asked = asked_in(side)
        columns.append(
            [
                side["runs"],
                f"{side['seconds']:.0f}",
                f"{side['cpu_s']:.0f}",
                f"{len(side['got'] & live):,} of {len(live):,}",
                f"{sum(asked[one] for one in dead) / max(1, len(dead)):.2f}",
                len(side["requests"]) - asked.total(),
            ]
        )
    names = (
        "runs",
        "seconds",
        "CPU seconds",
        "live videos got",
        "times a dead one was asked for",
        "refusals (429)",
    )
    print(f"\n{'':<32}{'coinml':>18}{'yt-dlp':>18}")
    for name, left, right in zip(names, *columns, strict=True):
        print(f"{name:<32}{left!s:>18}{right!s:>18}")
    print(f"ratio of the times: {ours['seconds'] / theirs['seconds']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
