"""Opens the traces of a stage: a dataset on the Hub, or a file.

open_source("open-r1/OpenR1-Math-220k", config="default") -> (HubTraces(name="openr1-math-220k", …), Pin(revision=…))
open_source("logs/r1.jsonl.gz")                           -> (FileTraces(name="r1", …), Pin(path=…))
open_source("logs/saved")        by save_to_disk          -> (FileTraces(name="saved", …), Pin(path=…))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hubkit.errors import InputError
from hubkit.problems.base import Pin
from hubkit.problems.file import is_saved
from hubkit.problems.hub import dataset_card
from hubkit.section import is_repo_id
from hubkit.traces.origins.existing import Existing, FileTraces, HubTraces

__all__ = ["SourceOptions", "open_source", "slug", "tokenizer_folder"]


@dataclass(frozen=True)
class SourceOptions:
    """Options of a source: the keys of a recipe's `traces` entry, by the same names."""

    config: str | None = None
    split: str | None = None
    """None: train."""
    revision: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    verifier: str = "math"
    unverified: bool = False
    model: str = ""
    license: str = ""
    """Empty: the licence in the dataset's card."""


def open_source(source: str, options: SourceOptions | None = None) -> tuple[Existing, Pin]:
    """Returns the origin and the pin of its data: a commit on the Hub, or the file's digest.

    Raises InputError if the source is neither a file nor a Hub id, or if options do not fit; HubError if the Hub does
    not have the dataset.
    """
    options = options or SourceOptions()
    path = Path(source)
    common = {
        "columns": dict(options.columns),
        "where": dict(options.where),
        "limit": options.limit,
        "verifier": options.verifier,
        "unverified": options.unverified,
        "model": options.model,
    }
    if path.is_file() or is_saved(path):
        path = path.absolute()
        for name in ("config", "split", "revision"):
            if getattr(options, name):
                kind = "file" if path.is_file() else "folder"
                raise InputError(f"{path.name} is a {kind} and has no {name}", f"leave out --{name}")
        name = path.name.partition(".")[0] or path.name
        origin: Existing = _made(
            FileTraces,
            {"name": slug(name), "source": "file", "path": path.name, "license": options.license, **common},
        )
        return origin, origin.pin(path.absolute().parent, "source", _no_commit)
    if path.is_dir() or not is_repo_id(source, owned=True):
        what = "a folder" if path.is_dir() else "neither a file nor org/name on the Hub"
        raise InputError(
            f"{source!r} is {what}",
            "give a file, a folder of save_to_disk, or a dataset's id such as org/name",
        )
    at = {"config": options.config, "split": options.split or "train", "revision": options.revision}
    names = {"name": slug(source.partition("/")[2]), "source": "hub", "dataset": source}
    origin = _made(HubTraces, names | at | common)
    pin = origin.pin(Path(), "source", _commit)
    told = options.license or _card_license(source, pin.revision)
    return origin.model_copy(update={"license": told}), pin


def slug(name: str) -> str:
    """Returns a valid name for recipes: lower case letters, digits, dots and dashes."""
    safe = re.sub(r"[^a-z0-9.-]+|[-.]{2,}", "-", name.lower())
    return re.sub(r"[-.]{2,}", "-", safe).strip("-.")[:39].rstrip("-.") or "traces"


def _made(kind: type[Existing], values: dict[str, Any]) -> Existing:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{key}: {first['msg']}", "see docs/recipes.md, Traces that exist") from None


def _commit(dataset: str, revision: str) -> str:
    from hubkit.hub import resolve

    return resolve(dataset, revision, "dataset")


def _no_commit(dataset: str, revision: str) -> str:
    raise AssertionError("a file has no commit")


def _card_license(dataset: str, revision: str) -> str:
    """Returns the licence in a dataset's card; "" if there is none."""
    told = dataset_card(dataset, revision).get("license") or ""
    return ", ".join(map(str, told)) if isinstance(told, list) else str(told)


def tokenizer_folder(model: str | Path) -> Path:
    """Returns the folder of a model's tokenizer; from the Hub it is downloaded without the weights.

    Raises InputError for a folder without a tokenizer, HubError if the Hub does not have the model.
    """
    folder = Path(model)
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            raise InputError(f"{folder} has no tokenizer.json", "give the folder of a model, or its Hub id")
        return folder
    if not is_repo_id(str(model)):
        raise InputError(f"{str(model)!r} is neither a folder nor a Hub id", "give one of them")
    from hubkit.hub import download_tokenizer, resolve

    return download_tokenizer(str(model), resolve(str(model), "", "model"))
