"""One stage alone, in a folder that loads as a dataset: the recipe's steps, one after the other.

    verify("org/name", Path("verified"))                               traces, raw
    compress("verified", Path("short"), compressor, …)                 compress, compressed
    truncate("verified", Path("cut"), tokens=500, tokenizer="org/x")   truncated

    verified/README.md  data/raw/train-00000-of-00001.parquet  rejected.parquet  .hubkit/

A source may be the folder of an earlier stage: its verified traces are then used as they are. Steps are kept in
`.hubkit`, as a recipe keeps them in its run: the same call goes on where it stopped, and makes nothing twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.problems.base import Pin
from hubkit.push import Pushed
from hubkit.records import read_rows
from hubkit.section import is_repo_id
from hubkit.stages.folder import INNER, Stage, check_own, own_folder, put, read_stage, relative, shown_files
from hubkit.stages.inspect import Stats, stats
from hubkit.stages.source import SourceOptions, open_source, tokenizer_folder
from hubkit.stages.step import compress_step, pinned_model, pinned_tokenizer, run_step
from hubkit.store import Record
from hubkit.traces.compressors import Compressor
from hubkit.traces.origins.existing import Existing, read
from hubkit.traces.variants import VARIANTS, Variant
from hubkit.verifiers.table import verifier_named

__all__ = [
    "compress",
    "lengths_of",
    "push",
    "truncate",
    "verify",
]


@dataclass(frozen=True)
class _Earlier:
    """The folder of an earlier stage."""

    folder: Path
    stage: Stage


def verify(
    source: str, out: Path, options: SourceOptions | None = None, tokenizer: str | Path | None = None
) -> Stage:
    """Read traces, verify their answers again, and write the correct ones. Returns the content of `out`.

    Without a tokenizer, columns of tokens are null. Raises InputError if the source cannot be read or `out` has other
    contents, GateError if no trace is correct.
    """
    check_own(out)
    found = _found(source, options)
    with own_folder(out):
        return put(out, _verified(found, out, tokenizer), "raw")


def compress(
    source: str,
    out: Path,
    compressor: Compressor,
    *,
    tokenizer: str | Path | None = None,
    engine: EngineRuntime | None = None,
    options: SourceOptions | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Stage:
    """Shorten verified traces with a compressor, and write those that pass its checks.

    Lengths are counted by `tokenizer`, by default the model's own. Raises as `verify` does, and EngineError if the
    model cannot answer.
    """
    engine = engine or EngineRuntime()
    if engine.engine == "openai" and tokenizer is None:
        raise InputError("lengths are counted by a tokenizer, and an endpoint has none", "give a tokenizer")
    if options and options.unverified:
        raise InputError(
            "shortened traces are kept when they still reach the answer", "leave out --unverified"
        )
    used = compressor.model_ref()
    if used is None:
        raise InputError(f"{compressor.name} has no model", "use a recipe: docs/recipes.md")
    served = engine.engine == "openai"
    if served and not compressor.generator():
        raise InputError(f"{compressor.name} loads its model itself", "give --model, not --endpoint")
    check_own(out)
    found = _found(source, options)  # before the model, which may have to be asked for elsewhere
    with own_folder(out):
        model = pinned_model(used.model, used.revision, served=served)
        by = tokenizer if tokenizer is not None else used.model
        stage = _verified(found, out, by)
        if stage.unverified:
            raise InputError(f"the traces in {source} are not verified", "verify them first")
        root, raw = out / INNER, stage.step(out, "raw")
        of = f"{stage.name}/{compressor.name}"
        made = compress_step(
            root,
            f"compress/{of}/0",
            compressor,
            raw=raw,
            problems=stage.step(out, "traces"),
            model=model,
            tokenizer=pinned_tokenizer(by),
            engine=engine,
            seed=seed,
            device=device,
        )
        joined = run_step(
            root,
            f"compressed/{of}",
            VARIANTS["compressed"].step,
            {"teacher": stage.name, "compressor": compressor.name},
            inputs={"raw": raw, "shard-0": made},
            models={"tokenizer": pinned_tokenizer(by)} if compressor.solution == "shorten" else {},
        )
        variant = Variant("compressed", compressor.name)
        stage = replace(
            stage,
            stage="compress",
            variant="compressed",
            config=variant.name,
            how=compressor.describe(),
            texts=compressor.texts(),
            steps=stage.steps | {"compress": relative(out, made), "compressed": relative(out, joined)},
        )
        return put(out, stage, "compressed")


def truncate(
    source: str,
    out: Path,
    *,
    tokenizer: str | Path,
    tokens: int | None = None,
    to: str | Path | None = None,
    to_config: str | None = None,
    kind: str = "truncated",
    seed: int = 0,
    options: SourceOptions | None = None,
) -> Stage:
    """Cut the reasoning of verified traces: all to `tokens`, or each to its length in `to`.

    `to` has the same traces in compressed form: a folder that `compress` made, a file, or a dataset on the Hub, whose
    config is `to_config`. `kind` is the control, which says which part of a trace stays; `seed` is for random ones.
    Raises as `verify` does, and InputError if `to` has other traces, or lengths by another tokenizer.
    """
    controls = [name for name, row in VARIANTS.items() if row.matched]
    if kind not in controls:
        raise InputError(f"there is no control {kind!r}", f"give one of {', '.join(controls)}")
    if (tokens is None) == (to is None):
        raise InputError("say where to cut", "give either a number of tokens or compressed traces")
    target = read_stage(Path(to)) if to is not None else None
    if target is not None and target.variant != "compressed":
        raise InputError(f"{to} is not a folder of compressed traces", "give one that `compress` made")
    check_own(out)
    # Before anything is made, so that a wrong name is an error at once.
    found = _found(source, options)
    other = open_source(str(to), _whole(to_config)) if to is not None and target is None else None
    with own_folder(out):
        stage = _verified(found, out, tokenizer)
        inputs = {"raw": stage.step(out, "raw")}
        if to is not None:
            if target is not None:
                if target.tokenizer != stage.tokenizer:
                    raise InputError(
                        f"lengths in {to} were counted by another tokenizer", "give the same one"
                    )
                inputs["compressed"] = target.step(Path(to), "compressed")
                name = Record.read(inputs["compressed"]).config["compressor"]
            elif other is not None:
                name = other[0].name
                inputs["compressed"] = _lengths(out / INNER, *other, inputs["raw"], tokenizer)
            config: dict[str, Any] = {"teacher": stage.name, "compressor": name}
            how = f"to the length of {name}'s, trace by trace"
        else:
            config = {"teacher": stage.name, "tokens": tokens}
            name = str(tokens)
            how = f"to {tokens:,} tokens; shorter ones are as they were"
        config |= {"seed": seed} if VARIANTS[kind].seeded else {}
        made = run_step(
            out / INNER,
            f"{kind}/{stage.name}/{name}",
            VARIANTS[kind].step,
            config,
            inputs=inputs,
            models={"tokenizer": pinned_tokenizer(tokenizer)},
        )
        stage = replace(
            stage,
            stage="truncate",
            variant=kind,
            config=f"{kind}-{name}",
            how=f"The reasoning of each trace was cut down {how}. What is left: {VARIANTS[kind].leaves}",
            steps=stage.steps | {kind: relative(out, made)},
        )
        return put(out, stage, kind)


def lengths_of(source: str, tokenizer: str | Path, options: SourceOptions | None = None) -> Stats:
    """Lengths of the traces of a source or of a stage's folder, by this tokenizer."""
    folder = Path(source)
    stage = read_stage(folder)
    opened = open_source(source, options) if stage is None else None
    counted = tokenizer_folder(tokenizer)
    if stage is not None:
        data = stage.step(folder, stage.variant) / "data.parquet"
        columns = ["reasoning", "solution", "raw_reasoning_tokens"]
        same = stage.variant != "raw" and pinned_tokenizer(tokenizer)["digest"] == stage.tokenizer
        before = (
            sum(row["raw_reasoning_tokens"] for row in read_rows(data, columns=columns[2:])) if same else None
        )
        rows = ((row["reasoning"], row["solution"]) for row in read_rows(data, columns=columns[:2]))
        told = Record.read(stage.step(folder, stage.variant)).metrics.get("raw_solution_tokens")
        return stats(rows, str(folder), counted, before, told)
    assert opened is not None
    origin, pin = opened
    found = read(origin, pin, 0, lambda reason, detail: None)
    texts = ((t.thought.reasoning, t.thought.solution) for _, traces in found for t in traces)
    return stats(texts, origin.place(), counted)


def push(folder: Path, repo_id: str, private: bool = False) -> Pushed:
    """Push a stage's folder as a dataset to the Hub that HF_ENDPOINT names, in one commit.

    Raises InputError if the folder has no finished stage, HubError if the Hub refuses.
    """
    from hubkit.hub import check_namespace, default_access
    from hubkit.push import push as to_hub
    from hubkit.release.stage import stage_card

    stage = read_stage(folder)
    if stage is None:
        raise InputError(
            f"{folder} is not the folder of a finished stage", "give one that `hubkit traces` made"
        )
    if not is_repo_id(repo_id, owned=True):
        raise InputError(f"{repo_id!r} is no Hub id", "write org/name")
    access = default_access()
    check_namespace(access, repo_id.partition("/")[0])
    shown = shown_files(folder, stage)
    if gone := [file for file in shown if not file.is_file()]:
        raise InputError(f"{gone[0]} is gone", "run the stage again into a new folder")
    files: dict[str, Path | bytes] = {file.relative_to(folder).as_posix(): file for file in shown}
    files["README.md"] = stage_card(asdict(stage), stage.records(folder), repo_id).encode()
    return to_hub(access, repo_id, "dataset", files, f"hubkit traces {stage.stage}", private)


def _found(source: str, options: SourceOptions | None) -> _Earlier | tuple[Existing, Pin]:
    """Returns where a stage's traces are, without reading them."""
    stage = read_stage(Path(source))
    if stage is not None:
        if options is not None and options != SourceOptions():
            raise InputError(
                f"{source} holds traces that were read already", "leave out options that say how to read them"
            )
        for kind in ("traces", "raw"):
            stage.step(Path(source), kind)
        return _Earlier(Path(source), stage)
    origin, pin = open_source(source, options)
    if origin.verifier == "judge":
        raise InputError("a judge is a model, and a stage alone has none", "use a recipe: docs/verifiers.md")
    if not origin.unverified:
        verifier_named(origin.verifier).check_machine()
    return origin, pin


def _verified(found: _Earlier | tuple[Existing, Pin], out: Path, tokenizer: str | Path | None) -> Stage:
    """Returns the verified traces of a stage: made in `out`, or those of an earlier stage's folder."""
    if isinstance(found, _Earlier):
        return _earlier(found.folder, found.stage, out, tokenizer)
    origin, pin = found
    counted = pinned_tokenizer(tokenizer) if tokenizer is not None else None
    name, root = origin.name, out / INNER
    traces = _read_step(root, origin, pin)
    raw = run_step(
        root,
        f"raw/{name}",
        VARIANTS["raw"].step,
        {"unverified": True} if origin.unverified else {},
        inputs={"problems": traces, "shard-0": traces},
        models={"tokenizer": counted} if counted else {},
    )
    return Stage(
        stage="verify",
        name=name,
        variant="raw",
        config="raw",
        source=origin.place(),
        dataset=origin.hub_id(),
        revision=pin.revision,
        license=origin.license,
        model=origin.model,
        verifier=origin.verifier,
        unverified=origin.unverified,
        tokenizer=counted["digest"] if counted else "",
        steps={"traces": relative(out, traces), "raw": relative(out, raw)},
    )


def _earlier(folder: Path, stage: Stage, out: Path, tokenizer: str | Path | None) -> Stage:
    if tokenizer is not None and pinned_tokenizer(tokenizer)["digest"] != stage.tokenizer:
        counted = "by another tokenizer" if stage.tokenizer else "by no tokenizer"
        raise InputError(
            f"lengths in {folder} were counted {counted}", "verify again, with the same --tokenizer"
        )
    steps = {kind: relative(out, stage.step(folder, kind)) for kind in ("traces", "raw")}
    return replace(stage, stage="verify", variant="raw", config="raw", how="", texts={}, steps=steps)


def _whole(config: str | None) -> SourceOptions:
    """Returns options for a source of lengths: all traces are read, and none is verified."""
    return SourceOptions(config=config, unverified=True)


def _lengths(root: Path, origin: Existing, pin: Pin, raw: Path, tokenizer: str | Path) -> Path:
    """Returns the lengths of another source's traces, joined with the raw traces."""
    traces = _read_step(root, origin, pin)
    return run_step(
        root,
        f"lengths/{origin.name}",
        "hubkit.stages.target:run",
        {"compressor": origin.name},
        inputs={"raw": raw, "problems": traces, "shard-0": traces},
        models={"tokenizer": pinned_tokenizer(tokenizer)},
    )


def _read_step(root: Path, origin: Existing, pin: Pin) -> Path:
    """The recipe's step that reads existing traces."""
    at = {"model": pin.where, "revision": pin.revision, "digest": pin.digest}
    return run_step(
        root,
        f"traces/{origin.name}/0",
        origin.step,
        {"teacher": origin.name, "seed": 0, "shard": [0, 1], **origin.identity()},
        inputs={},
        models={"source": at},
        paths={"source": pin.path} if pin.path else {},
    )
