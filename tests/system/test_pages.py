"""MLflow's and Prefect's pages in a real browser.

With COINML_SCREENSHOTS=FOLDER, the tests also take the documents' screenshots.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.helpers.coinml_stack import CoinmlStack, coinml_stack, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

SLOW_MS = 60_000
"""Pages load slowly while other processes use the two cores."""

SCREENSHOTS = os.environ.get("COINML_SCREENSHOTS")
DEPLOYMENTS = {
    "collect": "hourly",
    "embed": "on-new",
    "train": "on-growth",
    "reprocess": "nightly",
    "reprobe": "monthly",
}


@pytest.fixture(scope="module")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoinmlStack]:
    """A stack whose worker has run the pipeline on the synthetic COIN."""
    with coinml_stack(tmp_path_factory.mktemp("pages")) as here:
        here.up()
        run = here.start_run("pipeline/mini")
        wait_for(
            lambda: here.run_state(run) in ("COMPLETED", "FAILED", "CRASHED"),
            seconds=900,
            said=here.logs,
        )
        assert here.run_state(run) == "COMPLETED", here.logs()
        yield here


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser_page(browser: Browser, running_stack: CoinmlStack) -> Page:
    """A page of a browser that `coinml ui` has signed in to both servers."""
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(SLOW_MS)
    addresses = running_stack.answer("ui", "--no-open")
    for name, address in addresses.items():
        # What `coinml ui` opens where there is a display.
        page.goto((running_stack.home / "data" / "stack" / f"sign-in-{name}.html").as_uri())
        page.wait_for_url(f"{address}/**")
        page.wait_for_function("!location.pathname.includes('sign-in')")
    return page


@pytest.fixture
def take(browser_page: Page) -> Callable[[str], None]:
    """A function that takes a screenshot for the documents, if wanted."""

    def picture(name: str) -> None:
        if SCREENSHOTS:
            # Charts are drawn in steps.
            browser_page.wait_for_timeout(1500)
            browser_page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")

    return picture


@pytest.fixture(scope="module")
def runs(running_stack: CoinmlStack) -> dict[str, dict[str, Any]]:
    """The run of each head, from MLflow's API."""
    api = f"{running_stack.stack().mlflow_url}/api/2.0/mlflow"
    headers = running_stack.signed_in
    experiment = httpx.get(
        f"{api}/experiments/get-by-name",
        params={"experiment_name": "mini-task"},
        headers=headers,
    ).json()["experiment"]
    found = httpx.post(
        f"{api}/runs/search",
        headers=headers,
        json={"experiment_ids": [experiment["experiment_id"]], "filter": "status = 'FINISHED'"},
    ).json()["runs"]
    return {head_of(run): run["info"] for run in found}


def head_of(run: dict[str, Any]) -> str:
    (head,) = [tag["value"] for tag in run["data"]["tags"] if tag["key"] == "head"]
    return str(head)


def see(page: Page, address: str) -> None:
    """Open a page of a single-page application."""
    # Chromium does not load an address that differs only after the `#`.
    page.goto("about:blank")
    page.goto(address)


def test_a_browser_that_is_not_signed_in_sees_nothing(
    running_stack: CoinmlStack, browser: Browser, browser_page: Page
) -> None:
    stack = running_stack.stack()
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(SLOW_MS)
    # Chromium asks for user and password; without a window, it gives up.
    with pytest.raises(Exception, match="ERR_INVALID_AUTH_CREDENTIALS"):
        page.goto(stack.mlflow_url)
    page = context.new_page()
    page.set_default_timeout(SLOW_MS)
    refused: list[int] = []
    page.on("response", lambda got: refused.append(got.status) if got.status >= 400 else None)
    page.goto(f"{stack.prefect_url}/runs")
    page.locator("input[type=password]").wait_for()
    assert 401 in refused
    assert "pipeline mini" not in page.locator("body").inner_text()
    # Neither URL nor cookies of the browser that is signed in have the password.
    assert running_stack.password not in browser_page.url
    assert browser_page.context.cookies() == []
    context.close()


def test_mlflow_begins_with_model_training_and_without_its_assistant(
    running_stack: CoinmlStack, runs: dict[str, dict[str, Any]], browser_page: Page
) -> None:
    page = browser_page
    see(page, f"{running_stack.stack().mlflow_url}/#/experiments")
    page.get_by_role("link", name="mini-task").wait_for()
    page.get_by_text("Model training").first.wait_for()
    assert "Prompts" not in page.locator("nav").first.inner_text()
    assert page.locator('[data-component-id="mlflow.assistant.chat_panel.close"]').count() == 0
    assert page.evaluate("localStorage.getItem('mlflow.settings.telemetry.enabled_v1')") == "false"
    # What a user chooses stays when `coinml ui` is used again.
    page.evaluate("localStorage.setItem('mlflow.workflowType_v1', '\"genai\"')")
    page.goto((running_stack.home / "data" / "stack" / "sign-in-mlflow.html").as_uri())
    page.wait_for_url(f"{running_stack.stack().mlflow_url}/**")
    page.wait_for_function("!location.pathname.includes('sign-in')")
    assert page.evaluate("localStorage.getItem('mlflow.workflowType_v1')") == '"genai"'
    page.evaluate("localStorage.setItem('mlflow.workflowType_v1', '\"machine_learning\"')")


def test_the_runs_of_both_heads_are_listed_and_compared(
    running_stack: CoinmlStack,
    runs: dict[str, dict[str, Any]],
    browser_page: Page,
    take: Callable[[str], None],
) -> None:
    page = browser_page
    experiment = runs["mlp"]["experiment_id"]
    see(page, f"{running_stack.stack().mlflow_url}/#/experiments/{experiment}/runs")
    for head in ("mlp", "svm"):
        page.get_by_role("link", name=runs[head]["run_name"]).wait_for()

    # As a user does: select both, press Compare, show only differences.
    page.get_by_role("checkbox", name="Select all runs").check(force=True)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Comparing 2 Runs").wait_for()
    for part in ("Parameters", "Metrics"):
        page.get_by_role("switch", name=f"{part} - Show diff only").click()
    shown = page.locator("body").inner_text()
    parameters = shown[shown.index("Parameters", shown.index("Run details")) :]
    parameters = parameters[: parameters.index("Metrics")]
    assert re.search(r"head\s+(svm\s+mlp|mlp\s+svm)", parameters)
    assert {"C", "kernel", "epochs"} <= {line.split("\t")[0] for line in parameters.splitlines()}
    # The page holds only the rows that are in sight.
    rows = page.locator(".ReactVirtualized__Grid", has_text="test/accuracy").last.element_handle()
    metrics = set(rows.inner_text().splitlines())
    while rows.evaluate("rows => rows.scrollTop !== (rows.scrollTop += 200, rows.scrollTop)"):
        page.wait_for_timeout(200)
        metrics |= set(rows.inner_text().splitlines())
    assert {"val/loss", "train/loss", "epoch/train_accuracy"} <= metrics
    # Names and values are scrolled apart, and meet again at the top.
    rows.evaluate("rows => { rows.scrollTop = 0 }")
    page.wait_for_timeout(500)
    page.get_by_text("Show diff only").nth(1).scroll_into_view_if_needed()
    take("mlflow-compare")


def test_the_epochs_of_the_mlp_are_curves_beside_the_svm(
    running_stack: CoinmlStack,
    runs: dict[str, dict[str, Any]],
    browser_page: Page,
    take: Callable[[str], None],
) -> None:
    page = browser_page
    experiment = runs["mlp"]["experiment_id"]
    see(
        page,
        f"{running_stack.stack().mlflow_url}/#/experiments/{experiment}/runs?compareRunsMode=CHART",
    )
    page.get_by_placeholder("Search metric charts").fill("^epoch/(val|train)_(loss|accuracy)$")
    charts = page.locator(".js-plotly-plot")
    charts.first.wait_for()
    page.wait_for_timeout(2000)
    titles = page.locator("body").inner_text()
    for name in ("train_loss", "val_loss", "train_accuracy"):
        assert name in titles
    points = page.evaluate(
        "Array.from(document.querySelectorAll('.js-plotly-plot'))"
        ".map(plot => Math.max(...plot.data.map(trace => (trace.x || []).length)))"
    )
    assert max(points) > 5
    take("mlflow-curves")


def test_the_svm_s_search_over_c_and_gamma_is_shown(
    running_stack: CoinmlStack,
    runs: dict[str, dict[str, Any]],
    browser_page: Page,
    take: Callable[[str], None],
) -> None:
    page = browser_page
    run = runs["svm"]
    see(
        page,
        f"{running_stack.stack().mlflow_url}/#/experiments/{run['experiment_id']}/runs/{run['run_id']}"
        "/artifacts",
    )
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("search.png", exact=True).click()
    page.wait_for_function(
        "Array.from(document.images).some(i => i.naturalWidth > 500 && i.naturalHeight > 300)",
        timeout=SLOW_MS,
    )
    take("mlflow-svm")


def test_the_registry_shows_the_champion(
    running_stack: CoinmlStack, browser_page: Page, take: Callable[[str], None]
) -> None:
    page = browser_page
    see(page, f"{running_stack.stack().mlflow_url}/#/models/mini-task")
    page.get_by_text("champion").first.wait_for()
    assert "challenger" in page.locator("body").inner_text()
    take("mlflow-registry")


def test_prefect_shows_the_deployments_with_their_schedules(
    running_stack: CoinmlStack, browser_page: Page, take: Callable[[str], None]
) -> None:
    page = browser_page
    see(page, f"{running_stack.stack().prefect_url}/deployments")
    page.get_by_text("nightly").first.wait_for()
    shown = page.locator("body").inner_text()
    for flow, name in DEPLOYMENTS.items():
        assert name in shown, f"{flow}/{name}"
    # Longer lists are abbreviated to a number.
    assert {"At 02:30 AM every day", "At 05:30 AM, only on Sunday"} <= set(shown.splitlines())
    take("prefect-deployments")


def test_no_queue_of_the_pool_is_without_a_worker(running_stack: CoinmlStack) -> None:
    queues = running_stack.api("/work_pools/coinml/queues/filter", {})
    assert {one["name"]: one["status"] for one in queues} == dict.fromkeys(
        ("default", "network", "gpu"), "READY"
    )


def test_a_run_tells_its_stages_and_leads_to_its_results(
    running_stack: CoinmlStack, browser_page: Page, take: Callable[[str], None]
) -> None:
    page, prefect = browser_page, running_stack.stack().prefect_url
    (run,) = [one for one in running_stack.flow_runs() if one["name"].startswith("pipeline")]
    see(page, f"{prefect}/runs/flow-run/{run['id']}")
    stages = page.locator(".log-row", has_text=re.compile(r"; \d+\.\d (s|min)"))
    page.get_by_text("champion-mini-task").last.wait_for()
    told = [row.strip() for row in stages.all_inner_texts()]
    assert len(told) == 4
    for stage, line in zip(("collect", "embed", "train", "promote"), told, strict=True):
        assert f"{stage}: " in line
    stages.last.scroll_into_view_if_needed()
    take("prefect-run")
    keys = ("attrition-mini", "heads-mini-task", "comparison-mini-task", "champion-mini-task")
    for key in keys:
        assert page.locator(f"a[href='{prefect}/artifacts/key/{key}']").count() == 1
    # All results are named by `coinml ui`, too, and each address is a page.
    printed = running_stack.coinml("ui", "--no-open").stdout
    for key in (*keys, "figure-confusion-svm-mini-task"):
        assert f"{prefect}/artifacts/key/{key}" in printed.split()
    see(page, f"{prefect}/artifacts/key/heads-mini-task")
    page.get_by_text("on test (version").first.wait_for()


def test_prefect_shows_the_artifacts_of_runs(
    running_stack: CoinmlStack, browser_page: Page, take: Callable[[str], None]
) -> None:
    page = browser_page
    see(page, f"{running_stack.stack().prefect_url}/artifacts")
    page.get_by_text("attrition-mini").first.wait_for()
    take("prefect-artifacts")
    page.get_by_text("attrition-mini").first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.get_by_text("downloaded").first.wait_for()
    see(page, f"{running_stack.stack().prefect_url}/runs")
    page.get_by_text("pipeline mini").first.wait_for()
    take("prefect-runs")
