"""How fast the report answers a click, at COIN's size: 11,827 points of 180 classes, four heads.

    python benchmarks/report_page.py [--out page.html]

Draws a dataset, writes its page, opens it in Chromium and measures from the click on a point to the
frame in which its panel is painted; likewise for another head and another colouring.
"""

from __future__ import annotations

import io
import shutil
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coinml.data.records import Dataset, Split, Video
from coinml.ledger import FileFacts, Ledger
from coinml.report.gathering import HeadView, ReportData
from coinml.report.page import write_report

VIDEOS, CLASSES, DIMS = 11_827, 180, 64
HEADS = ("mlp", "svm", "logreg", "knn")
STRIPS = 1000
CLICKS = 20

_SPLITS: tuple[Split, ...] = ("train", "train", "train", "val", "test")
_TIMED = """
async ([step, number]) => {
  const map = document.getElementById("map");
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const control = step === "click" ? map : document.querySelectorAll(step)[number];
  control.scrollIntoView();
  await painted();
  await painted();
  const begin = performance.now();
  const some = {customdata: Math.floor(Math.random() * points.length)};
  if (step === "click") map.emit("plotly_click", {points: [some]});
  else {
    control.selectedIndex = (control.selectedIndex + 1) % control.options.length;
    control.dispatchEvent(new Event("change"));
  }
  await painted();
  const first = performance.now() - begin;
  let longest = first;
  for (let turn = 0; turn < 8; turn += 1) {
    const since = performance.now();
    await painted();
    longest = Math.max(longest, performance.now() - since);
  }
  return [first, longest];
}
"""
_STEPS = {
    "click": ("click", 0),
    "colouring": ("#colour-by", 0),
    "head at the errors": ("select.head", 0),
    "head at the matrix": ("select.head", 1),
    "head at the map": ("select.head", 2),
}
NARROW_PX = 380


def drawn_data(folder: Path, *, videos: int = VIDEOS, classes: int = CLASSES) -> ReportData:
    """A dataset of this size with four heads and film strips, as `gather` would return it."""
    from PIL import Image

    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, videos)
    x = rng.normal(size=(classes, DIMS))[labels] + 0.8 * rng.normal(size=(videos, DIMS))
    listed = tuple(
        Video(
            video_id=f"v{place:010d}",
            label=f"Task{label:03d}",
            subset="testing" if _SPLITS[place % 5] == "test" else "training",
            split=_SPLITS[place % 5],
            domain=f"Domain {label // 15}",
        )
        for place, label in enumerate(labels.tolist())
    )
    dataset = Dataset(name="drawn", videos=listed)
    features = {f"e{at:04d}": x[:, at].astype(np.float32) for at in range(DIMS)}
    described = {
        "video_id": [one.video_id for one in listed],
        "label": [one.label for one in listed],
        "split": [one.split for one in listed],
    }
    table = pd.DataFrame(described | features)
    picture = Image.fromarray(rng.integers(0, 255, (9, 36, 3), dtype=np.uint8)).resize((288, 72))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=60)
    predictions = {}
    for version, _ in enumerate(HEADS, start=1):
        wrong = rng.random(videos) < 0.2
        answers = np.where(wrong, rng.integers(0, classes, videos), labels)
        predictions[version] = pd.DataFrame(described).assign(
            predicted=[f"Task{one:03d}" for one in answers],
            score=np.where(wrong, rng.uniform(0.2, 0.9, videos), rng.uniform(0.4, 1, videos)),
        )
    with Ledger(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        ledger.register(dataset)
        first = FileFacts(path="/v.mp4", size_bytes=1, sha256="a", title="a title")
        ledger.record_success("drawn", listed[0].video_id, file=first, attempt=None)
        status = ledger.status("drawn")
        rows = {row.video_id: row for row in ledger.rows("drawn")}
    metrics = {"test_accuracy": 0.8, "test_accuracy_low": 0.78, "test_accuracy_high": 0.82}
    heads = [
        HeadView(
            version=version,
            aliases=["champion"] * (version == 1),
            name=name,
            run_id=f"run{version}",
            metrics=metrics,
            params={},
            tags={},
            history=pd.DataFrame(),
        )
        for version, name in enumerate(HEADS, start=1)
    ]
    return ReportData(
        dataset=dataset,
        model="drawn-task",
        made_at=datetime.now(UTC),
        status=status,
        ledger_digest="",
        heads=heads,
        predictions=predictions,
        comparison=None,
        domains={one.label: str(one.domain) for one in listed},
        spec=None,
        table=table,
        videos=rows,
        links={},
        missing=[],
        strips={one.video_id: content.getvalue() for one in listed[:STRIPS]},
    )


def measure(page_file: Path) -> dict[str, Any]:
    """Milliseconds of each kind of answer, what the console said, and the width on a phone.

    Of each answer: until what is in view is painted, and the longest that anything took until all
    of the page had changed.
    """
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda err: said.append(str(err)))
        page.set_default_timeout(300_000)
        page.goto(page_file.as_uri())
        page.wait_for_selector("#map .plotly, #map canvas")
        times = {
            name: [page.evaluate(_TIMED, list(step)) for _ in range(CLICKS)]
            for name, step in _STEPS.items()
        }
        page.set_viewport_size({"width": NARROW_PX, "height": 800})
        page.reload()
        page.wait_for_selector("#map .plotly, #map canvas")
        width = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    return {"times": times, "errors": said, "width": width}


def main() -> None:
    """Write the page and print how fast it answers."""
    out = Path(sys.argv[sys.argv.index("--out") + 1]) if "--out" in sys.argv else None
    with tempfile.TemporaryDirectory() as folder:
        data = drawn_data(Path(folder))
        place = out or Path(folder) / "page.html"
        page = write_report(data, place, projections=("pca",), replace=True)
        print(f"{VIDEOS:,} points, {CLASSES} classes: {page.stat().st_size / 1e6:.1f} MB")
        found = measure(page.resolve())
    for name, times in found["times"].items():
        first, longest = zip(*times, strict=True)
        print(
            f"{name:>20}: median {statistics.median(first):6.1f} ms, most {max(first):6.1f} ms; "
            f"longest wait afterwards {max(longest):6.1f} ms"
        )
    print(f"width on a screen of {NARROW_PX} px: {found['width']} px")
    print(f"console errors: {len(found['errors'])} {found['errors'][:3]}")


if __name__ == "__main__":
    main()
