"""Rendering the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from coinml.embedding_sets.table import feature_columns
from coinml.report import charts
from coinml.report.gathering import ReportData
from coinml.report.mapping import PROJECTIONS, EmbeddingMap, check_projections, embedding_map
from coinml.report.view import page_points, page_view
from coinml.runtime.addresses import parts_of
from coinml.runtime.escaping import printable
from coinml.runtime.out_files import check_out_file, out_file

ENDINGS = (".html", ".htm")

AUDITS = {
    "suspects": "Labels that are probably wrong",
    "outliers": "Videos that look like no other",
    "duplicates": "Videos that are the same file or look the same",
    "stills": "Videos in which nothing moves or is seen",
}


def check_report(
    path: Path, *, projections: Sequence[str] = PROJECTIONS, replace: bool = False
) -> None:
    """Require that a page can be made, before its pictures are; see `write_report`.

    Raises:
        InvalidInputError: As `check_out_file`, or a projection is unknown.
        LocalError: The file cannot be written.
    """
    check_projections(projections)
    check_out_file(path, endings=ENDINGS, replace=replace)


def write_report(
    data: ReportData,
    path: Path,
    *,
    projections: Sequence[str] = PROJECTIONS,
    seed: int = 0,
    tick: Callable[[], None] | None = None,
    replace: bool = False,
) -> Path:
    """Write the page as one HTML file that needs no other file and no network.

    Args:
        data: As `gathering.gather` returns it.
        path: The file.
        projections: Some of `pca`, `lda` and `tsne`; the first is shown first.
        seed: Seed of t-SNE.
        tick: Called after each part of the page.
        replace: Whether an existing file is replaced, when the new page is complete.

    Raises:
        InvalidInputError: As `check_report`.
        LocalError: The file cannot be written.
    """
    check_report(path, projections=projections, replace=replace)
    page = render(data, projections=projections, seed=seed, tick=tick)
    with out_file(path, endings=ENDINGS, replace=replace) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def render(
    data: ReportData,
    *,
    projections: Sequence[str] = PROJECTIONS,
    seed: int = 0,
    tick: Callable[[], None] | None = None,
) -> str:
    """The page as HTML; see `write_report`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    done = tick or (lambda: None)
    figures: dict[str, Markup] = {}

    def draw(name: str, figure: Any) -> None:
        if figure is not None:
            figures[name] = Markup(charts.embed(figure, name))
        done()

    status = data.status
    draw("coverage", charts.coverage(status))
    domains = {video.label: video.domain or "" for video in data.dataset.videos}
    draw("lost", charts.lost_by_class(status, domains))
    if data.heads:
        draw("measured", charts.measured(data.heads))
        for head in data.heads:
            draw(f"curves-{head.version}", charts.curves(head))
    tests = {
        head.title: rows[rows["split"] == "test"]
        for head in data.heads
        if (rows := data.predictions.get(head.version)) is not None
    }
    order = charts.classes_in_order(tests.values(), data.domains)
    if tests:
        draw("confusion", charts.confusion(next(iter(tests.values())), data.domains, order))
        draw("calibration", charts.calibration(tests))
    found = _map(data, projections, seed)
    done()
    points = page_points(data, found, title_of=_titles(data), link_of=_links(data))
    view = page_view(data, points, found, order)
    # Autoescape, because video titles are untrusted input.
    environment = Environment(
        loader=PackageLoader("coinml.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    comparison = data.comparison
    return environment.get_template("page.html").render(
        data=data,
        status=status,
        states=status.states(),
        sources=Counter(row.source for row in data.videos.values() if row.source).most_common(),
        share=status.downloaded / status.total if status.total else 0.0,
        figures=figures,
        comparison=comparison,
        differences=[] if comparison is None else charts.differences(comparison),
        title_of=_titles(data),
        link_of=_links(data),
        points=Markup(_script_json(points)),
        view=Markup(_script_json(view)),
        has_map=found is not None,
        page_script=Markup(files("coinml.report").joinpath("page.js").read_text(encoding="utf-8")),
        left_out={} if found is None else found.left_out,
        lineage=_lineage(data),
        audits=AUDITS,
        script=Markup(charts.script()),
    )


def safe_link(link: str) -> str:
    """The link if it is an http, https or file URL, else "": a script URL would run code."""
    return link if parts_of(link).scheme in ("http", "https", "file") else ""


def _map(data: ReportData, projections: Sequence[str], seed: int) -> EmbeddingMap | None:
    """The map of the embeddings; None with fewer than three."""
    table = data.table
    if table is None or len(table) < 3:
        return None
    index = {name: place for place, name in enumerate(sorted(set(table["label"])))}
    return embedding_map(
        table[feature_columns(table)].to_numpy(dtype=np.float32),
        table["label"].map(index).to_numpy(dtype=np.int64),
        (table["split"] == "train").to_numpy(),
        projections=projections,
        seed=seed,
    )


def _titles(data: ReportData) -> Callable[[str], str]:
    """The title of a video (of a segment's video), else its id."""

    def title_of(sample_id: str) -> str:
        row = data.videos.get(_video_of(sample_id))
        return (row.title if row is not None else None) or sample_id

    return title_of


def _links(data: ReportData) -> Callable[[str], str]:
    return lambda sample_id: safe_link(data.links.get(_video_of(sample_id), ""))


def _video_of(sample_id: str) -> str:
    """The video id of a sample; a segment's id is `<video id>#<n>`."""
    return sample_id.partition("#")[0]


def _lineage(data: ReportData) -> list[tuple[str, str, str]]:
    """Rows (what, identifier, description) from the ledger to the registered versions."""
    rows = [
        (
            "ledger",
            data.ledger_digest,
            f"{data.status.downloaded:,} of {data.status.total:,} videos downloaded by now",
        )
    ]
    if data.spec is not None:
        encoder = data.spec.encoder
        revision = f" at {encoder.revision[:12]}" if encoder.revision else ""
        rows.append(
            (
                "embedding set",
                data.spec.fingerprint,
                f"{encoder.encoder}{revision} ({encoder.fingerprint}): {encoder.clips} clips of "
                f"{encoder.frames} frames at stride {encoder.stride}, snap {data.spec.snap}, "
                f"{encoder.keep_tokens:.0%} of the tokens, {encoder.dim} dimensions",
            )
        )
    for head in data.heads:
        tags = head.tags
        rows.append(
            (
                f"run of {head.name}",
                head.run_id,
                f"trained on set {tags.get('set_fingerprint', '?')} when the ledger was "
                f"{tags.get('ledger_digest', '?')}; measured on test ids "
                f"{tags.get('test_ids_digest', '?')}; coinml {tags.get('code_version', '?')}",
            )
        )
        rows.append(
            (
                "version",
                f"{data.model} {head.version}",
                f"{', '.join(head.aliases) or 'no alias'}; "
                f"{tags.get('gate_reason', 'the gate was not asked yet')}",
            )
        )
    return rows


def _script_json(content: Any) -> str:
    """JSON for a `<script>` element, escaped so that no text in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
