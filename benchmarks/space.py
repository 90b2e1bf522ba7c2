"""The Space over a large release, in a real browser: how long it takes to start, to paint and to compare; its memory.

    python benchmarks/space.py [--problems 3000] [--students 20] [--characters 1500] [--hub FOLDER --release org/name]

Method. Outputs are random words of the given number of characters; a local Hub has them in the layout of a published
release. The app runs as a process with an empty cache, so its start includes the download. Chromium opens the page
several times. First paint is the browser's own first-contentful-paint. The first comparison is the time from the
navigation until the first student's card is visible; below it are the seconds that the page's thread and the app
computed until then, which depend less on the load of the machine. HTML is what the page receives for one problem.
Memory is the app's resident size at its peak (VmHWM), which includes mapped files, and its size at the end without
them. With --hub an existing release is measured; nothing is invented.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from huggingface_hub import HfApi

from hubkit.hub import Access, download_file
from hubkit.localhub import LocalHub
from hubkit.processes import free_ports
from hubkit.records import write_rows
from hubkit.release.columns import OUTPUTS_SCHEMA, card_configs
from hubkit.release.layout import ANSWERS_BYTES, space_files
from hubkit.release.plot import figures
from hubkit.release.results import RESULTS_SCHEMA
from hubkit.traces.variants import Variant

VARIANTS = [Variant("raw"), Variant("compressed", "x"), Variant("truncated", "x"), Variant("last", "x")]


def students(number: int) -> list[dict[str, Any]]:
    """Rows of results: bases of four students each."""
    found = []
    for n in range(number):
        variant = VARIANTS[n % len(VARIANTS)]
        base = f"base-{n // len(VARIANTS)}"
        right = 0.9 - 0.1 * (n % len(VARIANTS))
        row: dict[str, Any] = dict.fromkeys(RESULTS_SCHEMA.names)
        row |= {"student": f"{base}-{variant.name}", "origin": "student", "teacher": "t", "base": base}
        row |= {"variant": variant.name, "kind": variant.kind, "compressor": variant.compressor or None}
        row |= {"method": "full", "seed": 0, "benchmark": "made-up", "n": 1, "correct": 1, "accuracy": right}
        row |= {"ci_low": right - 0.02, "ci_high": right + 0.02, "mean_output_tokens": 400.0 / (1 + n % 4)}
        found.append(row | {"cut_share": 0.0, "accuracy_per_1000_tokens": 1.0})
    return found


def outputs(rows: list[dict[str, Any]], problems: int, characters: int) -> Iterator[dict[str, Any]]:
    dice = random.Random(0)
    words = [f"w{n}" for n in range(5000)]
    passage = " ".join(dice.choices(words, k=200_000))
    for row in rows:
        for i in range(problems):
            at = dice.randrange(len(passage) - characters)
            yield {
                **{name: row.get(name) for name in OUTPUTS_SCHEMA.names},
                "id": f"p{i}",
                "problem": f"Problem {i}: {passage[i : i + 200]}",
                "answer": str(i),
                "output": f"<think>\n{passage[at : at + characters]}\n</think>\n\n\\boxed{{{i}}}",
                "correct": dice.random() < row["accuracy"],
                "output_tokens": dice.randrange(20, 400),
                "finish_reason": "stop",
            }


def publish(hub: LocalHub, folder: Path, problems: int, number: int, characters: int) -> dict[str, Any]:
    """The evaluations of such a release on a local Hub; gives its release.json."""
    rows = students(number)
    evals = folder / "evals"
    write_rows(
        evals / "data/outputs/test-00000-of-00001.parquet",
        outputs(rows, problems, characters),
        OUTPUTS_SCHEMA,
        group_bytes=ANSWERS_BYTES,
    )
    write_rows(evals / "data/results/test-00000-of-00001.parquet", rows, RESULTS_SCHEMA)
    for name, content in figures(rows).items():
        (evals / name).write_bytes(content)
    configs = card_configs(["outputs", "results"], "test")
    (evals / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo("local/evals", repo_type="dataset")
    api.upload_folder(repo_id="local/evals", repo_type="dataset", folder_path=evals)
    shutil.rmtree(evals)
    return {
        "recipe": "made-up",
        "evals": "local/evals",
        "variants": [variant.published("t") for variant in VARIANTS],
    }


def memory(pid: int) -> dict[str, int]:
    """MiB of a process: its peak, and what is its own now."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) // 1024 for name in ("VmHWM", "RssAnon")}


def processor(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def look(address: str, rounds: int, app: int) -> None:
    """Open the page and compare, as a visitor does. `app` is the process that answers."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))))
    paints, firsts, nexts, sizes, pages, apps = [], [], [], [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            inside = page.context.new_cdp_session(page)
            inside.send("Performance.enable")
            began, computed = time.monotonic(), processor(app)
            page.goto(address, wait_until="commit")
            page.wait_for_selector("#side .card")
            firsts.append(time.monotonic() - began)
            apps.append(processor(app) - computed)
            told = {of["name"]: of["value"] for of in inside.send("Performance.getMetrics")["metrics"]}
            pages.append(told["TaskDuration"])
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
            paints.append(page.evaluate(paint))
            sizes.append(len(page.locator("#side").inner_html().encode()) / 1000)
            before = page.locator("#side .question").inner_text()
            began = time.monotonic()
            page.locator("#compare-move .next").click()
            page.wait_for_function(
                "before => document.querySelector('#side .question').innerText != before", arg=before
            )
            nexts.append(time.monotonic() - began)
            page.close()
        browser.close()
    print(f"first paint       {median(paints):8.2f} s")
    print(
        f"first comparison  {median(firsts):8.2f} s   (of {rounds}: {min(firsts):.2f} to {max(firsts):.2f})"
    )
    print(f"  processor       {median(pages):8.2f} s   in the page, {median(apps):.2f} s in the app")
    print(f"next problem      {median(nexts):8.2f} s")
    print(f"HTML of a problem {median(sizes):8.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=3000)
    parser.add_argument("--students", type=int, default=20)
    parser.add_argument("--characters", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hub", type=Path, help="folder of a local Hub that holds a release")
    parser.add_argument("--release", help="its name there, such as local/nano")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with LocalHub(given.hub or folder / "hub") as hub:
            release = folder / "release.json"
            if given.hub:
                access = Access(hub.endpoint, hub.token)
                found = download_file(f"{given.release}-compare", "release.json", "space", access=access)
                release.write_bytes(Path(found).read_bytes())
                print(f"the Space of {given.release}")
            else:
                about = publish(hub, folder, given.problems, given.students, given.characters)
                release.write_text(json.dumps(about))
                print(
                    f"{given.problems:,} problems x {given.students} students, {given.characters:,} characters each"
                )
            (port,) = free_ports()
            environment = {
                k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUBKIT_", "GRADIO_"))
            }
            environment |= {
                "HF_ENDPOINT": hub.endpoint,
                "HF_TOKEN": hub.token,
                "HF_HOME": str(folder / "home"),
                "HUBKIT_RELEASE": str(release),
                "GRADIO_SERVER_PORT": str(port),
                "GRADIO_ANALYTICS_ENABLED": "False",
                "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }
            began = time.monotonic()
            app = subprocess.Popen([sys.executable, str(space_files()["app.py"])], env=environment)
            try:
                while True:
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
                        break
                    except OSError:
                        if app.poll() is not None:
                            raise SystemExit("the app stopped") from None
                        time.sleep(0.1)
                print(f"start             {time.monotonic() - began:8.2f} s")
                look(f"http://127.0.0.1:{port}", given.rounds, app.pid)
                used = memory(app.pid)
                print(f"memory, peak      {used['VmHWM']:8,} MiB")
                print(f"memory, its own   {used['RssAnon']:8,} MiB")
            finally:
                app.terminate()
                app.wait(30)


if __name__ == "__main__":
    main()
