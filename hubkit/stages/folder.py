"""The folder of a stage: what it holds, who may write into it, and what it shows.

verified/README.md  data/raw/train-00000-of-00001.parquet  rejected.parquet  .hubkit/stage.json  .hubkit/steps/
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from hubkit.errors import InputError
from hubkit.records import files_of, split_files
from hubkit.store import Record, exclusive, write_json

__all__ = ["INNER", "Stage", "check_own", "own_folder", "put", "read_stage", "relative", "shown_files"]

INNER: Final = ".hubkit"
STAGE: Final = "stage.json"


@dataclass(frozen=True)
class Stage:
    """The content and the origin of a stage's folder; stage.json."""

    stage: str
    """verify, compress or truncate."""
    name: str
    """Of the traces, in steps and ids."""
    variant: str
    """Kind of its data, a key of VARIANTS."""
    config: str
    """Name of the config that holds it."""
    source: str
    """As cards name it."""
    dataset: str
    """Hub id of the source; "" for a file."""
    revision: str
    license: str
    model: str
    """The model that wrote the traces, if known."""
    verifier: str
    unverified: bool
    how: str = ""
    """What the stage did, for the card."""
    texts: dict[str, str] = field(default_factory=dict)
    """Title -> long text for the card: a prompt."""
    tokenizer: str = ""
    """Digest of the tokenizer that counted lengths; "" if they were not counted."""
    steps: dict[str, str] = field(default_factory=dict)
    """traces, raw, compressed, … -> folder of the step's output, from this folder on."""

    def step(self, folder: Path, kind: str) -> Path:
        """Folder of a step's output. Raises InputError if it is gone."""
        found = folder / self.steps[kind] if kind in self.steps else None
        if found is None or not (found / "record.json").is_file():
            raise InputError(f"{folder} has no {kind} traces", "run the stage that makes them again")
        return found

    def records(self, folder: Path) -> dict[str, Record]:
        return {kind: Record.read(self.step(folder, kind)) for kind in self.steps}


def read_stage(folder: Path) -> Stage | None:
    """Returns what a finished stage's folder holds; None for any other folder or file."""
    path = folder / INNER / STAGE
    if not path.is_file():
        return None
    try:
        return Stage(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}", "run the stage again into a new folder") from error


def relative(out: Path, folder: Path) -> str:
    return os.path.relpath(folder.resolve(), out.resolve())


def check_own(out: Path) -> None:
    """Raises InputError for a folder that is neither a stage's nor new."""
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise InputError(f"cannot read {out}: {error.strerror}", "choose another folder") from error
    if taken and not (out / INNER).is_dir():
        raise InputError(f"{out} is there and is not a stage's folder", "choose another folder")


@contextmanager
def own_folder(out: Path) -> Iterator[None]:
    """Lock the folder of a stage, which must be a stage's or new, against a second process."""
    check_own(out)
    with exclusive(out / INNER / "locks" / "stage.lock", str(out)):
        yield


def put(out: Path, stage: Stage, last: str) -> Stage:
    """Put the last step's output and a card into the folder. Raises InputError if it has another stage's output."""
    from hubkit.release.stage import stage_card

    before = read_stage(out)
    if before is not None:
        if before.steps.get(last) != stage.steps[last] or before.config != stage.config:
            raise InputError(
                f"{out} holds other traces ({before.stage} of {before.source})", "choose another folder"
            )
        return before
    for shown, made in shown_files(out, stage).items():
        _place(made, shown)
    card = stage_card(asdict(stage), stage.records(out), out.resolve().name)
    (out / "README.md").write_text(card, encoding="utf-8")
    write_json(out / INNER / STAGE, asdict(stage))
    return stage


def shown_files(folder: Path, stage: Stage) -> dict[Path, Path]:
    """Files that a stage's folder shows -> those of its steps."""
    last = stage.step(folder, stage.variant) / "data.parquet"
    rejecting = stage.step(folder, "compressed" if "compressed" in stage.steps else "raw")
    shown = {folder / n: file for n, file in split_files(f"data/{stage.config}/train", last).items()}
    rejected = files_of(rejecting / "rejected.parquet")
    return shown | {folder / file.name: file for file in rejected}


def _place(made: Path, shown: Path) -> None:
    """Make a hard link to a step's file, or a copy if the file system has no links."""
    shown.parent.mkdir(parents=True, exist_ok=True)
    shown.unlink(missing_ok=True)
    try:
        os.link(made, shown)
    except OSError:
        shutil.copyfile(made, shown)
