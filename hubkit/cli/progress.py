"""How a run is shown: bars in a terminal, a line per finished step in a log, JSON lines for scripts.

{"event": "progress", "step": "traces/sage/0", "done": 812, "total": 4000, "tokens_per_s": 5120,
 "prompt_tokens_per_s": 310, "in_flight": 256, "failed": 0, "left_s": 1440}
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

if TYPE_CHECKING:
    from hubkit.recipe.pipeline import State

__all__ = ["Display", "Pace", "live_words"]

EVERY_S: Final = 5.0
"""Between two JSON lines about one step."""
RECENT_S: Final = 300.0
"""Seconds of past progress that the estimated end is computed from. Not all of it: long answers come late, and a
resumed step begins with a jump."""
_ONE_LINE: Final = 140
"""Minimum columns of a terminal for a step's name, bar and numbers to stand in one line."""
NAMES: Final = {
    "tokens_per_s": "tok/s out",
    "prompt_tokens_per_s": "tok/s in",
    "in_flight": "in flight",
    "failed": "failed",
}
"""Key in the progress of a generation step -> its label in a bar."""


class Pace:
    """How fast a step is at present, from the progress seen so far."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def left_s(self, done: int, total: int, now: float) -> float | None:
        """Returns the seconds until the end, at the pace of the last minutes. Returns None while that is unknown."""
        self._seen.append((now, done))
        while now - self._seen[0][0] > RECENT_S:
            self._seen.popleft()
        since, before = self._seen[0]
        if done <= before or now <= since:
            return None
        return (total - done) * (now - since) / (done - before)


def live_values(info: dict[str, Any]) -> dict[str, Any]:
    """Further values in a step's progress; `kept` becomes a share of what was done."""
    values = {k: v for k, v in info.items() if k not in ("step", "done", "total", "time", "age_s", "kept")}
    if "kept" in info and info["done"]:
        values["kept_share"] = round(info["kept"] / info["done"], 4)
    return values


def live_words(info: dict[str, Any]) -> list[str]:
    """The same for people: ["5120 tok/s out", "kept 50%"]."""
    values = live_values(info)
    kept = [f"kept {values.pop('kept_share'):.0%}"] if "kept_share" in values else []
    return [f"{_short(value)} {NAMES.get(key, key)}" for key, value in values.items()] + kept


class Display:
    """Receives the events of `pipeline.run`. `ran` counts the steps that were not cached."""

    def __init__(self, recipe: str, steps: int, as_json: bool) -> None:
        self.ran = 0
        self._json = as_json
        self._steps = steps
        self._done = 0
        console = Console(stderr=True)
        disable = as_json or not sys.stderr.isatty()
        self._progress = Progress(*_columns(console.width), console=console, disable=disable)
        self._total = self._progress.add_task(recipe, total=steps, info="", below="")
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.stop()

    def on_event(self, event: str, state: State, info: dict[str, Any]) -> None:
        name = state.step.name
        if event == "progress":
            self._show(name, info)
            return
        if event == "start":
            self.ran += 1
            self._tasks[name] = self._progress.add_task(f"  {name}", total=None, info="", below="")
            self._paces[name] = Pace()
            # A plain log gets one line when a step is done; why a step runs again is worth one more.
            if state.why and state.why != "never run":
                self._say(f"{name} runs again: {state.why}")
        else:
            self._done += 1
            below = f"  {self._done}/{self._steps}"
            self._progress.update(self._total, completed=self._done, below=below)
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

    def _show(self, name: str, info: dict[str, Any]) -> None:
        now, done, total = time.monotonic(), info["done"], info["total"]
        left = self._paces[name].left_s(done, total, now)
        if not self._json:
            end = [f"{timedelta(seconds=round(left))} left"] if left is not None else []
            text = ", ".join([*live_words(info), *end])
            below = f"  {done}/{total}" + (f"\n    {text}" if text else "")
            self._progress.update(self._tasks[name], completed=done, total=total, info=text, below=below)
        elif name not in self._said or now - self._said[name] >= EVERY_S:
            self._said[name] = now
            line = {"event": "progress", "step": name, "done": done, "total": total, **live_values(info)}
            if left is not None:
                line["left_s"] = round(left)
            print(json.dumps(line), flush=True)

    def _summary(self, state: State) -> dict[str, Any]:
        record = state.record
        more = {"counts": record.counts, "seconds": record.seconds} if record else {}
        return {"step": state.step.name, "key": state.key, "why": state.why, **more}

    def _say(self, line: str) -> None:
        if not self._json:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _columns(width: int) -> list[ProgressColumn]:
    """One line per step; in a narrow terminal the numbers are in the line below the step's name."""
    fold = Column(overflow="fold")
    if width < _ONE_LINE:
        name = TextColumn("{task.description}{task.fields[below]}", markup=False, table_column=fold)
        return [name, TimeElapsedColumn()]
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[info]}", markup=False, table_column=fold),
    ]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
