"""The report in a browser: it needs no network, fits a phone, follows the theme, and has no serious fault for axe."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_release import build
from space_site import PAYLOADS
from support import CHROMIUM, needs_chromium

from hubkit.release import report
from hubkit.release.results import Facts

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small run whose every text is hostile."""
    run = build(tmp_path_factory.mktemp("run"), reported=True)
    return run.inputs["report"] / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_reads_well_anywhere(browser: Any, page_file: Path, width: int, theme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)
    page = context.new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or seen.append(r.url))
    page.goto(page_file.as_uri())
    # The headline comes first, the figure next; the picture is the one for this theme and width.
    assert page.locator("main > *").nth(2).get_attribute("class") == "headline"
    figure = page.locator("figure img").first
    assert figure.evaluate("e => e.naturalWidth") > 100
    parts = [theme, "narrow" if width < 641 else ""]
    drawn = (page_file.parent / f"tradeoff-{'-'.join(filter(None, parts))}.svg").read_bytes()
    shown = figure.evaluate("e => e.currentSrc")
    assert base64.b64decode(shown.partition(",")[2]) == drawn
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # On a phone a name leaves room for the numbers beside it.
    cell = page.locator(".wide tbody tr:nth-child(2) td:nth-child(3)").first.bounding_box()
    assert cell is not None and cell["x"] + cell["width"] / 2 < width
    assert page.locator(".parts .dropped").count() or page.locator(".parts .rewritten").count()
    assert page.title() == "tiny: report" and not seen, seen
    context.set_offline(False)
    found = [
        (fault["id"], node["html"][:200], node["failureSummary"])
        for fault in Axe().run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    assert not found, found
    context.close()


def test_hostile_texts_are_shown_as_they_are(browser: Any, tmp_path: Path) -> None:
    """Every name, reason and sentence of the results is a payload: nothing runs, and all stand there as text."""
    run = build(tmp_path / "run", reported=True)
    folder = run.inputs["report"]
    results = json.loads((folder / "results.json").read_text())
    turn = itertools.cycle(PAYLOADS)

    def hostile(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: hostile(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [hostile(inner) for inner in value]
        return next(turn) if isinstance(value, str) and name not in ("kind", "origin") else value

    facts = Facts.read(run.recipe, {name: f for name, f in run.inputs.items() if name != "report"})
    pictures = {path.name: path.read_bytes() for path in folder.glob("tradeoff*")}
    (tmp_path / "x.html").write_text(report._html(hostile(results), facts, pictures), encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.on("dialog", lambda dialog: seen.append("dialog"))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or seen.append(r.url))
    page.goto((tmp_path / "x.html").as_uri())
    page.wait_for_timeout(300)
    assert page.title() in [f"{' '.join(payload.split())}: report" for payload in PAYLOADS]
    shown = " ".join(page.locator("main").inner_text().split())
    for payload in PAYLOADS:
        assert " ".join(payload.split()) in shown, payload
    assert page.locator("script, iframe, svg, [onerror], [onload], a[href^='javascript']").count() == 0
    assert page.locator("main img").count() == 2 and not seen, seen
    context.close()
