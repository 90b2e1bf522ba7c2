"""The live view in Trackio: a project per recipe, a run per step, written by the command that watches all steps.

So it does not depend on where steps run. Trackio's own variables say where it goes: to this machine by default, to
a Space with TRACKIO_SPACE_ID, to a server with TRACKIO_SERVER_URL.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from hubkit.cli.progress import live_values
from hubkit.errors import StepError, first_line

if TYPE_CHECKING:
    from hubkit.recipe.pipeline import State

__all__ = ["Tracker"]

EVERY_S: Final = 5.0
"""Between two points of one step."""


class Tracker:
    """Receives the events of `pipeline.run`; does nothing unless `wanted`. Raises StepError if Trackio is missing or
    refuses a run."""

    def __init__(self, recipe: str, wanted: bool) -> None:
        self._wanted = wanted
        self._project = recipe
        self._runs: dict[str, Any] = {}
        self._logged: dict[str, float] = {}

    def __enter__(self) -> Tracker:
        if self._wanted and importlib.util.find_spec("trackio") is None:
            raise StepError("--trackio was given, and trackio is not installed", "pip install trackio")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name in list(self._runs):
            self._finish(name)

    def on_event(self, event: str, state: State, info: dict[str, Any]) -> None:
        if not self._wanted:
            return
        name = state.step.name
        if event == "start":
            self._runs[name] = self._start(state)
        elif event == "progress" and time.monotonic() - self._logged.get(name, 0) >= EVERY_S:
            self._logged[name] = time.monotonic()
            self._log(name, {"done": info["done"], "total": info["total"], **live_values(info)})
        elif event == "done" and state.record is not None:
            counts = {
                key: value for key, value in state.record.counts.items() if isinstance(value, int | float)
            }
            self._log(name, {**counts, "seconds": state.record.seconds})
            self._finish(name)

    def _start(self, state: State) -> Any:
        import trackio

        def init() -> Any:
            return trackio.init(
                project=self._project,
                name=state.step.name,
                group=state.step.kind,
                config={"key": state.key, **state.step.config},
                resume="allow",  # a step that was interrupted goes on in its own run
                embed=False,
                # The step may be on another machine than this command.
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

        try:
            # In a context of its own: trackio.init ends the run that it started before in the same one.
            with contextlib.redirect_stdout(io.StringIO()):
                return Context().run(init)
        except Exception as error:
            raise StepError(
                f"Trackio cannot be used: {first_line(error)}",
                "check TRACKIO_SPACE_ID, TRACKIO_SERVER_URL and TRACKIO_DIR, or run without --trackio",
            ) from None

    def _log(self, name: str, values: dict[str, Any]) -> None:
        self._runs[name].log(values)

    def _finish(self, name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._runs.pop(name).finish()
