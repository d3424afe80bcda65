from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coinml.data.records import Dataset, Split, Video
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError
from coinml.evaluation.paired import compare
from coinml.ledger import DOWNLOADED, FileFacts, Ledger
from coinml.report import check_report
from coinml.report.charts import confusion
from coinml.report.gathering import HeadView, ReportData, gather
from coinml.report.mapping import embedding_map
from coinml.report.page import render, safe_link, write_report
from coinml.runtime.settings import YOUTUBE
from coinml.tracking.compare_runs import RunComparison
from coinml.tracking.mlflow_store import MlflowStore

HOSTILE = "</script><script>alert(1)</script> & \u2028 <b>eggs</b>"
SPLITS: tuple[Split, ...] = ("train", "train", "val", "test")


def some_videos(classes: int = 4, each: int = 8) -> Dataset:
    videos = tuple(
        Video(
            video_id=f"c{label:03d}v{number:06d}",
            label=f"Task{label:03d}",
            subset="testing" if SPLITS[number % 4] == "test" else "training",
            split=SPLITS[number % 4],
            domain=f"Domain {label // 15}",
        )
        for label in range(classes)
        for number in range(each)
    )
    return Dataset(name="toy", videos=videos)


def a_ledger(path: Path, dataset: Dataset, title: str | None = None) -> Ledger:
    ledger = Ledger(f"sqlite:///{path / 'ledger.db'}")
    ledger.register(dataset)
    for number, video in enumerate(dataset.videos[1:]):
        facts = FileFacts(
            path=f"/videos/{video.video_id}.mp4", size_bytes=1, sha256=f"{number:064d}", title=title
        )
        ledger.record_success(dataset.name, video.video_id, file=facts, attempt=None)
    return ledger


@pytest.fixture
def report_data(tmp_path: Path) -> ReportData:
    """A collection with a head, and with untrusted titles."""
    dataset = some_videos()
    rng = np.random.default_rng(0)
    labels = [video.label for video in dataset.videos]
    centres = {label: rng.normal(size=16) for label in set(labels)}
    x = np.stack([centres[label] + 0.3 * rng.normal(size=16) for label in labels])
    table = pd.DataFrame(
        {
            "video_id": [video.video_id for video in dataset.videos],
            "label": labels,
            "split": [video.split for video in dataset.videos],
        }
        | {f"e{d:04d}": x[:, d].astype(np.float32) for d in range(16)}
    )
    predictions = table[["video_id", "split", "label"]].assign(score=0.5)
    predictions["predicted"] = labels[-8:] + labels[:-8]
    right = predictions.assign(predicted=predictions["label"])
    names = ("accuracy", "accuracy_missing_wrong", "f1_macro", "top5_accuracy")
    metrics = {
        f"test_{name}{end}": value
        for name in names
        for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))
    }
    history = pd.DataFrame({"step": [1, 2, 3], "val_loss": [3.0, 2.0, 2.0]})
    heads = [
        HeadView(
            version=version,
            aliases=aliases,
            name=name,
            run_id=f"run{version}",
            metrics=metrics | {"test_majority_rate": 0.25, "test_coverage": 0.97},
            params={"best_epoch": "2"},
            tags={"gate_reason": "because"},
            history=history,
        )
        for version, name, aliases in ((2, "mlp", ["champion"]), (1, "svm", []))
    ]
    test = predictions["split"] == "test"
    spec = EncoderSpec(
        encoder="tiny",
        architecture="videomae",
        weights_sha256="0" * 64,
        resize=80,
        crop=(80, 80),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        dim=16,
    )
    with a_ledger(tmp_path, dataset, HOSTILE) as ledger:
        rows = {row.video_id: row for row in ledger.rows("toy")}
        status = ledger.status("toy")
    return ReportData(
        dataset=dataset,
        model="toy-task",
        made_at=datetime.now(UTC),
        status=status,
        ledger_digest="abc",
        heads=heads,
        predictions={2: predictions, 1: right},
        comparison=RunComparison(
            run_a="run2",
            run_b="run1",
            head_a="mlp",
            head_b="svm",
            split="test",
            result=compare(predictions[test], right[test]),
        ),
        domains={video.label: str(video.domain) for video in dataset.videos},
        spec=SetSpec(encoder=spec, dataset="toy"),
        table=table,
        videos=rows,
        links={video_id: "https://www.youtube.com/watch?v=" + video_id for video_id in rows},
        missing=[],
    )


def points_of(page: str) -> list[dict[str, object]]:
    found = re.search(r"^const points = (.*);$", page, re.MULTILINE)
    assert found is not None
    points = json.loads(found[1])
    assert isinstance(points, list)
    return points


def test_the_page_has_every_section_and_loads_nothing(report_data: ReportData) -> None:
    page = render(report_data)
    for name in ("coverage", "lost", "measured", "curves-2", "curves-1", "confusion", "map"):
        assert ('id="' + name + '"' in page) == (name != "lost"), name
    assert "default-src 'none'" in page
    ours = page.replace(page[page.index("<script>") : page.index("</script>")], "")
    assert not re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=", ours)
    points = points_of(page)
    assert len(points) == len(report_data.dataset.videos)
    assert all(len(point["near"]) == 5 for point in points)  # type: ignore[arg-type]
    assert points[3]["link"] == "https://www.youtube.com/watch?v=c000v000003"
    assert str(report_data.comparison) in page.replace("&gt;", ">").replace("&#39;", "'")


def test_a_title_with_html_is_escaped(report_data: ReportData) -> None:
    page = render(report_data)
    assert HOSTILE not in page
    assert "<b>eggs" not in page
    assert "alert(1)</script>" not in page
    assert points_of(page)[3]["title"] == HOSTILE


def test_names_are_text_in_charts() -> None:
    names = ["cut <b>&\"'`</b>", "turned \u202egpj.exe", "US$ to EU$", "煮鸡蛋"]
    predictions = pd.DataFrame({"label": names, "predicted": names[::-1]})
    figure = confusion(predictions, dict.fromkeys(names, "<i>domain"))
    assert set(figure.data[0].x) == {
        "cut &lt;b&gt;&amp;&quot;&#x27;`&lt;/b&gt;",
        r"turned \u202egpj.exe",
        "US$ to EU$",
        "煮鸡蛋",
    }
    assert list(figure.data[0].x) == list(figure.data[0].y)


def test_control_characters_are_shown_and_not_obeyed(report_data: ReportData) -> None:
    page = render(replace(report_data, missing=["no head of \x1b[31m\u202ex <i>"]))
    assert r"no head of \x1b[31m\u202ex &lt;i&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "", "//host/x"])
def test_a_script_link_is_dropped(link: str) -> None:
    assert safe_link(link) == ""
    assert safe_link("https://example.org/a") == "https://example.org/a"


def test_a_page_replaces_the_last_one_only_when_it_is_complete(
    report_data: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "pages" / "report.html"
    target.parent.mkdir()
    write_report(report_data, target, projections=("pca",))
    before = target.read_text()

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(Exception, match="No space left"):
        write_report(
            replace(report_data, missing=["the map"]), target, projections=("pca",), replace=True
        )
    assert target.read_text() == before
    assert [one.name for one in target.parent.iterdir()] == ["report.html"]


def test_without_heads_and_sets_the_page_says_what_is_missing(
    tmp_path: Path, new_store: Callable[[Path], MlflowStore]
) -> None:
    dataset = some_videos()
    with a_ledger(tmp_path, dataset) as ledger:
        found = gather(
            dataset,
            store=new_store(tmp_path),
            ledger=ledger,
            embeddings_root=str(tmp_path / "sets"),
        )
    assert found.status.downloaded == 31
    assert len(found.missing) == 2
    assert found.links["c000v000001"] == YOUTUBE.replace("{id}", "c000v000001")
    page = render(found)
    assert "train first" in page
    assert "embed first" in page
    assert 'id="coverage"' in page
    assert 'id="map"' not in page


def test_videos_are_linked_where_they_came_from(
    tmp_path: Path, new_store: Callable[[Path], MlflowStore]
) -> None:
    dataset = some_videos()
    one, two, three = "c000v000001", "c000v000002", "c000v000003"
    places = {
        one: ("archive.example", f"https://archive.example/{one}.mp4"),
        two: ("/copies", f"/copies/{two}.mp4"),
    }
    with a_ledger(tmp_path, dataset) as ledger:
        for video_id, (source, url) in places.items():
            facts = FileFacts(path=f"/{video_id}", size_bytes=1, sha256="", source=source, url=url)
            ledger.record_success("toy", video_id, file=facts, attempt=None)
        found = gather(
            dataset, store=new_store(tmp_path), ledger=ledger, embeddings_root=str(tmp_path)
        )
    assert found.links[one] == places[one][1]
    assert [found.links[other] for other in (two, three)] == [
        YOUTUBE.replace("{id}", other) for other in (two, three)
    ]
    page = render(found)
    assert "They came from archive.example (1), /copies (1)." in page


def test_local_files_are_linked_by_path(
    tmp_path: Path, new_store: Callable[[Path], MlflowStore]
) -> None:
    dataset = some_videos()
    with a_ledger(tmp_path, dataset) as ledger:
        found = gather(
            dataset,
            store=new_store(tmp_path),
            ledger=ledger,
            embeddings_root=str(tmp_path),
            source=None,
        )
        assert ledger.row("toy", "c000v000000").state != DOWNLOADED
    assert found.links["c000v000001"] == "file:///videos/c000v000001.mp4"
    assert found.links["c000v000000"] == ""


def test_what_no_page_can_be_made_of_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is a folder; name a file in it, as"):
        check_report(tmp_path)
    with pytest.raises(InvalidInputError, match="projection umap: pca, lda, tsne are allowed"):
        check_report(tmp_path / "new.html", projections=("pca", "umap"))
    check_report(tmp_path / "new.html")


def test_each_projection_separates_separable_classes() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(4), 20)
    x = (10 * rng.normal(size=(4, 32))[y] + rng.normal(size=(80, 32))).astype(np.float32)
    found = embedding_map(x, y, np.arange(80) % 4 != 0)
    assert list(found.places) == ["pca", "lda", "tsne"]
    assert found.left_out == {}
    assert all((y[found.neighbours[row]] == y[row]).all() for row in range(80))
    assert all(row not in found.neighbours[row] for row in range(80))
    for name, places in found.places.items():
        distances = np.linalg.norm(places[:, None] - places[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (y[distances.argmin(axis=1)] == y).mean() > 0.9, name


def test_lda_needs_three_classes() -> None:
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    found = embedding_map(x, np.arange(20) % 2, np.ones(20, dtype=bool))
    assert "three classes with training videos" in found.left_out["lda"]
    assert "lda" not in found.places


def test_with_180_classes_the_axes_show_domains() -> None:
    dataset = some_videos(classes=180, each=1)
    labels = [video.label for video in dataset.videos]
    predictions = pd.DataFrame({"label": labels, "predicted": labels[::-1]})
    domains = {video.label: str(video.domain) for video in dataset.videos}
    figure = confusion(predictions, domains)
    assert len(figure.layout.xaxis.ticktext) == 12
    assert "Task000 as Task179" in figure.data[0].text[0]
    assert np.asarray(figure.data[0].z).sum() == 180
