"""The columns of published datasets with their meaning, and the YAML of a card that describes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pyarrow as pa

from hubkit.records import is_part
from hubkit.release.results import Facts, without_level
from hubkit.store import Record
from hubkit.traces.variants import VARIANTS, Variant

__all__ = [
    "COUNTED",
    "MEANING",
    "OUTPUTS_SCHEMA",
    "card_configs",
    "dataset_info",
    "outputs_schema",
    "size_category",
    "type_name",
    "variant_fields",
]

_SIZES: Final = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
"""Limits of the Hub's size categories, from a thousand rows on, each ten times the last."""

MEANING: Final = {
    "id": "the problem; the same in every config",
    "source": "where the problem comes from",
    "problem": "the problem as the model reads it",
    "answer": "its known answer",
    "messages": "the chat a student is trained on; ready for TRL",
    "reasoning": "the text of the thinking span",
    "solution": "what follows the thinking span",
    "teacher": "the model that wrote the raw trace",
    "sample": "which of the model's responses to this problem, from 0 on",
    "correct": "whether its final answer was found right",
    "verifier": "what judged the answer",
    "metadata": "JSON that the verifier needs besides the answer, or empty",
    "finish_reason": "stop, or length when the token limit ended it",
    "reasoning_chars": "characters of reasoning",
    "reasoning_tokens": "tokens of reasoning",
    "raw_reasoning_chars": "characters of the raw trace's reasoning",
    "raw_reasoning_tokens": "tokens of the raw trace's reasoning",
    "ratio": "reasoning_tokens / raw_reasoning_tokens",
    "compressor": "the compressor that shortened the reasoning, or whose lengths it has",
    "prompt_sha": "its prompt: first 12 digits of the sha256",
    "budget_tokens": "tokens that the reasoning was cut to",
    "matched_to": "the compressor whose length that is",
    "student": "the student's name, or the base's",
    "base": "the model it started from",
    "origin": "student, or base for a base as it is; of a base, what training decides is null",
    "variant": "the traces it was trained on",
    "kind": f"the kind of variant: {', '.join(VARIANTS)}; null for a base",
    "level": "of a student of a mixture, the level of effort that its chat template was given; else null",
    "method": "how it was trained",
    "adapter": "whether an adapter was trained, or all weights",
    "seed": "seed of its training",
    "benchmark": "what it was evaluated on",
    "output": "its whole output, thinking included",
    "output_tokens": "tokens of output",
    "extracted": "the answer as it was read, where a benchmark takes several of each problem; else null",
    "n": "problems",
    "accuracy": "share of right answers",
    "ci_low": "lower end of Wilson's 95 % interval, by problems where each has several answers",
    "ci_high": "upper end of it",
    "mean_output_tokens": "mean of output_tokens",
    "cut_share": "share of outputs that the token limit ended",
    "accuracy_per_1000_tokens": "accuracy / mean_output_tokens x 1000",
    "samples": "answers to each problem; null where there is one",
    "pass_at_k": "share of problems of which any answer is right; null where there is one answer to each",
    "maj_at_k": "share of problems of which the answer given most is right; null where there is one answer to each, or "
    "where answers cannot be read",
    "train_rows": "rows it was trained on",
    "train_tokens": "tokens processed in training, padding excluded",
    "train_seconds": "seconds of training",
    "trainable_parameters": "parameters that were trained",
    "train_tokens_of_raw": "train_tokens over those of the same student on raw traces",
    "train_seconds_of_raw": "train_seconds over those of the same student on raw traces",
    "output_tokens_of_raw": "mean_output_tokens over those of the same student on raw traces",
    "accuracy_of_raw": "accuracy over that of the same student on raw traces",
}

COUNTED: Final = MEANING | {"correct": "how many of its answers were found right"}
"""Of the columns of `results`, which has a row per student."""

OUTPUTS_SCHEMA: Final = pa.schema(
    [
        ("student", pa.string()),
        ("origin", pa.string()),
        ("teacher", pa.string()),
        ("base", pa.string()),
        ("variant", pa.string()),
        ("level", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int32()),
        ("benchmark", pa.string()),
        ("id", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("output", pa.string()),
        ("correct", pa.bool_()),
        ("output_tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("sample", pa.int32()),
        ("extracted", pa.string()),
    ]
)
"""Config `outputs` of the evaluations: one row per student, problem and answer. Without mixtures it has no `level`."""


def outputs_schema(facts: Facts) -> pa.Schema:
    """Returns the schema of a release's config `outputs`."""
    return OUTPUTS_SCHEMA if facts.has_levels else without_level(OUTPUTS_SCHEMA)


def size_category(rows: int) -> list[str]:
    """Returns the Hub's category for a number of rows, in the form of its cards: ["1K<n<10K"]."""
    above = len(str(rows)) - 3  # limits at or below it
    if above <= 0:
        return [f"n<{_SIZES[0]}"]
    return [f"{_SIZES[above - 1]}<n<{_SIZES[above]}" if above < len(_SIZES) else f"n>{_SIZES[-1]}"]


def card_configs(names: Iterable[str], split: str) -> list[dict[str, Any]]:
    return [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}-*.parquet"}],
            **({"default": True} if number == 0 else {}),
        }
        for number, name in enumerate(names)
    ]


def dataset_info(
    config: str, schema: pa.Schema, split: str, rows: int, size: int, record: Record | None, file: str
) -> dict[str, Any]:
    info: dict[str, Any] = {
        "config_name": config,
        "features": [_feature(f) for f in schema],
        "splits": [{"name": split, "num_bytes": size, "num_examples": rows}],
    }
    if record is not None:
        info["download_size"] = sum(entry.size for entry in record.files if is_part(entry.path, file))
    info["dataset_size"] = size
    return info


def _feature(f: pa.Field) -> dict[str, Any]:
    """Returns an Arrow field in the form of dataset_info's YAML."""
    if pa.types.is_list(f.type):
        return {"name": f.name, "list": [_feature(inner) for inner in f.type.value_type]}
    return {"name": f.name, "dtype": type_name(f.type)}


def type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "list of {role, content}"
    return {"double": "float64"}.get(str(kind), str(kind))


def variant_fields(variants: Iterable[Variant]) -> list[dict[str, str]]:
    """Returns name, type, kinds and meaning of every column that these variants have."""
    rows = {variant.kind: variant.row for variant in variants}
    names: dict[str, pa.DataType] = {f.name: f.type for row in rows.values() for f in row.schema}
    fields = []
    for name, kind in names.items():
        kinds = [which for which, row in rows.items() if name in row.schema.names]
        configs = "all" if len(kinds) == len(rows) else ", ".join(kinds)
        fields.append({"name": name, "type": type_name(kind), "configs": configs, "meaning": MEANING[name]})
    return fields
