"""How a run looks: bars in a terminal, a line per finished step in a log, JSON lines for scripts."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from hubkit.pipeline import State

__all__ = ["Display"]


class Display:
    """Hears the events of `pipeline.run`. `ran` counts the steps that were not cached."""

    def __init__(self, recipe: str, steps: int, as_json: bool) -> None:
        self.ran = 0
        self._json = as_json
        self._steps = steps
        self._done = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[info]}"),
            console=Console(stderr=True),
            disable=as_json or not sys.stderr.isatty(),
        )
        self._total = self._progress.add_task(recipe, total=steps, info="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_event(self, event: str, state: State, info: dict[str, Any]) -> None:
        name = state.step.name
        if event == "progress":
            shown = {k: v for k, v in info.items() if k not in ("step", "done", "total", "time", "age_s")}
            text = " ".join(f"{key} {_short(value)}" for key, value in shown.items())
            if name in self._tasks:
                self._progress.update(
                    self._tasks[name], completed=info["done"], total=info["total"], info=text
                )
            return
        if event == "start":
            self.ran += 1
            self._tasks[name] = self._progress.add_task(f"  {name}", total=None, info="")
            # A plain log gets one line when a step is done; why a step runs again is worth one more.
            if state.why and state.why != "never run":
                self._say(f"{name} runs again: {state.why}")
        else:
            self._done += 1
            self._progress.update(self._total, completed=self._done)
            if name in self._tasks:
                self._progress.remove_task(self._tasks.pop(name))
        if self._json:
            print(json.dumps({"event": event, **self._summary(state)}), flush=True)
        elif event == "done" and state.record:
            counts = ", ".join(f"{key} {value}" for key, value in state.record.counts.items())
            seconds = f"{state.record.seconds:6.1f} s"
            self._say(
                f"[{self._done:>3}/{self._steps}] {seconds}  {name}" + (f"  ({counts})" if counts else "")
            )

    def _summary(self, state: State) -> dict[str, Any]:
        record = state.record
        more = {"counts": record.counts, "seconds": record.seconds} if record else {}
        return {"step": state.step.name, "key": state.key, "why": state.why, **more}

    def _say(self, line: str) -> None:
        if not self._json:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
