"""Checks the browser that the tests of pages use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.mark.stack
def test_chromium_runs_the_script_of_a_page(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p id=a></p><script>a.textContent = 6 * 7 + ' rows'</script>")
    shown = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "42 rows" in shown.stdout
