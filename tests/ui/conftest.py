"""A real browser, where one is here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
both = pytest.mark.parametrize("size", ["desk", "phone"])
SIZES = {"desk": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra [dev]")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=program, args=FLAGS.split())
        yield made
        made.close()


@pytest.fixture
def size() -> str:
    """Which of SIZES a tab has; tests of what is laid out otherwise on a phone take both: `both`."""
    return "desk"


@pytest.fixture
def tab(chromium: Any, size: str, tmp_path: Path) -> Iterator[Any]:
    """A tab of a phone's and of a desk's size, in which no script may fail and nothing may pop up."""
    width, height = SIZES[size]
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        has_touch=size == "phone",
        color_scheme="dark" if size == "desk" else "light",
    )
    made, wrong = context.new_page(), list[str]()
    made.set_default_timeout(20_000)
    made.on("pageerror", lambda error: wrong.append(f"a script failed: {error}"))

    def popped_up(dialog: Any) -> None:
        wrong.append(f"a dialog opened: {dialog.message}")
        dialog.dismiss()

    made.on("dialog", popped_up)
    made.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    yield made
    context.close()
    assert not wrong
