"""Start-up time of `coinml --help` and `coinml status`, compared with Python's own.

The ledger contains COIN's 11,827 videos. With `--beside CHECKOUT`, another checkout (a worktree of
an earlier commit) is measured in turn, and the ratios of the times beyond Python's own are
printed; `--beside-module` names its module of the command.
"""

from __future__ import annotations

import argparse
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
BASE = "python -c pass"
HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT")
    parser.add_argument("--beside-module", default="coinml_cli", metavar="MODULE")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    sides = {"": (HERE, "coinml_cli")}
    if options.beside:
        sides[f" in {options.beside.name}"] = (options.beside.resolve(), options.beside_module)
    with tempfile.TemporaryDirectory() as home:
        fill_ledger(Path(home))
        medians = measure(sides, home=home, repeats=options.repeats)
    base = medians[BASE]
    for name, median in medians.items():
        beyond = f"{median - base:+.2f} s, {median / base:.0f} x" if name != BASE else ""
        print(f"{name:<32} {median:.2f} s  {beyond}")
    for other in list(sides)[1:]:
        for call in ("--help", "status"):
            ours, theirs = medians[f"coinml {call}"] - base, medians[f"coinml {call}{other}"] - base
            print(f"coinml {call}: {ours / theirs:.2f} x the time{other}, beyond Python's own")


def measure(sides: dict[str, tuple[Path, str]], *, home: str, repeats: int) -> dict[str, float]:
    """Median seconds of each command, by its name."""
    commands = {BASE: ([sys.executable, "-c", "pass"], HERE)} | {
        f"coinml {call}{name}": ([sys.executable, "-P", "-m", module, call], checkout)
        for name, (checkout, module) in sides.items()
        for call in ("--help", "status")
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    # The first round, which writes byte code, is not counted. The commands take turns, so that a
    # slow phase of the machine affects all of them.
    for round_ in range(repeats + 1):
        for name, (command, checkout) in commands.items():
            environment = os.environ | {"COINML_HOME": home, "PYTHONPATH": str(checkout)}
            begun = time.perf_counter()
            subprocess.run(
                command, check=True, env=environment, cwd=home, stdout=subprocess.DEVNULL
            )
            if round_:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


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
