"""Opens a published Space on this machine: the local Hub, and hubkit's own copy of the app.

    runs/hub, "local/nano"  ->  http://127.0.0.1:7860, reading local/nano-evals from that Hub

Only release.json, which is data, is read from the Space's repo. The app is the one that hubkit ships: downloaded code
is never executed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hubkit.errors import HubError, InputError
from hubkit.hub import Access, download_file, list_spaces
from hubkit.release.layout import space_files

__all__ = ["open_space"]

_SUFFIX: Final = "-compare"
_START_S: Final = 180
"""Seconds that the app may take to start: gradio imports slowly on a busy machine."""


@contextmanager
def open_space(
    hub_folder: Path, release: str | None, port: int | None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the app over a release ("local/nano"; None: the only one). Yields its address and its process."""
    from hubkit.localhub import LocalHub

    if not hub_folder.is_dir():
        raise InputError(
            f"there is no local Hub at {hub_folder}", "run a recipe first, or give its folder with --hub"
        )
    port = _free_port(port)
    with LocalHub(hub_folder) as hub, tempfile.TemporaryDirectory(prefix="hubkit-space-") as temporary:
        access = Access(hub.endpoint, hub.token)
        about = download_file(f"{_choose(access, release)}{_SUFFIX}", "release.json", "space", access=access)
        address = f"http://127.0.0.1:{port}"
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            # Only this Hub's own token: the user's must not be sent to another address.
            "HF_TOKEN": hub.token,
            "HF_HOME": temporary,
            "HUBKIT_RELEASE": str(about),
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        environment.pop("HUBKIT_EVALS", None)
        app = subprocess.Popen([sys.executable, str(space_files()["app.py"])], env=environment, cwd=temporary)
        try:
            _wait(app, address)
            yield address, app
        finally:
            app.terminate()
            try:
                app.wait(10)
            except subprocess.TimeoutExpired:
                app.kill()
                app.wait()


def _choose(access: Access, release: str | None) -> str:
    found = sorted(space.removesuffix(_SUFFIX) for space in list_spaces(access) if space.endswith(_SUFFIX))
    name = release.removesuffix(_SUFFIX) if release else None
    for known in (release, name):  # a release may itself be called …-compare
        if known in found:
            return str(known)
    if release is not None:
        raise HubError(
            f"{release} is not on this Hub", f"choose one of: {', '.join(found) or 'none is published yet'}"
        )
    if len(found) != 1:
        listed = ", ".join(found)
        raise HubError(
            f"this Hub holds {len(found)} releases",
            f"name one of: {listed}" if found else "publish one with `hubkit recipe run`",
        )
    return found[0]


def _free_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise InputError(f"port {port} is taken", "choose another with --port") from error
        return int(probe.getsockname()[1])


def _wait(app: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if app.poll() is not None:
            raise HubError(f"the app stopped with exit code {app.returncode}", "see its messages above")
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310 (our own http address)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise HubError(f"the app did not answer within {_START_S} s", "run again on a less busy machine")
