"""Compressors that score, with their controls, through a recipe's plan, checks and steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from compressing import save_classifier
from support import NANO

import hubkit
from hubkit.recipe.estimate import estimate_all
from hubkit.recipe.file import load_recipe
from hubkit.recipe.pipeline import status
from hubkit.recipe.plan import make_plan
from hubkit.records import read_rows
from hubkit.release.results import Facts, variant_rows
from hubkit.store import Store
from hubkit.traces.steps import final_line

CONTROLS = ("truncated", "last", "random-steps", "random-tokens")


def test_scored_compressors_and_their_controls_go_through_a_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    shutil.copytree(NANO.parent, folder)
    save_classifier(folder / "models" / "lingua", "bert")
    names = [f"{kind}-{of}" for of in ("pir", "lingua") for kind in ("compressed", *CONTROLS)]
    overrides = [
        "problems.train.size=6",
        "compressors=[{kind: prune-steps, name: pir, model: ./models/teacher, by: answer, ratio: 0.4, shards: 2,"
        " solution: final-line}, {kind: prune-tokens, name: lingua, model: ./models/lingua, ratio: 0.5, digits: false,"
        " solution: shorten}]",
        f"students.variants=[raw, {', '.join(names)}]",
    ]
    path, runs = folder / NANO.name, (tmp_path / "runs").resolve()
    plan = make_plan(load_recipe(path, overrides), path, runs)
    estimates = estimate_all(plan, Store(runs), status(plan, Store(runs), explain=False))
    assert estimates["compress/nano-teacher/pir/0"].seconds is None, (
        "how long scoring takes is not known before"
    )
    records = hubkit.run(path, overrides=overrides, out=runs, until=["matched"])
    folders = {
        name: runs / "steps" / record.step / record.key[:16]
        for name, record in records.items()
        if record.kind in ("raw", "compressed", *CONTROLS)
    }
    rows = {
        variant.name: list(read_rows(folders[step] / "data.parquet"))
        for variant, step in Facts.read(plan.recipe, folders).variants("nano-teacher").items()
    }
    raw = {(row["id"], row["sample"]): row for row in rows["raw"]}
    for of, least in (("pir", 0.1), ("lingua", 0.3)):
        short = rows[f"compressed-{of}"]
        assert len(short) > 6
        for kind in CONTROLS:
            null = rows[f"{kind}-{of}"]
            assert [(r["id"], r["sample"]) for r in null] == [(r["id"], r["sample"]) for r in short]
            near = [
                abs(n["reasoning_tokens"] - s["reasoning_tokens"]) for n, s in zip(null, short, strict=True)
            ]
            assert max(near) <= 2, "row by row as long"
            for row in null:
                assert row["solution"].endswith(final_line(raw[row["id"], row["sample"]]["solution"]))
        assert all(least < row["ratio"] < 1 for row in short)
    table = {row["variant"]: row for row in variant_rows(Facts.read(plan.recipe, folders))}
    assert table["raw"]["ratio_response"] == 1 and table["raw"]["ratio_target"] is None
    for name, target in (("compressed-pir", 0.4), ("compressed-lingua", 0.5)):
        row = table[name]
        assert row["ratio_target"] == target and row["ratio_response"] < 1
        quartiles = [row["ratio_quantiles"][q] for q in ("p25", "p50", "p75")]
        assert quartiles == sorted(quartiles) and quartiles[1] == pytest.approx(target, abs=0.25)
    assert table["random-steps-pir"]["ratio_tokens"] == pytest.approx(
        table["compressed-pir"]["ratio_tokens"], rel=0.02
    )
