"""The card of one stage alone: `hubkit traces verify`, `compress`, `truncate`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hubkit.release.columns import size_category, variant_fields
from hubkit.release.text import markdown
from hubkit.store import Record
from hubkit.traces.variants import Variant

__all__ = ["stage_card"]

_LICENSE: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
_DISAGREEMENT: Final = ("claimed_correct_found_wrong", "claimed_wrong_found_correct")


def stage_card(stage: Mapping[str, Any], records: Mapping[str, Record], where: str) -> str:
    """README.md of a stage's folder, from its stage.json and the records of its steps.

    `where` is what load_dataset is given: the folder's name, or a repo id.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    last = records[stage["variant"]]
    rows = last.metrics.get("rows", last.counts["kept"])
    config = stage["config"]
    data = DatasetCardData(
        pretty_name=f"{stage['name']}: {config}",
        license=stage["license"] if _LICENSE.fullmatch(stage["license"]) else None,
        task_categories=["text-generation"],
        size_categories=size_category(rows),
        source_datasets=[stage["dataset"]] if stage["dataset"] else None,
        tags=["hubkit", "reasoning", "chain-of-thought"],
        configs=[
            {
                "config_name": config,
                "data_files": [{"split": "train", "path": f"data/{config}/train-*.parquet"}],
                "default": True,
            },
            {"config_name": "rejected", "data_files": [{"split": "train", "path": "rejected.parquet"}]},
        ],
    )
    raw = records["raw"].counts
    body = markdown(
        "stage.md",
        {
            "title": data.pretty_name,
            "stage": stage,
            "snippet": (
                "from datasets import load_dataset\n\n"
                f'traces = load_dataset({where!r}, "{config}", split="train")\n'
                'print(traces[0]["messages"])'
            ),
            "steps": [{"name": r.step, "counts": r.counts, "key": r.key[:16]} for r in records.values()],
            "claims": [raw.get(name, 0) for name in _DISAGREEMENT]
            if any(name in raw for name in _DISAGREEMENT)
            else None,
            "lengths": last.metrics if "quantiles" in last.metrics else None,
            "fields": variant_fields([Variant(stage["variant"])]),
            "version": last.environment.get("packages", {}).get("hubkit", ""),
            "git_sha": last.environment.get("git_sha", ""),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
