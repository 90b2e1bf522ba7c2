"""Make the pictures of README and docs/ from a finished nano release: `make picture`.

    python docs/make_pictures.py --out runs

nano.png   the figure of the report, over three seeds
space.png  the Space: a raw trace beside what was made of it, as a browser shows it
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from hubkit.release.space import open_space

DOCS = Path(__file__).parent
RECIPE = DOCS.parent / "recipes" / "nano" / "recipe.yaml"


def report_folder(out: Path) -> Path:
    """Of the newest run with three seeds."""
    command = [sys.executable, "-m", "hubkit", "recipe", "report", str(RECIPE), "--out", str(out)]
    done = subprocess.run([*command, "--set", "students.seeds=[0,1,2]"], capture_output=True, text=True)
    found = re.search(r"^report: (.*)report\.html$", done.stdout, re.MULTILINE)
    if not found:
        raise SystemExit(done.stderr or "no report: run `make sweep` first")
    return Path(found[1])


def photograph(address: str, path: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if chromium is None:
        raise SystemExit("needs a browser: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1120, "height": 900})
        page.goto(f"{address}/?tab=traces&ts=saved&__theme=light")
        page.locator("#trace .card").nth(2).wait_for()
        page.locator("#trace-list tbody tr").first.get_by_role("button").click()  # the most that was saved
        page.locator("#trace-list tr[aria-current]").wait_for()
        page.wait_for_timeout(500)  # what fades in has faded in
        page.locator("#trace").screenshot(path=path)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the finished steps")
    out = parser.parse_args().out
    shutil.copy(report_folder(out) / "tradeoff.png", DOCS / "nano.png")
    with open_space(out / "hub", "local/nano", None) as (address, _):
        photograph(address, DOCS / "space.png")


if __name__ == "__main__":
    main()
