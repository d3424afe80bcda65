"""The report in a real browser, at COIN's size: what it answers to clicks, and no errors."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coinml.report.page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "report_page.py"


@pytest.fixture(scope="module")
def drawn_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 11,827 drawn points of 180 classes with four heads and an audit."""
    spec = importlib.util.spec_from_file_location("report_page", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("report")
    data = module.drawn_data(folder)
    return write_report(data, folder / "page.html", projections=("pca",))


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Errors of the page's console."""
    return []


@pytest.fixture(scope="module")
def page(drawn_page: Path, chromium: str, said: list[str]) -> Iterator[Page]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1400})
        page.set_default_timeout(120_000)
        page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda err: said.append(str(err)))
        page.goto(drawn_page.as_uri())
        page.wait_for_selector("#map canvas")
        yield page
        browser.close()


def first_cells(page: Page, table: str) -> list[str]:
    return page.locator(f"#{table} tbody tr").first.locator("td").all_inner_texts()


def test_webgl_draws_the_points(page: Page) -> None:
    assert "WebGL is not supported" not in page.locator("#map").inner_text()


def test_a_click_on_a_point_shows_the_video_and_its_neighbours(page: Page) -> None:
    event = "{points: [{customdata: 7}]}"
    page.evaluate(f'document.getElementById("map").emit("plotly_click", {event})')
    panel = page.locator("#point")
    assert "v0000000007" in panel.inner_text()
    assert "answered Task" in panel.inner_text()
    assert panel.locator("li").count() == 5
    assert panel.locator("> img").get_attribute("src").startswith("data:image/jpeg")


def test_pointing_at_a_point_shows_its_frames(page: Page) -> None:
    page.locator("#map").scroll_into_view_if_needed()
    event = "{points: [{customdata: 3}], event: {clientX: 100, clientY: 100}}"
    page.evaluate(f'document.getElementById("map").emit("plotly_hover", {event})')
    assert page.locator("#hover").is_visible()
    assert page.locator("#hover img").count() == 1
    page.evaluate('document.getElementById("map").emit("plotly_unhover", {})')
    assert page.locator("#hover").is_hidden()


def test_a_lasso_lists_its_videos(page: Page) -> None:
    event = "{points: [{customdata: 1}, {customdata: 2}]}"
    page.evaluate(f'document.getElementById("map").emit("plotly_selected", {event})')
    assert "2 videos in the lasso" in page.locator("#selected").inner_text()
    assert page.locator("#selected tbody tr").count() == 2
    assert page.evaluate("painted.faint.filter(Boolean).length") == 11_825
    page.evaluate('document.getElementById("map").emit("plotly_deselect")')
    assert page.evaluate("painted.faint.filter(Boolean).length") == 0


def test_errors_are_sorted_by_a_click_on_a_column(page: Page) -> None:
    score = page.locator("#wrong th button", has_text="score")
    assert page.locator("#wrong tbody tr").count() == 100
    score.click()
    lowest = float(first_cells(page, "wrong")[-1])
    score.click()
    assert float(first_cells(page, "wrong")[-1]) > lowest
    assert page.locator("#wrong th[aria-sort=descending]").inner_text().startswith("score")
    page.locator("#wrong > button").click()
    assert page.locator("#wrong tbody tr").count() == 200


def test_another_head_has_other_errors_classes_and_colours(page: Page) -> None:
    before = page.locator("#wrong .note").inner_text()
    confusion = page.evaluate("JSON.stringify(document.getElementById('confusion').data[0].z[0])")
    page.locator("select.head").first.select_option("2")
    # What is out of view changes after what is in view is painted.
    shown = "document.querySelector('#per-class .note').innerText.includes('logreg')"
    page.wait_for_function(shown)
    again = "JSON.stringify(document.getElementById('confusion').data[0].z[0])"
    page.wait_for_function(f"(before) => {again} !== before", arg=confusion)
    after = page.locator("#wrong .note").inner_text()
    assert "mlp" in before
    assert "logreg" in after
    assert page.locator("select.head").last.input_value() == "2"
    assert "logreg" in page.locator("#per-class .note").inner_text()


def test_points_are_coloured_by_prediction_and_by_right_and_wrong(page: Page) -> None:
    colours = "new Set(painted.colours).size"
    page.locator("#colour-by").select_option("right")
    assert page.evaluate(colours) == 2
    assert page.locator("#legend button").all_inner_texts() == ["right", "wrong"]
    page.locator("#colour-by").select_option("answer")
    assert page.locator("#legend button").count() == 12
    page.locator("#legend button").first.click()
    assert page.evaluate("painted.faint.filter(Boolean).length") > 9000
    page.locator("#legend button").first.click()
    assert page.evaluate("painted.faint.filter(Boolean).length") == 0


_SEEN = """
() => {
  const layer = document.getElementById("points");
  const pixels = layer.getContext("2d").getImageData(0, 0, layer.width, layer.height).data;
  return pixels.filter((value, place) => place % 4 === 3 && value > 0).length;
}
"""
_PLACE = """
(place) => {
  const box = document.getElementById("points").getBoundingClientRect();
  const { xaxis, yaxis } = document.getElementById("map")._fullLayout;
  const [xs, ys] = view.places[projection];
  return [box.left + xaxis.l2p(xs[place]), box.top + yaxis.l2p(ys[place])];
}
"""


def test_the_mouse_finds_the_points_that_are_drawn(page: Page) -> None:
    page.locator("#map").scroll_into_view_if_needed()
    before = page.evaluate(_SEEN)
    assert before > 10_000
    # The point that is farthest to the left has no other near it.
    left = page.evaluate(
        "view.places[projection][0].indexOf(Math.min(...view.places[projection][0]))"
    )
    x, y = page.evaluate(_PLACE, left)
    page.mouse.move(x + 30, y + 30)
    page.mouse.move(x, y)
    page.wait_for_selector("#hover:not([hidden])")
    assert f"v{left:010d}" in page.locator("#hover").inner_text()
    # A line around it lists it, and the others fade.
    page.mouse.move(x - 4, y - 4)
    page.mouse.down()
    for across, down in ((4, -4), (4, 4), (-4, 4), (-4, -4)):
        page.mouse.move(x + across, y + down, steps=3)
    page.mouse.up()
    page.wait_for_function("lassoed !== null && lassoed.size > 0")
    assert f"v{left:010d}" in page.locator("#selected").inner_text()
    assert page.evaluate("painted.faint.filter(Boolean).length") > 11_000
    # Points follow the axes.
    page.evaluate("Plotly.relayout('map', {'xaxis.range': [1e6, 2e6]})")
    page.wait_for_function(f"({_SEEN})() === 0")


def test_a_phone_shows_the_page_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.reload()
    page.wait_for_selector("#map canvas")
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_the_console_has_no_errors(page: Page, said: list[str]) -> None:
    assert said == []
