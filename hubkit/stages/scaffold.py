"""Writes a commented recipe for existing traces: `hubkit recipe new`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import yaml

from hubkit.errors import InputError
from hubkit.licenses import license_named
from hubkit.recipe.file import load_recipe
from hubkit.stages.inspect import Inspection
from hubkit.traces.origins.existing import Existing, FileTraces

__all__ = ["check_free", "write_recipe"]

_TEMPLATE: Final = """\
# Written by `hubkit recipe new`. Check it, then: hubkit recipe plan {file}
name: {name}
version: 1
description: {description}
# Of what is published; it has to go with that of the source.
license: {license}
language: [en]
seed: 0

# Of {rows:,} rows that were looked at{more}, {usable:,} of {traces:,} traces can be used{yields}.
traces:
  - name: {name}
{entry}
    # More keys: where (column: value), sample (rows at random), characters ([least, most]); docs/recipes.md.

# What students are tested on. No problem in it may be in the traces; a run checks that before it trains.
problems:
  test:
    {{source: hub, dataset: openai/gsm8k, config: main, split: test, problem: question, verifier: numeric, limit: 500}}
benchmarks:
  - {{name: gsm8k, problems: test, sampling: {{max_tokens: 8192, temperature: 0.0}}}}

# To shorten the traces, name a model, put a prompt with {{problem}} and {{reasoning}} beside this file, and add
# compressed-short and truncated-short (its control) to `variants`.
# compressors:
#   - {{name: short, model: org/name, prompt: compress.md, sampling: {{max_tokens: 4096}}, attempts: 2}}

students:
  # The model that learns. Lengths of all traces are counted by its tokenizer.
  bases: [{{name: base, model: Qwen/Qwen3-0.6B-Base}}]
  variants: [raw]
  methods:
    lora:
      sft:
        learning_rate: 1.0e-4
        num_train_epochs: 2
        per_device_train_batch_size: 1
        gradient_accumulation_steps: 16
        max_length: {max_length}
        gradient_checkpointing: auto
        bf16: true
      lora: {{r: 64, lora_alpha: 128}}

# local: a Hub in the run's folder. To publish: endpoint: "https://huggingface.co" and your namespace.
hub: {{endpoint: local, namespace: local}}
run: {{device: auto}}
"""
_LENGTHS: Final = (4096, 8192, 16384, 32768)


def check_free(path: Path) -> None:
    """Raises InputError if the file exists, or if its folder does not."""
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} is there already", "choose another name with --out, or move it away")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", "make it first")


def write_recipe(path: Path, origin: Existing, seen: Inspection, source: str) -> None:
    """Write a recipe that uses these traces. An existing file is never overwritten.

    Raises InputError if the file exists, or if the source has no usable trace.
    """
    check_free(path)
    keyless = not seen.with_key and seen.lack_key > 0
    if not seen.usable and not keyless:
        reasons = ", ".join(f"{reason} {dropped.number}" for reason, dropped in seen.dropped.items())
        raise InputError(
            f"{seen.source}: no trace can be used ({reasons})",
            "name its columns: --column problem=… --column text=…",
        )
    recipe = _TEMPLATE.format(
        file=_comment(path.name),
        name=origin.name,
        description=_flow(f"Students of existing traces: {origin.place()}."),
        license=_flow(license_named(origin.license) or "other"),
        rows=seen.rows,
        more=", the first" if seen.more else "",
        usable=seen.lack_key if keyless else seen.usable,
        traces=seen.traces,
        yields=_yields(seen),
        entry=_entry(path, origin, seen, source, keyless),
        max_length=_max_length(seen),
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(recipe)
    except FileExistsError:
        check_free(path)
        raise
    try:
        load_recipe(path)
    except BaseException:
        path.unlink()  # nothing is left that cannot be read
        raise


def _entry(path: Path, origin: Existing, seen: Inspection, source: str, keyless: bool) -> str:
    values: dict[str, Any] = origin.model_dump(mode="json", exclude={"name", "limit", "shards"})
    values["columns"] = seen.columns
    if isinstance(origin, FileTraces):
        values["path"] = os.path.relpath(Path(source).resolve(), path.absolute().parent.resolve())
    if seen.revision:
        values["revision"] = seen.revision
    if keyless:
        values["unverified"] = True
    notes = {
        "columns": "what a column is: its name, as it was recognised",
        "revision": "the commit that was looked at",
        "license": "as the source says",
        "unverified": "no row has a known answer: nothing is verified, and every card says so",
        "verifier": "how answers are compared: docs/verifiers.md",
    }
    lines = [
        f"    {key}: {_flow(value)}" + (f"  # {notes[key]}" if key in notes else "")
        for key, value in values.items()
        if value not in (None, "", {}, False)
    ]
    if not origin.model:
        lines.append("    # model: org/name  # who wrote them, for the cards; nothing of it is loaded")
    if not origin.license:
        lines.append("    # license: mit  # the source names none: ask before you publish what is made of it")
    return "\n".join(lines)


def _yields(seen: Inspection) -> str:
    if seen.agreement is None:
        return ""
    correct = seen.agreement.outcomes.get("correct", 0)
    return f"; of {seen.agreement.sample:,} that were verified, {correct:,} are correct"


def _max_length(seen: Inspection) -> int:
    """Returns the tokens that most traces need with their problems; three characters per token if not counted."""
    lengths = seen.lengths
    tokens = sum(
        lengths[f"{part}_tokens"]["p95"]
        if f"{part}_tokens" in lengths
        else lengths[f"{part}_characters"]["p95"] / 3
        for part in ("reasoning", "solution")
    )
    return next((length for length in _LENGTHS if 1.25 * tokens + 512 <= length), _LENGTHS[-1])


def _flow(value: Any) -> str:
    """Returns any value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=False, width=2**31, sort_keys=False)
    return text.strip().removesuffix("\n...").strip()


def _comment(text: str) -> str:
    """Returns a text that cannot end the comment that it is in."""
    return "".join(c if c.isprintable() else "?" for c in text)
