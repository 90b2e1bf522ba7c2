"""Runs a single step of a recipe in a folder."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubkit.engines.settings import EngineRuntime
from hubkit.section import is_repo_id
from hubkit.stages.source import tokenizer_folder
from hubkit.store import RECORD, Record, StepContext, Store, digest, digest_file, digest_folder
from hubkit.traces.compressors import Compressor

__all__ = ["compress_step", "pinned_model", "pinned_tokenizer", "run_step"]

Model = dict[str, str]
"""As in StepContext.models."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt")


def run_step(
    root: Path,
    name: str,
    function: str,
    config: dict[str, Any],
    *,
    inputs: Mapping[str, Path],
    models: Mapping[str, Model] | None = None,
    runtime: Mapping[str, Any] | None = None,
    paths: Mapping[str, Path] | None = None,
) -> Path:
    """Run a step below `root` unless it is done. Returns the folder of its output.

    `function` is its module:function. An input is the folder of a step, or one with Parquet files. A model is
    identified by its digest, else by its name and commit.
    """
    import joblib

    models = dict(models or {})
    module = importlib.import_module(function.partition(":")[0])
    digests = {of: _digest(folder) for of, folder in inputs.items()}
    identity = {of: model.get("digest") or model for of, model in models.items()}
    named = {
        "step": name,
        "version": module.VERSION,
        "config": config,
        "inputs": digests,
        "models": identity,
    }
    key, store = digest(named), Store(root)
    context = StepContext(
        step=name,
        config=config,
        # No other step runs beside it.
        runtime={"device": "auto", "threads": joblib.cpu_count()} | dict(runtime or {}),
        inputs=dict(inputs),
        models=models,
        paths=dict(paths or {}),
        out=root / "tmp" / key[:16],
        work=store.work(name, key),
    )
    kind = name.partition("/")[0]
    store.run(context, kind, module.VERSION, key, digests, getattr(module, function.partition(":")[2]))
    return store.folder(name, key)


def _digest(folder: Path) -> str:
    if (folder / RECORD).is_file():
        return Record.read(folder).output
    return digest([digest_file(file) for file in sorted(folder.glob("*.parquet"))])


def compress_step(
    root: Path,
    name: str,
    compressor: Compressor,
    *,
    raw: Path,
    problems: Path,
    model: Model,
    tokenizer: Model,
    engine: EngineRuntime,
    seed: int,
    device: str,
) -> Path:
    """Shorten verified traces with a compressor. Returns the folder of the step's output."""
    return run_step(
        root,
        name,
        compressor.step,
        {"compressor": compressor.name, "seed": seed, "shard": [0, 1], **compressor.identity()},
        inputs={"problems": problems, "raw": raw},
        models={"compressor": model, "tokenizer": tokenizer},
        runtime=({"engine": engine.model_dump(mode="json")} if compressor.generator() else {})
        | {"device": device},
    )


def pinned_model(model: str | Path, revision: str = "", served: bool = False) -> Model:
    """Returns a folder with its content's digest, a Hub id with its commit, or the name of a served model.

    Raises InputError if it is none of these, HubError if the Hub does not have it.
    """
    from hubkit.errors import InputError

    if served:
        return {"model": str(model), "revision": ""}
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise InputError(f"{model} is no model: it has no config.json", "give the folder of a model")
        return {"model": str(model), "revision": "", "digest": digest_folder(Path(model))}
    if not is_repo_id(str(model)):
        raise InputError(f"{str(model)!r} is neither a folder nor a Hub id", "give one of them")
    from hubkit.hub import resolve

    return {"model": str(model), "revision": resolve(str(model), revision, "model")}


def pinned_tokenizer(model: str | Path) -> Model:
    """Returns a tokenizer identified by the content of its files, wherever it is."""
    folder = tokenizer_folder(model)
    files = {name: digest_file(folder / name) for name in _TOKENIZER_FILES if (folder / name).is_file()}
    return {"model": str(folder), "revision": "", "digest": digest(files)}
