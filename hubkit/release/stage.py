"""The cards of one stage alone: `hubkit traces verify`, `compress`, `truncate`; `hubkit evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hubkit.licenses import license_named
from hubkit.release.columns import size_category, variant_fields
from hubkit.release.text import markdown
from hubkit.store import Record
from hubkit.traces.variants import Variant

__all__ = ["scores_card", "stage_card"]

_SAID: Final = ("claimed_correct", "claimed_wrong")
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
        license=license_named(stage["license"]) or None,
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
    raw, said = records["raw"].counts, records["traces"].counts
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
            "claims": {n: (said | raw).get(n, 0) for n in (*_SAID, *_DISAGREEMENT)}
            if any(name in said for name in _SAID) and not stage["unverified"]
            else None,
            "lengths": last.metrics if "quantiles" in last.metrics else None,
            "fields": variant_fields([Variant(stage["variant"])]),
            "version": last.environment.get("packages", {}).get("hubkit", ""),
            "git_sha": last.environment.get("git_sha", ""),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def scores_card(
    about: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], records: Sequence[Record]
) -> str:
    """README.md of an evaluation's folder. `about`: model, revision, sampling, system; `scores`: a row per task."""
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(
        pretty_name=f"{about['model']}: evaluations",
        tags=["hubkit", "evaluation", "lighteval"],
        configs=[
            {
                "config_name": score["folder"],
                "data_files": [{"split": "test", "path": f"{score['folder']}/samples.parquet"}],
            }
            for score in scores
        ],
    )
    made = records[0].environment
    body = markdown(
        "scores.md",
        {
            "title": data.pretty_name,
            "about": about,
            "scores": scores,
            "steps": [{"name": r.step, "key": r.key[:16]} for r in records],
            "version": made.get("packages", {}).get("hubkit", ""),
            "git_sha": made.get("git_sha", ""),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
