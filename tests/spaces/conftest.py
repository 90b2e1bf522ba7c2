"""One app over one small release, and one browser, for all tests of the page."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from space_site import Site, publish, students
from support import CHROMIUM, ROOT

from hubkit.localhub import LocalHub


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The app, over a release whose every text is hostile; votes go to a dataset on the same Hub."""
    folder = tmp_path_factory.mktemp("space")
    with LocalHub(folder / "hub") as hub:
        release = publish(hub, folder)
        (folder / "release.json").write_text(json.dumps(release))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUBKIT_", "GRADIO_"))}
        environment |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(folder / "home"),
            "HUBKIT_RELEASE": str(folder / "release.json"),
            "HUBKIT_VOTES": "local/votes",
            "HUBKIT_VOTES_EVERY": "0.05",
            "GRADIO_SERVER_PORT": "0",
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            environment["GRADIO_SERVER_PORT"] = str(probe.getsockname()[1])
        address = f"http://127.0.0.1:{environment['GRADIO_SERVER_PORT']}"
        log = (folder / "app.log").open("wb")
        app = subprocess.Popen(
            [sys.executable, str(ROOT / "spaces" / "compare" / "app.py")],
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            until = time.monotonic() + 180
            while True:
                assert app.poll() is None and time.monotonic() < until, (folder / "app.log").read_text()[
                    -3000:
                ]
                try:
                    urllib.request.urlopen(address, timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.3)
            yield Site(address, hub, [student["student"] for student in students()])
        finally:
            app.terminate()
            app.wait(30)
            log.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """With one profile, so that a page finds Gradio's scripts in the cache and compiled.

    Closed with the module: while Playwright is open an event loop runs, and no test after it could start one.
    """
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=arguments,
            accept_downloads=True,
        )
        yield context
        context.close()
