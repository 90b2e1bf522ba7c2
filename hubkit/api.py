"""Those functions of the Python API that have no other module; `hubkit` exports them, loaded when used.

Traces come back in the form in which they were given: a list of dicts, or a datasets.Dataset. A trace has `problem`,
`answer` (where answers are compared), and `reasoning` and `solution`, or `messages` from which both are split; `id`,
`sample` and `verifier` may be left out. `compress` runs the recipe's own step in a folder: with `folder` given, an
interrupted call goes on where it stopped and a finished one is not repeated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.problems.base import problem_id
from hubkit.problems.cells import Cell
from hubkit.records import PROBLEM_SCHEMA, messages_of, read_rows, write_rows
from hubkit.stages.compressing import compressor_of
from hubkit.stages.source import tokenizer_folder
from hubkit.stages.step import compress_step, pinned_model, pinned_tokenizer
from hubkit.store import Store
from hubkit.traces.lengths import count_tokens as _count_tokens
from hubkit.traces.lengths import load_tokenizer, token_counts
from hubkit.traces.thinking import split
from hubkit.traces.variants import VARIANTS
from hubkit.verifiers.table import verifier_named

if TYPE_CHECKING:
    import pandas

    from hubkit.recipe.pipeline import State
    from hubkit.store import Record

__all__ = ["compress", "count_tokens", "results", "run", "truncate"]

_COLUMNS: Final = "give `problem` and `reasoning`, or `messages`"

Traces = TypeVar("Traces")
"""list[dict] or datasets.Dataset."""


def compress(
    traces: Traces,
    *,
    model: str | Path = "",
    kind: str = "rewrite",
    tokenizer: str | Path | None = None,
    prompt: str | None = None,
    max_tokens: int = 4096,
    temperature: float = 0.0,
    attempts: int = 2,
    seed: int = 0,
    engine: EngineRuntime | None = None,
    device: str = "auto",
    folder: Path | None = None,
    on_rejected: Callable[[dict[str, Any]], None] | None = None,
    **settings: Any,
) -> Traces:
    """Shorten the reasoning of traces with a model. Returns the traces whose shortened form passed the checks.

    `kind` is a kind of compressor in a recipe: rewrite and prune, which ask the model and keep replies that still
    reach the right answer; prune-steps and prune-tokens, which score the text with it. `settings` are further keys of
    the kind, such as ratio=0.3, by="answer", chunk_tokens=2000, solution="final-line" or reserve=["="] (docs/keys.md).
    `prompt`, `max_tokens`, `temperature` and `attempts` are for rewrite and prune.

    `model` and `tokenizer` are folders or Hub ids; the tokenizer counts lengths, and is the model's own by default.
    `engine` can name a server, for example EngineRuntime(engine="openai", endpoint="http://…/v1"); `tokenizer` must
    then be given. Rows gain `reasoning_tokens`, `raw_reasoning_tokens` and `ratio`; `on_rejected` is called with each
    dropped row and its `reason`.

    Raises InputError for traces that lack a column and for settings that the kind does not take, EngineError if the
    model cannot answer.
    """
    engine = engine or EngineRuntime()
    served = engine.engine == "openai"
    if served and tokenizer is None:
        raise InputError("lengths are counted by a tokenizer, and an endpoint has none", "give `tokenizer`")
    compressor = compressor_of(
        kind,
        str(model),
        name="compressor",
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        attempts=attempts,
        **settings,
    )
    used = compressor.model_ref()
    if used is None:
        raise InputError(f"a compressor of kind {kind} has no model", "use a recipe: docs/recipes.md")
    if served and not compressor.generator():
        raise InputError(f"a compressor of kind {kind} loads its model itself", "leave `engine` out")
    tokens = pinned_tokenizer(tokenizer if tokenizer is not None else used.model)
    with _work(folder) as work:
        rows = _write_raw(traces, work, tokens)
        out = compress_step(
            work,
            "compress",
            compressor,
            raw=work / "in",
            problems=work / "in",
            model=pinned_model(used.model, used.revision, served=served),
            tokenizer=tokens,
            engine=engine,
            seed=seed,
            device=device,
        )
        if on_rejected:
            for row in read_rows(out / "rejected.parquet"):
                on_rejected(row)
        made = {(row["id"], row["sample"]): row for row in read_rows(out / "data.parquet")}
        kept = ((row, made.get((row["id"], row["sample"]))) for row in rows)
        return _as_given(traces, ((row, new) for row, new in kept if new is not None))


def truncate(traces: Traces, *, tokens: int | Sequence[int], tokenizer: str | Path) -> Traces:
    """Cut the reasoning of traces off at a number of tokens: one for all, or one for each trace.

    This is the control in the paper's ablation. A shorter trace stays as it is. Rows gain `reasoning_tokens`,
    `raw_reasoning_tokens` and `ratio`. Raises InputError for a tokenizer that cannot say where its tokens end.
    """
    from hubkit.traces.cut import cut_batch

    rows = [_trace(row, number) for number, row in enumerate(_rows(traces))]
    budgets = [tokens] * len(rows) if isinstance(tokens, int) else list(tokens)
    if len(budgets) != len(rows):
        raise InputError(
            f"{len(rows)} traces and {len(budgets)} lengths", "give one length for each trace, or one"
        )
    if any(budget < 0 for budget in budgets):
        raise InputError(f"{min(budgets)} is no number of tokens", "give 0 or more")
    loaded = load_tokenizer(tokenizer_folder(tokenizer))
    lengths = token_counts(loaded, [row["reasoning"] for row in rows])
    cuts = cut_batch(loaded, [row["reasoning"] for row in rows], budgets, lengths)
    cut_rows = (
        row | {"reasoning": text, "reasoning_tokens": count, "raw_reasoning_tokens": length}
        for row, (text, count), length in zip(rows, cuts, lengths, strict=True)
    )
    return _as_given(traces, zip(rows, cut_rows, strict=True))


def count_tokens(traces: Any, *, tokenizer: str | Path) -> list[int]:
    """Returns the number of tokens of each trace's reasoning, or of each text in a list; no special tokens."""
    texts = [
        row if isinstance(row, str) else _trace(row, i)["reasoning"] for i, row in enumerate(_rows(traces))
    ]
    return _count_tokens(tokenizer_folder(tokenizer), texts)


def run(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path = "runs",
    until: Sequence[str] = (),
    only: Sequence[str] = (),
    on_event: Callable[[str, State, dict[str, Any]], None] = lambda event, state, info: None,
) -> dict[str, Record]:
    """Run a recipe file as `hubkit recipe run` does: check it, run every step that is not done, publish.

    `overrides` are texts such as "students.seeds=[0,1]"; `until` and `only` choose steps by kind, name or pattern.
    `on_event(event, state, info)` is called with the events cached, start, progress and done. Returns the records of
    all finished steps by name. Raises a HubkitError with its remedy if the run cannot go on; finished steps are kept.
    """
    from hubkit.recipe import pipeline
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.plan import make_plan
    from hubkit.recipe.preflight import check

    path, store = Path(recipe), Store(Path(out).resolve())
    plan = make_plan(load_recipe(path, list(overrides)), path, store.root)
    steps = pipeline.select(plan, until, only)
    check(plan, store, steps)
    return pipeline.run(plan, store, steps, on_event)


def results(
    recipe: str | Path, *, overrides: Sequence[str] = (), out: str | Path = "runs"
) -> pandas.DataFrame:
    """Returns the results of a finished recipe: one row per student and benchmark (RESULTS_SCHEMA in
    hubkit/release/results.py has the columns).

    Raises InputError if it has not been run to its report.
    """
    import json

    import pandas

    from hubkit.recipe import pipeline
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.plan import make_plan

    path, store = Path(recipe), Store(Path(out).resolve())
    plan = make_plan(load_recipe(path, list(overrides)), path, store.root)
    done = {s.step.name: s.record for s in pipeline.status(plan, store, explain=False) if s.record}
    if "report" not in done:
        raise InputError(f"{plan.recipe.name!r} has no report yet", f"run it first: hubkit recipe run {path}")
    text = (store.folder("report", done["report"].key) / "results.json").read_text(encoding="utf-8")
    return pandas.DataFrame(json.loads(text)["students"])


def _rows(traces: Any) -> Iterable[Any]:
    """Rows of a list or a datasets.Dataset."""
    if isinstance(traces, Mapping | str) or not isinstance(traces, Iterable):
        raise InputError(
            f"traces are a list or a datasets.Dataset, not {type(traces).__name__}", "wrap one in a list"
        )
    return traces


def _trace(row: Any, number: int) -> dict[str, Any]:
    """Returns a row with the keys that steps need. Raises InputError, naming the row, if one is missing or wrong."""
    if not isinstance(row, Mapping):
        raise InputError(f"trace {number} is a {type(row).__name__}, no dict", _COLUMNS)
    trace = dict(row)
    if messages := trace.get("messages"):
        chat = Cell(f"trace {number}", "messages", messages)
        if "problem" not in trace:
            trace["problem"] = chat.problem()
        if "reasoning" not in trace:
            thought = split(chat.answer())
            trace |= {"reasoning": thought.reasoning, "solution": thought.solution}
    trace.setdefault("solution", "")
    for name in ("problem", "reasoning", "solution"):
        if not isinstance(trace.get(name), str):
            raise InputError(f"trace {number} has no {name}", _COLUMNS)
        try:
            trace[name].encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"trace {number}: half a character at {error.start} of its {name}", "fix the text in that row"
            ) from None
    return trace


def _write_raw(traces: Any, work: Path, tokenizer: dict[str, str]) -> list[dict[str, Any]]:
    """Write problems.parquet and data.parquet as a verified `raw` step would; returns the traces."""
    rows = [_trace(row, number) for number, row in enumerate(_rows(traces))]
    if not rows:
        raise InputError("there are no traces", "give at least one")
    for number, row in enumerate(rows):
        if not isinstance(row.get("answer"), str):
            raise InputError(
                f"trace {number} has no answer", "compressed traces are kept when they still reach it"
            )
        checks = verifier_named(str(row.get("verifier") or "math"))
        if isinstance(row.get("metadata"), Mapping):
            row["metadata"] = checks.checked(row["metadata"], f"trace {number}: metadata")
    lengths = _count_tokens(tokenizer_folder(tokenizer["model"]), [row["reasoning"] for row in rows])
    keys: dict[tuple[str, int], int] = {}
    first: dict[str, int] = {}
    judged_by = ("problem", "answer", "verifier", "metadata")
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        row["id"] = problem_id("trace", row["problem"]) if row.get("id") in (None, "") else str(row["id"])
        before = rows[first.setdefault(row["id"], number)]
        if other := next((name for name in judged_by if row.get(name) != before.get(name)), None):
            raise InputError(
                f"trace {number} has the id {row['id']!r} of trace {first[row['id']]}, and another {other}",
                "give each problem an `id` of its own",
            )
        row["sample"] = _sample(row, number)
        while (row["id"], row["sample"]) in keys:
            row["sample"] += 1
        keys[row["id"], row["sample"]] = number
        row |= {"raw_reasoning_tokens": length, "raw_reasoning_chars": len(row["reasoning"])}
    defaults = {
        "verifier": "math",
        "source": "",
        "metadata": "",
        "teacher": "",
        "finish_reason": "stop",
        "correct": True,
    }
    problems = {row["id"]: defaults | {n: row[n] for n in PROBLEM_SCHEMA.names if n in row} for row in rows}
    ordered = sorted(rows, key=lambda row: (row["id"], row["sample"]))
    (work / "in").mkdir(parents=True, exist_ok=True)
    schema = VARIANTS["raw"].schema
    given = (
        {name: (defaults | row).get(name) for name in schema.names}
        | {
            "messages": messages_of(row["problem"], row["reasoning"], row["solution"]),
            "reasoning_tokens": row["raw_reasoning_tokens"],
            "reasoning_chars": row["raw_reasoning_chars"],
            "ratio": 1.0,
        }
        for row in ordered
    )
    try:
        problem_rows = (problems[id] for id in sorted(problems))
        write_rows(work / "in" / "problems.parquet", problem_rows, PROBLEM_SCHEMA)
        write_rows(work / "in" / "data.parquet", given, schema)
    except pa.ArrowException as error:
        raise InputError(
            f"a column of the traces has values of another type: {error}", "see docs/api.md"
        ) from None
    return rows


def _as_given(traces: Traces, pairs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> Traces:
    """Traces and what was made of them, in the form of those that were given, with their further columns."""
    columns = ("reasoning", "solution", "reasoning_tokens", "raw_reasoning_tokens")
    rows = [
        old
        | {name: new[name] for name in columns}
        | {
            "ratio": new["reasoning_tokens"] / max(1, new["raw_reasoning_tokens"]),
            "messages": messages_of(old["problem"], new["reasoning"], new["solution"]),
        }
        for old, new in pairs
    ]
    if isinstance(traces, list):
        return rows  # type: ignore[return-value]
    import datasets

    return datasets.Dataset.from_list(rows)  # type: ignore[no-any-return]


def _sample(row: Mapping[str, Any], number: int) -> int:
    try:
        return int(row.get("sample") or 0)
    except (TypeError, ValueError):
        raise InputError(
            f"trace {number}: its sample {row['sample']!r} is no number", "count from 0"
        ) from None


@contextmanager
def _work(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="hubkit-") as temporary:
        yield Path(temporary)
