"""hubkit recipe: list, new, show, schema, plan, run, status, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hubkit.cli import screen
from hubkit.cli.sources import reads

if TYPE_CHECKING:
    from hubkit.recipe.config import Recipe
    from hubkit.recipe.estimate import Estimate
    from hubkit.recipe.graph import Plan, Step
    from hubkit.recipe.pipeline import State
    from hubkit.store import Record, Store

__all__ = ["app"]

app = typer.Typer(
    help="Run recipes: from problems to a published release.", no_args_is_help=True, rich_markup_mode=None
)

RecipePath = Annotated[Path, typer.Argument(help="A recipe.yaml.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B=C", help="Override a key, e.g. --set students.seeds=[0,1]. Repeatable."
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Folder of finished steps and work under way.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RUNS = Path("runs")
_WIDE: Final = 110
"""Minimum columns of a terminal for a plan to show all columns."""


def _open(
    path: Path, sets: list[str] | None, out: Path, remember: bool = False
) -> tuple[Recipe, Plan, Store]:
    from hubkit.errors import InputError
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.plan import make_plan
    from hubkit.store import Store

    recipe = load_recipe(path, sets)
    root = out.resolve()
    if root.exists() and not root.is_dir():
        raise InputError(f"{out} is not a folder", "choose another with --out")
    return recipe, make_plan(recipe, path, root, remember), Store(root)


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(help="Where to look for recipes.")] = Path("recipes"),
    as_json: Json = False,
) -> None:
    """List the recipes below a folder, with what each is for.

    Example: hubkit recipe list
    """
    from hubkit.errors import RecipeError
    from hubkit.recipe.file import load_recipe

    found = []
    for path in sorted(folder.glob("*/*.yaml")):
        try:
            recipe = load_recipe(path)
            found.append({"path": str(path), "name": recipe.name, "description": recipe.description})
        except RecipeError as error:
            found.append({"path": str(path), "name": "", "description": f"cannot be read: {error.message}"})
    if not found:
        raise RecipeError(f"no recipes below {folder}", "give the folder that holds them")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    screen.show(
        screen.grid(("recipe", "what it does"), [(entry["path"], entry["description"]) for entry in found])
    )


@app.command()
@reads("verifier", rows=1000)
def new(
    options: Any,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="SOURCE", help="Traces to begin with: org/name on the Hub, or a file."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The recipe file to write; it must not exist yet.")
    ] = Path("recipe.yaml"),
) -> None:
    """Write a commented recipe for existing traces, after reading the first of them.

    Example: hubkit recipe new --from open-r1/OpenR1-Math-220k --out recipe.yaml
    """
    from hubkit.stages.inspect import inspect
    from hubkit.stages.scaffold import check_free, write_recipe
    from hubkit.stages.source import open_source

    check_free(out)
    origin, pin = open_source(source, options)
    write_recipe(out, origin, inspect(origin, pin, sample=0 if options.verifier == "judge" else 50), source)
    typer.echo(f"{out} is written; see what it would do: hubkit recipe plan {out}")


@app.command()
def show(path: RecipePath, sets: Sets = None, as_json: Json = False) -> None:
    """Print a recipe with all defaults filled in, as it would run.

    Example: hubkit recipe show recipes/nano/recipe.yaml --set seed=1
    """
    import yaml

    from hubkit.recipe.file import load_recipe

    values = load_recipe(path, sets).model_dump(mode="json")
    text = (
        json.dumps(values, indent=2)
        if as_json
        else yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    )
    typer.echo(text.rstrip())


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, with which editors complete and check keys.

    A line at the top of a recipe names it: # yaml-language-server: $schema=../../docs/recipe.schema.json

    Example: hubkit recipe schema > recipe.schema.json
    """
    from hubkit.recipe.file import json_schema

    typer.echo(json_schema())


@app.command()
def plan(path: RecipePath, sets: Sets = None, out: Out = RUNS, as_json: Json = False) -> None:
    """Show every step: which are done, which would run and why, with estimates of tokens, time and bytes.

    The column `from` says where an estimate comes from. record: the step is done. earlier run: the same step
    with other inputs or settings. inputs: outputs of the steps before it. limits: the rows of the sources, the
    recipe's limits on lengths and the speed of a CPU; real answers are shorter and take less time. "?" cannot be
    known before the run; "+" marks a size without its unknown parts. Answers that are already in the runs folder,
    and are not asked for again, are counted.

    Example: hubkit recipe plan recipes/nano/recipe.yaml
    """
    from rich.text import Text

    from hubkit.recipe.estimate import answered, estimate_all
    from hubkit.recipe.pipeline import status as states_of

    _, a_plan, store = _open(path, sets, out)
    states = states_of(a_plan, store)
    estimates = estimate_all(a_plan, store, states)
    had = answered(a_plan, store, states)
    if as_json:
        rows = [
            {
                "step": s.step.name,
                "state": s.state,
                "why": s.why,
                "key": s.key,
                "answered": had[s.step.name].number if s.step.name in had else 0,
                **estimates[s.step.name].__dict__,
            }
            for s in states
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    whole = screen.columns() >= _WIDE
    cells = []
    for state in states:
        name, guess = state.step.name, estimates[state.step.name]
        what = "cached" if state.state == "done" else "to run"
        why = f"{had[name]}; {state.why}" if name in had else state.why
        cells.append((name, what, *guess.cells(), guess.source, why))
        if not whole:
            _, seconds, _ = guess.cells()
            reason = f": {why}" if why and state.state == "ready" else ""
            screen.show(Text(f"{name}  {what}, {seconds} s{reason}"))
    if whole:
        screen.show(screen.grid(("step", "state", "tokens", "seconds", "bytes", "from", "why"), cells))
    else:
        typer.echo("\ntokens, bytes and all reasons: in a wider terminal, or with --json")
    typer.echo(_words(_ahead(a_plan, states, estimates)))


def _ahead(a_plan: Plan, states: list[State], estimates: dict[str, Estimate]) -> dict[str, Any]:
    """How many of these steps are to run, and how long they may take. `longest`: most of the time is an upper bound,
    from limits on lengths."""
    waiting = [estimates[state.step.name] for state in states if state.state != "done"]
    seconds = sum(guess.seconds or 0 for guess in waiting) / a_plan.recipe.run.workers
    unknown = sum(guess.seconds is None for guess in waiting)
    # An upper bound, from limits on lengths: real answers are shorter.
    bound = sum(guess.seconds or 0 for guess in waiting if guess.source == "limits" and guess.tokens)
    longest = 2 * bound / a_plan.recipe.run.workers > seconds
    return {
        "steps": len(waiting),
        "of": len(states),
        "seconds": round(seconds),
        "unknown": unknown,
        "longest": longest,
    }


def _words(ahead: dict[str, Any]) -> str:
    if not ahead["steps"]:
        return "nothing to do: every step is done"
    note = f", {ahead['unknown']} of unknown time" if ahead["unknown"] else ""
    seconds = ahead["seconds"]
    time = f"{seconds} s" if seconds < 90 else f"{seconds / 60:.1f} min"
    time += " if every answer is as long as it may be" if ahead["longest"] else ""
    return f"{ahead['steps']} of {ahead['of']} steps to run, about {time}{note}"


@app.command()
def run(
    path: RecipePath,
    sets: Sets = None,
    until: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEP",
            help="Stop after these steps: a kind (raw), a name or a pattern (student/s-*). Repeatable.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="Run only these steps; what they need must be done. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and show the plan; run nothing.")
    ] = False,
    out: Out = RUNS,
    trackio: Annotated[
        bool,
        typer.Option("--trackio", help="Also write progress to Trackio: `trackio show --project RECIPE`."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: run every step that is not done, publish, and print the table of students.

    It can be stopped at any moment and run again: finished steps stay, generation and training go on
    where they were. Changing a field reruns exactly what depends on it.

    Example: hubkit recipe run recipes/nano/recipe.yaml --until compressed
    """
    if dry_run:
        from hubkit.recipe.preflight import check

        _, a_plan, store = _open(path, sets, out)
        check(a_plan, store)
        plan(path, sets, out, as_json)
        return
    from hubkit.cli.progress import Display
    from hubkit.cli.tracking import Tracker
    from hubkit.recipe import pipeline
    from hubkit.recipe.preflight import check

    try:
        _, a_plan, store = _open(path, sets, out, remember=True)
        steps = pipeline.select(a_plan, until or (), only or ())
        check(a_plan, store, steps)
        name = a_plan.recipe.name
        with Display(name, len(steps), as_json) as display, Tracker(name, trackio) as tracker:

            def on_event(event: str, state: State, info: dict[str, Any]) -> None:
                if event == "start" and display.ran == 0:
                    _say_ahead(a_plan, store, steps, as_json)
                tracker.on_event(event, state, info)
                display.on_event(event, state, info)

            records = pipeline.run(a_plan, store, steps, on_event)
    except KeyboardInterrupt:
        typer.echo("stopped; run the same command again to go on where it was", err=True)
        raise typer.Exit(130) from None
    if display.ran == 0:
        typer.echo(json.dumps({"event": "nothing_to_do"}) if as_json else "nothing to do: every step is done")
    if "report" in records and not as_json:
        _closing(a_plan, store, records)


def _say_ahead(a_plan: Plan, store: Store, steps: list[Step], as_json: bool) -> None:
    """Print, before the first step runs, how many steps there are and how long they may take."""
    from hubkit.recipe import pipeline
    from hubkit.recipe.estimate import estimate_all

    wanted = {step.name for step in steps}
    states = pipeline.status(a_plan, store, explain=False)
    estimates = estimate_all(a_plan, store, states, remember=True)
    ahead = _ahead(a_plan, [state for state in states if state.step.name in wanted], estimates)
    if as_json:
        typer.echo(json.dumps({"event": "estimate", **ahead}))
    else:
        typer.echo(_words(ahead), err=True)


def _closing(a_plan: Plan, store: Store, records: dict[str, Record]) -> None:
    """The table of students, the report's path and the three commands that use the release."""
    from hubkit.release.report import seeds_table, table

    folder = store.folder("report", records["report"].key)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    if results.get("headline"):
        from rich.text import Text

        screen.show(Text(f"{results['headline']}\n"))
    screen.show(table(results, screen.columns()))
    if (seeds := seeds_table(results, screen.columns())) is not None:
        typer.echo()
        screen.show(seeds)
    typer.echo(f"\nreport: {folder / 'report.html'}")
    if "publish" in records:
        from hubkit.release.publish import usage

        release = json.loads(
            (store.folder("publish", records["publish"].key) / "release.json").read_text(encoding="utf-8")
        )
        typer.echo("\nuse what was published:")
        hub = store.root / "hub"
        for command in usage(release, hub if a_plan.recipe.hub.endpoint == "local" else None):
            typer.echo(f"  {command}")


@app.command()
def status(path: RecipePath, sets: Sets = None, out: Out = RUNS, as_json: Json = False) -> None:
    """Show a recipe's progress: which steps are done, running, interrupted, ready or waiting.

    Example: hubkit recipe status recipes/nano/recipe.yaml
    """
    from hubkit.cli.progress import live_words
    from hubkit.recipe import pipeline
    from hubkit.store import is_locked

    recipe, a_plan, store = _open(path, sets, out)
    running = is_locked(store.root / "locks" / f"run-{recipe.name}.lock")
    rows: list[dict[str, Any]] = []
    for state in pipeline.status(a_plan, store):
        progress = pipeline.read_progress(store, state.step.name, state.key) if state.state == "ready" else {}
        # The process that runs a step holds its lock, on whatever machine.
        busy = state.state == "ready" and store.is_busy(state.key)
        name = "running" if busy else "interrupted" if progress else state.state
        rows.append({"step": state.step.name, "state": name, "counts": _counts(state), "progress": progress})
    if as_json:
        typer.echo(json.dumps({"recipe": recipe.name, "running": running, "steps": rows}, indent=2))
        return
    cells = []
    for row in rows:
        progress = row["progress"]
        words = [f"{progress['done']}/{progress['total']}", *live_words(progress)] if progress else []
        cells.append((row["step"], row["state"], ", ".join(words) or row["counts"]))
    screen.show(screen.grid(("step", "state", ""), cells))
    done = sum(row["state"] == "done" for row in rows)
    under_way = "a run is under way" if running else "no run is under way"
    missing = "" if store.root.is_dir() else f"; there is no folder {out} yet"
    typer.echo(f"{done} of {len(rows)} steps done; {under_way}{missing}")


def _counts(state: State) -> str:
    return ", ".join(f"{name} {n}" for name, n in state.record.counts.items()) if state.record else ""


@app.command()
def report(path: RecipePath, sets: Sets = None, out: Out = RUNS, as_json: Json = False) -> None:
    """Print the headline and the table of students of a finished recipe, and where its HTML report is.

    Makes the report if all its inputs are done. If settings or hubkit have changed since, it shows the newest
    report of this recipe and says so; no other step is run.

    Example: hubkit recipe report recipes/nano/recipe.yaml --json
    """
    from hubkit.errors import InputError
    from hubkit.recipe import pipeline

    recipe, a_plan, store = _open(path, sets, out)
    steps = pipeline.select(a_plan, only=["report"])
    done = {s.step.name: s.record for s in pipeline.status(a_plan, store, explain=False) if s.record}
    if all(name in done for step in steps for name in step.inputs.values()):
        done = pipeline.run(a_plan, store, steps, lambda event, state, info: None)
    elif "report" not in done:
        found = _earlier_report(store, recipe.name)
        if found is None:
            raise InputError(f"{recipe.name!r} has no report yet", f"run it first: hubkit recipe run {path}")
        typer.echo("an earlier run's: settings, data or hubkit have changed since", err=True)
        done = {"report": found}
    if as_json:
        folder = store.folder("report", done["report"].key)
        typer.echo((folder / "results.json").read_text(encoding="utf-8").rstrip())
    else:
        _closing(a_plan, store, done)


def _earlier_report(store: Store, recipe: str) -> Record | None:
    """The newest report of a recipe among the finished ones, whatever its settings were."""
    for record in store.records("report"):
        path = store.folder("report", record.key) / "results.json"
        if json.loads(path.read_text(encoding="utf-8")).get("recipe") == recipe:
            return record
    return None
