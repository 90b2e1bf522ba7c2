"""Results in the schema of Every Eval Ever, of a release and of a run by lighteval alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_release import build
from support import ROOT, hubkit
from typer.testing import CliRunner

from hubkit.cli import app
from hubkit.errors import InputError
from hubkit.evaluation.statistics import wilson
from hubkit.release import every_eval, publish
from hubkit.release.boards import Boards, result_files
from hubkit.release.every_eval import Origin
from hubkit.release.leaderboard import Board, Scale
from hubkit.release.lighteval_run import read_run

SCHEMAS = ROOT / "hubkit" / "release" / "schemas"


def validated(out: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """(record, samples) of all that was written, by the package's own schemas and by what its datastore asks for."""
    whole = json.loads((SCHEMAS / "eval.schema.json").read_text())
    line = json.loads((SCHEMAS / "instance_level_eval.schema.json").read_text())
    found = []
    for path in sorted(out.rglob("*.json")):
        record = json.loads(path.read_text())
        jsonschema.validate(record, whole, jsonschema.Draft7Validator)
        about = record["detailed_evaluation_results"]
        data = (out / about["file_path"]).read_bytes()
        assert (out / about["file_path"]) == path.with_name(f"{path.stem}_samples.jsonl")
        assert about["checksum"] == hashlib.sha256(data).hexdigest()
        samples = [json.loads(text) for text in data.splitlines()]
        assert len(samples) == about["total_rows"]
        for sample in samples:
            jsonschema.validate(sample, line, jsonschema.Draft7Validator)
            assert sample["evaluation_id"] == record["evaluation_id"]
            assert sample["model_id"] == record["model_info"]["id"]
        scores = [sample["evaluation"]["score"] for sample in samples]
        result = record["evaluation_results"][0]
        assert {sample["evaluation_result_id"] for sample in samples} == {result["evaluation_result_id"]}
        assert sum(scores) / len(scores) == pytest.approx(result["score_details"]["score"])
        assert path.parent.relative_to(out).parts[2:] == tuple(record["model_info"]["id"].split("/"))
        found.append((record, samples))
    return found


def test_a_release(tmp_path: Path) -> None:
    run = build(tmp_path / "run", reported=True)
    run.finish("publish", publish.run, run.root / "p")
    arguments = ["release", "export", "local/tiny", "--hub", str(run.root / "hub")]
    home = {"HF_HOME": str(tmp_path / "home")}
    done = hubkit(*arguments, "--out", str(tmp_path / "out"), cwd=tmp_path, **home)
    assert done.returncode == 0, done.stderr
    found = {record["model_info"]["id"]: (record, samples) for record, samples in validated(tmp_path / "out")}
    assert len(found) == 6 and len(done.stdout.splitlines()) == 12
    record, samples = found["local/tiny-s-raw-full"]
    (result,) = record["evaluation_results"]
    assert result["score_details"]["score"] == 0.75 and len(samples) == 20
    assert result["source_data"]["hf_repo"] == "local/tiny-problems"
    interval = result["score_details"]["uncertainty"]["confidence_interval"]
    assert interval["lower"] < 0.75 < interval["upper"]
    assert record["source_metadata"]["evaluator_relationship"] == "first_party"
    # The same release gives the same files.
    before = sorted(path.name for path in (tmp_path / "out").rglob("*.json*"))
    assert hubkit(*arguments, "--out", str(tmp_path / "out"), cwd=tmp_path, **home).returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.json*")) == before


def lighteval_run(folder: Path, model: str = "org/model", choices: Any = ("1",), value: float = 1.0) -> Path:
    date = "2026-11-24T06-24-06.123456"
    task = {"hf_repo": "openai/gsm8k", "hf_subset": "main", "evaluation_splits": ["test"]}
    run = {
        "config_general": {"max_samples": None, "model_name": model, "model_config": {}},
        "results": {
            "gsm8k|5": {
                "extractive_match": value,
                "extractive_match_stderr": 0.1,
                "pass@k:k=4": 1.0,
                "bits": 7.5,
            },
            "all": {"extractive_match": value},
        },
        "config_tasks": {"gsm8k|5": task},
    }
    (folder / "results").mkdir(parents=True)
    (folder / "results" / f"results_{date}.json").write_text(json.dumps(run))
    doc = {"id": "7", "query": "q <b>", "choices": list(choices), "gold_index": 0}
    row = {"doc": doc, "metric": {"extractive_match": value}, "model_response": {"text": ["1"]}}
    path = folder / "details" / "x" / date / f"details_gsm8k|5_{date}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), path)
    return folder


def export(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["release", "export", *arguments])


def test_a_run_by_lighteval_alone(tmp_path: Path) -> None:
    run = lighteval_run(tmp_path / "run")
    assert export(str(run), "--out", str(tmp_path / "out"), "--by", "someone").exit_code == 0
    ((record, (sample,)),) = validated(tmp_path / "out")
    assert record["source_metadata"]["evaluator_relationship"] == "third_party"
    assert record["evaluation_results"][0]["generation_config"]["additional_details"]["shots"] == "5"
    assert record["eval_library"] == {"name": "lighteval", "version": "unknown", "additional_details": {}}
    # Of how the model was run and asked it says no more than the run does.
    assert set(record["model_info"]["additional_details"].values()) == {"unknown"}
    asked = record["evaluation_results"][0]["generation_config"]
    assert "reasoning" not in asked["generation_args"] and "chat_template" not in asked["additional_details"]
    names = [result["metric_config"]["metric_name"] for result in record["evaluation_results"]]
    assert names == ["extractive_match", "pass@k:k=4"]
    assert (sample["sample_id"], sample["input"]["reference"]) == ("7", ["1"])


def test_a_release_names_no_commit_of_another_dataset_as_a_board_s(tmp_path: Path) -> None:
    run = lighteval_run(tmp_path / "run")
    (results,) = (run / "results").iterdir()
    about = json.loads(results.read_text())
    about["config_tasks"]["gsm8k|5"]["hf_revision"] = "a" * 40
    results.write_text(json.dumps(about))
    config = {"student": "s", "benchmark": {"name": "gsm8k"}}
    record = SimpleNamespace(config=config, started="2026-11-24T06:24:06Z", environment={})
    recipe = SimpleNamespace(benchmarks=[SimpleNamespace(name="gsm8k")])
    facts = SimpleNamespace(recipe=recipe, folders={"e": run}, kind=lambda kind: {"e": record})
    cards: Any = SimpleNamespace(facts=facts, problems="local/p", commits={}, local=True)

    def file(dataset: str) -> Any:
        found = Boards({"gsm8k": (Board(dataset, "gsm8k", "b" * 40), Scale(100, ""))}, {})
        return next(iter(result_files(cards, "s", found).values()))

    assert b"a" * 40 in file("openai/gsm8k") and b"revision" not in file("org/gsm8k")


def test_benchmarks_of_one_board_have_a_file_each(tmp_path: Path) -> None:
    """The longest names that a recipe takes, and a level of effort beside them."""
    names, level = ["zero", "n" * 39, "other"], "l" * 39
    folders = {name: lighteval_run(tmp_path / name) for name in names}
    records = {
        name: SimpleNamespace(
            config={"student": "s", "benchmark": {"name": name}}
            | {"level": {"variable": "reasoning_effort", "value": level}},
            started="2026-11-24T06:24:06Z",
            environment={},
        )
        for name in names
    }
    recipe = SimpleNamespace(benchmarks=[SimpleNamespace(name=name) for name in names])
    facts = SimpleNamespace(recipe=recipe, folders=folders, kind=lambda kind: records)
    cards: Any = SimpleNamespace(facts=facts, problems="local/p", commits={}, local=True)
    boards = {name: (Board("openai/gsm8k", "gsm8k", "b" * 40), Scale(100, "")) for name in names[:2]}
    boards["other"] = Board("org/other", "other", "b" * 40), Scale(100, "")
    assert [*result_files(cards, "s", Boards({**boards}, {}))] == [
        f".eval_results/gsm8k-zero-{level}.yaml",
        f".eval_results/gsm8k-{names[1]}-{level}.yaml",
        f".eval_results/other-{level}.yaml",
    ]


def test_several_answers_are_worth_no_more_than_their_number(tmp_path: Path) -> None:
    run = lighteval_run(tmp_path / "run")
    (path,) = (run / "details").rglob("*.parquet")
    values = [0.5] * 9 + [1.0]
    for answers, width in ((2, 40), (1, 20)):
        rows = [
            {"metric": {"extractive_match": value}, "model_response": {"text": ["x"] * answers}}
            for value in values
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
        (results,) = (run / "results").iterdir()
        about = json.loads(results.read_text())
        about["results"]["gsm8k|5"]["extractive_match"] = 0.55
        results.write_text(json.dumps(about))
        (score,) = read_run(run, main=True)
        assert (
            score.low and score.high and round(100 * (score.high - score.low)) == pytest.approx(width, abs=1)
        )
    assert wilson(11, 20) == pytest.approx((0.3421, 0.7418), abs=1e-3)


def test_levels_of_one_model_are_evaluations_of_their_own(tmp_path: Path) -> None:
    """Also where the model gave the same answers at both."""
    (score,) = read_run(lighteval_run(tmp_path / "run"), main=True)
    for level in ("high", "low"):
        origin = Origin("org/model", "org", "gsm8k", level={"reasoning_effort": level}, by_hubkit=True)
        every_eval.export(score, origin, tmp_path / "out", now=1)
    (one, _), (other, _) = validated(tmp_path / "out")
    assert one["evaluation_id"] != other["evaluation_id"]
    said = {record["model_info"]["additional_details"]["reasoning_effort"] for record in (one, other)}
    assert said == {"high", "low"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": "../../etc"}, "not a model on the Hub"),
        ({"model": "checkpoint"}, "--model org/name"),
        ({"choices": []}, "no details file of lighteval"),
    ],
)
def test_what_cannot_be_exported_is_one_line(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    run = lighteval_run(tmp_path / "run", **changes)
    result = export(str(run), "--out", str(tmp_path / "out"))
    assert isinstance(result.exception, InputError) and why in str(result.exception)
    assert not list((tmp_path / "out").rglob("*.json"))
