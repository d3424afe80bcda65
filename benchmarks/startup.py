"""How long `coinml --help` and `coinml status` take beyond Python's own start.

Prints the three and the two differences; the ledger holds COIN's 11,827 videos.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from coinml.data.records import Dataset, Video
from coinml.ledger import Ledger

REPEATS = 7
VIDEOS, CLASSES = 11_827, 180
COMMAND = str(Path(sys.executable).parent / "coinml")


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        fill_ledger(Path(home))
        environment = os.environ | {"COINML_HOME": home}
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "coinml --help": [COMMAND, "--help"],
            "coinml status": [COMMAND, "status"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        # In turn, so that a slow moment of the machine falls on all of them.
        for _ in range(REPEATS):
            for name, command in commands.items():
                begun = time.perf_counter()
                subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = medians["python -c pass"]
    for name, median in medians.items():
        beyond = (
            f"{median - base:+.2f} s, {median / base:.0f} x" if name != "python -c pass" else ""
        )
        print(f"{name:<16} {median:.2f} s  {beyond}")


def fill_ledger(home: Path) -> None:
    videos = tuple(
        Video(
            video_id=f"{number:011d}",
            label=f"class{number % CLASSES:03d}",
            subset="testing" if number % 4 == 0 else "training",
            split="test" if number % 4 == 0 else "train",
        )
        for number in range(VIDEOS)
    )
    (home / "data").mkdir()
    with Ledger(f"sqlite:///{home / 'data' / 'ledger.db'}") as ledger:
        ledger.register(Dataset(name="coin", videos=videos))


if __name__ == "__main__":
    main()
