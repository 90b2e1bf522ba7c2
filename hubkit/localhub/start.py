"""LocalHub: starts the server of a folder, or joins the one that runs in it.

The server is a process. Several programs may use one folder at once: the first starts the server, and the server
ends when the last of them has ended. Each program holds a shared lock on folder/users, which the kernel releases
when a process is killed; the server ends once it gets that lock exclusively.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final
from urllib.parse import urlsplit

from hubkit.errors import HubError
from hubkit.localhub.server import ALREADY_SERVED
from hubkit.localhub.storage.store import DATABASE

__all__ = ["LocalHub"]

_PATIENCE: Final = 30.0
"""Seconds for a server to start; on an idle machine it takes one."""


class LocalHub:
    """A local Hub while the `with` block lasts. `endpoint` and `token` are set inside it.

    Raises HubError if the folder has no Hub and `create` is false, or if a server runs in it with other settings:
    another namespace, another port, no jobs, or no need for a token.
    """

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        namespace: str = "local",
        require_token: bool = False,
        jobs: bool = False,
        create: bool = True,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.host = host
        self.port = port
        self.namespace = namespace
        self.require_token = require_token
        self.jobs = jobs
        self.create = create
        self.endpoint = ""
        self.token = ""
        self._users: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalHub:
        if not self.create and not (self.folder / DATABASE).is_file():
            raise HubError(f"{self.folder} holds no local Hub", self._remedy())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._users = (self.folder / "users").open("a")
            # Waits while a server that nobody uses any more is ending.
            fcntl.flock(self._users, fcntl.LOCK_SH)
        except OSError as error:
            raise HubError(
                f"cannot use {self.folder} for a local Hub: {error.strerror}", "choose another folder"
            ) from None
        try:
            self._connect()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _connect(self) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._is_up():
            if self._process is None:
                self._start()
            elif self._process.poll() is not None:
                # Another program may have been faster: then its server is up or coming up.
                if self._process.returncode != ALREADY_SERVED:
                    raise HubError(
                        f"the local Hub did not start: {self._said()}", f"see {self.folder / 'server.log'}"
                    )
                self._process = None
            if time.monotonic() > until:
                raise HubError(
                    f"the local Hub did not answer within {_PATIENCE:.0f} s",
                    f"see {self.folder / 'server.log'}",
                )
            time.sleep(0.05)
        self.token = (self.folder / "token").read_text().strip()

    def wait(self) -> None:
        """Stay until the server ends."""
        while self._process.poll() is None if self._process is not None else self._is_up():
            time.sleep(0.5)

    def _start(self) -> None:
        command = [sys.executable, "-m", "hubkit.localhub", str(self.folder), "--while-used"]
        command += ["--require-token"] if self.require_token else []
        command += ["--jobs"] if self.jobs else []
        command += ["--host", self.host, "--port", str(self.port), "--namespace", self.namespace]
        with (self.folder / "server.log").open("ab") as log:
            # A session of its own: Ctrl-C reaches this program, which may still have to finish a request.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _said(self) -> str:
        lines = (self.folder / "server.log").read_text("utf-8", "replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "it said nothing"

    def _is_up(self) -> bool:
        """Whether this folder's server, and not a later owner of its port, answers."""
        with contextlib.suppress(OSError, ValueError):
            noted = json.loads((self.folder / "endpoint").read_text())
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(noted["endpoint"] + "/health", timeout=5) as answer:
                if json.loads(answer.read(1000))["hub"] == noted["hub"]:
                    self._check(noted)
                    self.endpoint = noted["endpoint"]
                    return True
        return False

    def _check(self, noted: dict[str, Any]) -> None:
        """Refuse to join a server that does not do what is asked for."""
        running = f"the local Hub that is running in {self.folder}"
        if noted["namespace"] != self.namespace:
            raise HubError(
                f"{running} belongs to the namespace {noted['namespace']}",
                "use that namespace, or another folder",
            )
        if self.port and urlsplit(noted["endpoint"]).port != self.port:
            raise HubError(
                f"{running} is at {noted['endpoint']}",
                f"use that address, or stop it and use --port {self.port}",
            )
        if self.jobs and not noted.get("jobs"):
            raise HubError(f"{running} runs no jobs", "stop it, and start it with --jobs")
        if self.require_token and not noted.get("require_token"):
            raise HubError(f"{running} requires no token", "stop it, and start it with --require-token")

    def _remedy(self) -> str:
        """Returns a remedy that names a Hub beside the folder, in case the name was misspelt."""
        beside = sorted(path.parent.name for path in self.folder.parent.glob(f"*/{DATABASE}"))
        close = difflib.get_close_matches(self.folder.name, beside, 1, 0.5)
        meant = f"did you mean {self.folder.with_name(close[0])}? " if close else ""
        return f"{meant}`hubkit hub serve FOLDER` makes a new one"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._users is None:
            return
        process, self._process = self._process, None
        try:
            fcntl.flock(self._users, fcntl.LOCK_UN)
            if process is not None and process.poll() is None:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Nobody else uses it, and nobody can start to before it has ended.
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(10)
                    if process.poll() is None:
                        process.kill()
                        process.wait()
        finally:
            self._users.close()
            self._users = None
            self.endpoint = self.token = ""


if os.name != "posix":  # file locks are fcntl's
    raise HubError("the local Hub needs Linux or macOS", "use WSL on Windows")
