"""From the plan to finished steps.

`status` computes which steps are done; `run` runs the others as soon as their inputs are there. A step's key
contains the digests of its inputs' *outputs*, so a key is only known once the inputs are done.
"""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from hubkit.errors import HubkitError, InputError, RecipeError, StepError
from hubkit.executors import Executor, StepCall, open_executor
from hubkit.executors.run_repo import bring_home
from hubkit.recipe.graph import Plan, Step
from hubkit.store import Record, Store, digest, exclusive

__all__ = ["State", "run", "select", "status"]


@dataclass(frozen=True)
class State:
    """State of one step: `done` has a record, `ready` can run now, `waiting` needs its inputs first."""

    step: Step
    state: str
    key: str = ""
    record: Record | None = None
    why: str = ""


def _inputs(plan: Plan, step: Step, done: dict[str, Record]) -> dict[str, str]:
    models = {f"model:{name}": plan.models[ref].digest for name, ref in step.models.items()}
    return {name: done[of].output for name, of in step.inputs.items()} | models


def _state(plan: Plan, store: Store, step: Step, done: dict[str, Record], explain: bool) -> State:
    missing = [of for of in step.inputs.values() if of not in done]
    if missing:
        return State(step, "waiting", why=f"needs {missing[0]}")
    inputs = _inputs(plan, step, done)
    key = digest({"step": step.name, "version": step.version, "config": step.config, "inputs": inputs})
    if record := store.find(step.name, key):
        return State(step, "done", key, record)
    why = store.why_missed(step.name, step.config, inputs, step.version) if explain else ""
    return State(step, "ready", key, why=why)


def status(plan: Plan, store: Store, explain: bool = True) -> list[State]:
    """The state of every step, in the plan's order."""
    done: dict[str, Record] = {}
    states = []
    for step in plan.steps:
        state = _state(plan, store, step, done, explain)
        if state.record:
            done[step.name] = state.record
        states.append(state)
    return states


def select(plan: Plan, until: Iterable[str] = (), only: Iterable[str] = ()) -> list[Step]:
    """Returns the steps whose name or kind matches: `only` those, or `until` those with all steps that they need.

    Patterns are a kind (raw), a name, or a shell pattern (student/s-*). Raises RecipeError for a pattern that
    matches nothing.
    """
    until, only = list(until), list(only)
    if not until and not only:
        return plan.steps
    wanted: set[str] = set()
    for pattern in until or only:
        names = {s.name for s in plan.steps if s.kind == pattern or fnmatch.fnmatch(s.name, pattern)}
        if not names:
            kinds = ", ".join(dict.fromkeys(s.kind for s in plan.steps))
            raise RecipeError(
                f"no step matches {pattern!r}", f"kinds here: {kinds}; `recipe plan` lists names"
            )
        wanted |= names
    if until:
        for step in reversed(plan.steps):
            if step.name in wanted:
                wanted |= set(step.inputs.values())
    return [step for step in plan.steps if step.name in wanted]


def run(
    plan: Plan,
    store: Store,
    steps: list[Step],
    on_event: Callable[[str, State, dict[str, Any]], None],
) -> dict[str, Record]:
    """Run those of `steps` that are not done. Returns the records of all finished steps.

    `on_event(event, state, info)` is called with the events cached, start, progress and done. Raises BusyError if
    another run of this recipe is under way, and StepError and other HubkitErrors from steps; finished steps are kept.
    """
    recipe = plan.recipe
    with exclusive(store.root / "locks" / f"run-{recipe.name}.lock", f"the recipe {recipe.name!r}"):
        done: dict[str, Record] = {}
        pending = []
        for state in status(plan, store):
            if state.record:
                done[state.step.name] = state.record
                if state.step in steps:
                    on_event("cached", state, {})
            elif state.step in steps:
                pending.append(state.step)
        if not pending:
            return done
        ready = {s.name for s in pending} | done.keys()
        for step in pending:
            for needed in step.inputs.values():
                if needed not in ready:
                    raise InputError(
                        f"{step.name} needs {needed}, which is not done", "use --until instead of --only"
                    )
        with open_executor(recipe, store.root) as executor:
            _work(plan, store, pending, done, executor, on_event)
        return done


def _work(
    plan: Plan,
    store: Store,
    pending: list[Step],
    done: dict[str, Record],
    executor: Executor,
    on_event: Callable[[str, State, dict[str, Any]], None],
) -> None:
    running: dict[Future[Record], State] = {}
    failure: BaseException | None = None
    while running or (pending and failure is None):
        # Only as many as can run: a step that becomes ready later may come earlier in the plan.
        for step in list(pending) if failure is None else []:
            if len(running) >= executor.max_concurrent:
                break
            state = _state(plan, store, step, done, explain=True)
            if state.state == "waiting":
                continue
            pending.remove(step)
            if state.record:
                done[step.name] = state.record
                on_event("cached", state, {})
                continue
            on_event("start", state, {})
            call = _call(plan, store, state, done)
            try:
                if plan.recipe.run.executor != "hf-jobs":
                    for folder in call.folders.values():
                        bring_home(store.root, folder)
                running[executor.submit(call)] = state
            except HubkitError as error:
                failure = error
                break
        # On a shared folder the progress of a thousand steps must not be read three times a second.
        pause = max(0.3, 0.01 * len(running))
        finished, _ = wait(running, timeout=pause, return_when=FIRST_COMPLETED)
        for future in finished:
            state = running.pop(future)
            try:
                record = future.result()
            except BrokenProcessPool:
                lower = {"student": "lower run.tokens_per_device or sft.max_length; "}.get(
                    state.step.kind, ""
                )
                failure = failure or StepError(
                    f"{state.step.name}: its worker process died (killed, or out of memory)",
                    f"run again: it goes on where it stopped; {lower}fewer run.workers need less memory",
                )
            except Exception as error:
                failure = failure or error
            else:
                done[state.step.name] = record
                on_event("done", State(state.step, "done", state.key, record), {})
        for state in running.values():
            if info := read_progress(store, state.step.name, state.key):
                on_event("progress", state, info)
    if failure:
        raise failure


def read_progress(store: Store, step: str, key: str) -> dict[str, Any]:
    """Returns the last progress of a running step: {"done", "total", "time", …}, or {}."""
    try:
        info: dict[str, Any] = json.loads(
            (store.work(step, key) / "progress.json").read_text(encoding="utf-8")
        )
        info["age_s"] = round(time.time() - info["time"], 1)
        return info
    except (OSError, ValueError, KeyError):
        return {}


def _call(plan: Plan, store: Store, state: State, done: dict[str, Record]) -> StepCall:
    step = state.step
    return StepCall(
        function=step.function,
        step=step.name,
        kind=step.kind,
        version=step.version,
        key=state.key,
        config=step.config,
        runtime=step.runtime,
        inputs=_inputs(plan, step, done),
        folders={name: store.folder(of, done[of].key) for name, of in step.inputs.items()},
        models={
            name: {"model": plan.models[ref].model, "revision": plan.models[ref].revision}
            for name, ref in step.models.items()
        },
        paths=step.paths,
        root=store.root,
    )
