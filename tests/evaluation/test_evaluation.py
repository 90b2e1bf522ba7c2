"""Evaluations through the real lighteval, of random and of shipped models, all in this one process."""

from __future__ import annotations

import json
import logging
import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import MODELS

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError, InputError, RecipeError
from hubkit.evaluation import evaluation
from hubkit.records import EVALUATION_SCHEMA, PROBLEM_SCHEMA, SAMPLED_SCHEMA, write_rows
from hubkit.store import CheckContext, StepContext
from hubkit.traces.thinking import split
from hubkit.verifiers import verify_problem

SAMPLING = {"max_tokens": 400, "temperature": 0.0}


def problem(numbers: list[int]) -> dict[str, str]:
    text = " + ".join(map(str, numbers))
    answer = str(sum(numbers))
    question = f"State the final answer to the following arithmetic problem: {text} ="
    entry = {"question": question, "answer": answer, "metadata": {"source_dataset": "chain_sum"}}
    return {
        "id": "chain_sum-" + "-".join(map(str, numbers)),
        "source": "reasoning-gym/chain_sum",
        "problem": question,
        "answer": answer,
        "verifier": "reasoning-gym",
        "metadata": json.dumps(entry),
    }


PROBLEMS = [
    problem([a, b, 3]) for a, b in zip(range(2, 10), random.Random(0).sample(range(1, 10), 8), strict=True)
]


@pytest.fixture
def step(tmp_path: Path) -> Any:
    """Makes the context of an evaluation, with folders of its own."""
    problems = tmp_path / "problems"
    write_rows(problems / "problems.parquet", PROBLEMS, PROBLEM_SCHEMA)

    def make(name: str, base: Path, student: Path | None = None, **benchmark: Any) -> StepContext:
        # A name that JSON escapes: it must not reach what is published either.
        folder = tmp_path / "Läufe" / name
        chosen = {"name": "sums", "problems": "test", "sampling": SAMPLING} | benchmark
        inputs = {"problems": problems} | ({"student": student} if student else {})
        context = StepContext(
            step=f"evaluation/{name}/{chosen['name']}",
            config={"student": name, "base": "s", "benchmark": chosen, "system": ""},
            runtime={"engine": EngineRuntime().model_dump(), "device": "cpu", "threads": 1},
            inputs=inputs,
            models={"base": {"model": str(base), "revision": ""}},
            out=folder / "out",
            work=folder / "work",
        )
        context.out.mkdir(parents=True)
        context.work.mkdir()
        return context

    return make


def rows(context: StepContext) -> list[dict[str, Any]]:
    table = pq.read_table(context.out / "samples.parquet")
    assert table.schema.equals(EVALUATION_SCHEMA)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_an_evaluation_and_what_it_leaves(
    step: Any, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets
    import torch

    cache = datasets.config.HF_DATASETS_CACHE
    # The teacher stands in for a student that has learnt: some answers are right, some wrong.
    context = step("learnt", models / "teacher")
    capfd.readouterr()
    evaluation.run(context)
    captured = capfd.readouterr()

    samples = rows(context)
    assert [sample["id"] for sample in samples] == [problem["id"] for problem in PROBLEMS]
    for sample, source in zip(samples, PROBLEMS, strict=True):
        assert (sample["problem"], sample["answer"]) == (source["problem"], source["answer"])
        assert sample["correct"] == (
            verify_problem(source, split(sample["output"]).solution).status == "correct"
        )
        assert sample["output_tokens"] == 400 or sample["finish_reason"] == "stop"
    metrics = context.metrics
    assert metrics["n"] == context.counts["problems"] == 8
    assert metrics["correct"] == sum(sample["correct"] for sample in samples) > 0
    assert metrics["ci_low"] < metrics["accuracy"] == metrics["correct"] / 8 <= metrics["ci_high"]
    tokens = sum(sample["output_tokens"] for sample in samples)
    assert metrics["mean_output_tokens"] == tokens / 8
    assert metrics["accuracy_per_1000_tokens"] == pytest.approx(metrics["accuracy"] / (tokens / 8) * 1000)

    text = (context.out / "results.json").read_text(encoding="utf-8")
    results = json.loads(text)
    assert results["results"]["sums|0"]["accuracy"] == metrics["accuracy"]
    assert results["config_tasks"]["sums|0"]["hf_repo"] == "problems/test"
    assert results["config_general"]["model_config"]["generation_parameters"]["max_new_tokens"] == 400

    files = [str(path) for path in (context.out / "details").rglob("*.parquet")]
    details = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(details) == 8
    by_query = {sample["problem"]: sample for sample in samples}
    for row in details:
        sample, response = by_query[row["doc"]["query"]], row["model_response"]
        assert response["text"] == [sample["output"]]
        assert not response["output_tokens"]  # the tokens' ids would be most of what is published
        assert row["metric"]["accuracy"] == sample["correct"]
        assert json.loads(row["doc"]["specific"]["problem"]).keys() == set(PROBLEM_SCHEMA.names)
    for published in (text, json.dumps(details.to_list(), ensure_ascii=False)):
        assert str(tmp_path) not in published and tmp_path.name not in published

    # It runs in the worker that trains the next student, below one progress bar.
    assert torch.is_grad_enabled()
    assert logging.root.manager.disable == logging.NOTSET
    assert cache == datasets.config.HF_DATASETS_CACHE
    assert captured.out == captured.err == ""
    assert json.loads((context.work / "progress.json").read_text())["done"] == 8


def test_students_of_one_name_share_no_answers(step: Any, models: Path, tmp_path: Path) -> None:
    base = step("base", models / "student-s")
    evaluation.run(base)
    student = tmp_path / "student"
    shutil.copytree(models / "student-m", student / "model")
    # The same name, as of a student that was trained again: only folders and weights differ.
    again = step("again", models / "student-s", student)
    again.config["student"] = "base"
    evaluation.run(again)
    assert [a["output"] for a in rows(base)] != [b["output"] for b in rows(again)]


def test_an_adapter_is_put_on_the_base(step: Any, models: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(models / "student-s", dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "student" / "model")
    with_adapter = step("adapter", models / "student-s", tmp_path / "student")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged" / "model")
    for path in (models / "student-s").glob("*token*"):
        shutil.copy(path, tmp_path / "merged" / "model")
    shutil.copy(models / "student-s" / "chat_template.jinja", tmp_path / "merged" / "model")
    merged = step("merged", models / "student-s", tmp_path / "merged")
    base = step("base", models / "student-s")
    for context in (with_adapter, merged, base):
        context.config["benchmark"]["sampling"] = {"max_tokens": 40, "temperature": 0.0}
        evaluation.run(context)
    assert [a["output"] for a in rows(with_adapter)] == [b["output"] for b in rows(merged)]
    assert [a["output"] for a in rows(with_adapter)] != [b["output"] for b in rows(base)]


def test_a_killed_evaluation_goes_on_and_ends_the_same(
    step: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubkit.engines.transformers import TransformersEngine

    whole, killed = step("whole", models / "student-s"), step("killed", models / "student-s")
    killed.config["student"] = "whole"
    evaluation.run(whole)

    asked: list[str] = []
    stream = TransformersEngine.stream

    async def dying(self: Any, requests: Any) -> Any:
        async for response in stream(self, requests):
            if len(asked) == 3:
                raise KeyboardInterrupt
            asked.append(response.key)
            yield response

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "stream", dying)
        with pytest.raises(KeyboardInterrupt):
            evaluation.run(killed)
    before = len(asked)

    async def counting(self: Any, requests: Any) -> Any:
        async for response in stream(self, requests):
            asked.append(response.key)
            yield response

    monkeypatch.setattr(TransformersEngine, "stream", counting)
    evaluation.run(killed)
    assert before == 3 and len(asked) == len(set(asked)) == 8
    assert rows(killed) == rows(whole)


def test_a_longer_benchmark_asks_what_is_new_alone(
    step: Any, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubkit.engines.transformers import TransformersEngine

    asked: list[str] = []
    stream = TransformersEngine.stream

    async def counting(self: Any, requests: Any) -> Any:
        async for response in stream(self, requests):
            asked.append(response.key)
            yield response

    monkeypatch.setattr(TransformersEngine, "stream", counting)
    found = []
    for number, new in ((5, 5), (8, 3), (8, 0)):
        write_rows(tmp_path / "problems" / "problems.parquet", PROBLEMS[:number], PROBLEM_SCHEMA)
        context = step(f"student-{len(found)}", models / "student-s")
        context.root = tmp_path / "runs"
        context.config["student"] = "student"
        asked.clear()
        evaluation.run(context)
        assert len(asked) == new
        found.append(rows(context))
    assert found[1][:5] == found[0]
    assert found[2] == found[1]
    other = step("other", models / "student-m")
    other.root = tmp_path / "runs"
    other.config["student"] = "student"
    evaluation.run(other)
    assert len(asked) == 8, "another model's answers are not taken for its own"


def test_an_unclosed_span_has_no_solution(step: Any, models: Path) -> None:
    # So short that every answer ends within its reasoning, where the right number may already stand.
    context = step("teacher", models / "teacher", sampling={"max_tokens": 30, "temperature": 0.0})
    evaluation.run(context)
    assert context.metrics["correct"] == 0
    assert context.metrics["cut_share"] == 1.0
    assert context.metrics["mean_output_tokens"] == 30


def test_no_chat_template_is_refused_before_lighteval_is_loaded(
    step: Any, models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(models / "student-s", folder, ignore=shutil.ignore_patterns("chat_template.jinja"))
    with pytest.raises(InputError, match=r"no chat template \(add chat_template.jinja"):
        evaluation.run(step("bare", folder))


def test_a_student_is_not_asked_of_an_endpoint(step: Any, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "student-s", tmp_path / "student" / "model")
    context = step("served", models / "student-s", tmp_path / "student")
    context.runtime["engine"]["engine"] = "openai"
    with pytest.raises(EngineError, match="engine=transformers"):
        evaluation.run(context)


@pytest.mark.parametrize(
    ("engine", "most", "told"),
    [
        ({"engine": "transformers"}, 1024, r"have 1024 tokens, .* 1024 \(max_position_embeddings of s\)"),
        ({}, 2000, "max_position_embeddings of s"),
        ({"engine": "transformers"}, 1000, ""),
        ({"engine": "vllm", "vllm": {"max_model_len": 600}}, 600, "students.vllm.max_model_len"),
        ({"engine": "vllm", "vllm": {"max_model_len": 600}}, 599, ""),
        ({"engine": "vllm", "vllm": {"max_model_len": "auto"}}, 5000, ""),
    ],
)
def test_answers_that_leave_no_room_for_a_prompt_are_told_before_the_run(
    engine: dict[str, Any], most: int, told: str
) -> None:
    """Every request would be refused, after the students were trained."""
    asked = CheckContext(
        step="evaluation/s-raw-full/sums",
        config={"base": "s", "benchmark": {"sampling": {"max_tokens": most}}},
        runtime={"engine": EngineRuntime(**engine).model_dump(), "device": "cpu"},
        models={"base": {"model": str(MODELS / "student-s"), "revision": ""}},
        problems=set(),
        inputs={"student"},
        here="vllm" not in engine,
    )
    with pytest.raises(RecipeError, match=told) if told else nullcontext():
        evaluation.check(asked)


def test_a_base_is_asked_in_the_template_that_it_was_given(step: Any, models: Path) -> None:
    context = step("base", models / "student-s")
    context.config["chat_template"] = "{{ raise_exception('asked in this one') }}"
    with pytest.raises(Exception, match="asked in this one"):
        evaluation.run(context)
    link = context.work / "base" / "model.safetensors"
    assert link.is_symlink() and link.resolve() == (models / "student-s/model.safetensors").resolve()


def test_built_in_tasks_are_found_and_given_room() -> None:
    from hubkit.evaluation.tasks import built_in, describe

    for task in ("gsm8k|0", "math_500|0", "aime24|0", "gpqa:diamond|0"):
        (config,) = built_in(task, 4096).table
        assert (config.name, config.generation_size) == (task.partition("|")[0], 4096)
    from lighteval.tasks.tasks.gsm8k import TASKS_TABLE

    assert TASKS_TABLE[0].generation_size == 256, "lighteval's own is left as it was"
    facts = describe("gsm8k|5")
    assert (facts.dataset, facts.config, facts.splits) == ("openai/gsm8k", "main", ("test",))
    assert (facts.samples, facts.examples, facts.revision) == (1, "train", "")
    assert describe("mmlu_pro|0").revision == "3373e0b32277875b8db2aa555a333b78a08477ea"
    assert describe("aime24_gpassk|0").samples == 48 and describe("aime24|2").examples == ""


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("gsm9k|0", "no task 'gsm9k'"),
        ("gsm8k", "name.number of examples"),
        ("gsm8k|x", "name.number of examples"),
        ("|0", "no task ''"),
        ("aime24_avg|0", "no task"),
        ("aime24@n=4|0", r"write aime24\|0, and `samples: 4`"),
        ("gpqa:mc|0", "scored by log-likelihoods .acc., which engines that write answers do not give"),
        ("wikitext:103:document_level|0", "log-likelihoods"),
        ("gpqa|0", r"4 tasks of lighteval .*gpqa:mc\|0, gpqa:diamond\|0"),
        ("mt_bench|0", "language model over the network"),
        ("qasper|0", "scored by likeness .f1., which finds answers partly right"),
        (
            "bigbench:tellmewhy|0",
            "scored over all its answers at once .bleu., and not problem by problem",
        ),
    ],
)
def test_tasks_that_cannot_be_scored_are_refused(task: str, why: str) -> None:
    from hubkit.evaluation.tasks import describe

    with pytest.raises(RecipeError, match=why) as caught:
        describe(task)
    assert caught.value.remedy and "\n" not in str(caught.value)


def test_tasks_that_show_pictures_are_refused() -> None:
    from lighteval.tasks.requests import Doc

    from hubkit.evaluation.tasks import check_words

    doc = Doc("What is on it?", ["a cat"], 0)
    check_words("mmmu_pro:vision|0", [doc])
    doc.images = ["a picture"]
    with pytest.raises(RecipeError, match="asks about pictures"):
        check_words("mmmu_pro:vision|0", [doc])


def test_several_answers_to_each_problem(step: Any, models: Path) -> None:
    sampling = {"max_tokens": 400, "temperature": 0.9}
    context = step("several", models / "teacher", sampling=sampling, samples=3)
    evaluation.run(context)
    table = pq.read_table(context.out / "samples.parquet")
    assert table.schema.equals(SAMPLED_SCHEMA)
    samples = table.to_pylist()
    assert [(s["id"], s["sample"]) for s in samples] == [(p["id"], i) for p in PROBLEMS for i in range(3)]
    # Drawn apart: an answer three times over would be one answer.
    assert len({s["output"] for s in samples}) > len(PROBLEMS)
    for sample, source in zip(samples, [p for p in PROBLEMS for _ in range(3)], strict=True):
        verdict = verify_problem(source, split(sample["output"]).solution)
        assert (sample["correct"], sample["extracted"]) == (verdict.correct, verdict.answer or None)
    metrics, right = context.metrics, [s["correct"] for s in samples]
    assert (metrics["n"], metrics["samples"], metrics["correct"]) == (8, 3, sum(right))
    assert metrics["accuracy"] == sum(right) / 24
    assert metrics["pass_at_k"] == sum(any(right[i : i + 3]) for i in range(0, 24, 3)) / 8
    results = json.loads((context.out / "results.json").read_text())["results"]["sums|0"]
    assert next(iter(results)) == "avg@n:n=3", "the first of a run's metrics is its main one"
    assert results["avg@n:n=3"] == pytest.approx(metrics["accuracy"])
    assert results["pass@k:k=3&n=3"] == metrics["pass_at_k"]
    assert results["maj@n:n=3"] == metrics["maj_at_k"]


def test_benchmarks_of_one_model_load_it_once(
    step: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubkit.engines.transformers import TransformersEngine

    loaded: list[str] = []
    enter, leave = TransformersEngine.__enter__, TransformersEngine.__exit__

    def entering(self: Any) -> Any:
        loaded.append(f"+{self._folder.name}")
        return enter(self)

    def leaving(self: Any, *error: Any) -> Any:
        loaded.append(f"-{self._folder.name}")
        return leave(self, *error)

    monkeypatch.setattr(TransformersEngine, "__enter__", entering)
    monkeypatch.setattr(TransformersEngine, "__exit__", leaving)
    sampling = {"max_tokens": 20}
    contexts = [step(f"s-{part}", models / "student-s", sampling=sampling) for part in "abc"]
    contexts += [step("m", models / "student-m", sampling=sampling)]
    for context, keep in zip(contexts, (True, True, False, True), strict=True):
        context.runtime["keep_engine"] = keep
        evaluation.run(context)
    assert loaded == ["+student-s", "-student-s", "+student-m"]
    assert rows(contexts[0]) == rows(contexts[1]) == rows(contexts[2]) != rows(contexts[3])
    # Another student, and whatever else a worker does next, gets the memory.
    evaluation.run(step("t", models / "teacher", sampling=sampling))
    assert loaded[3:] == ["-student-m", "+teacher", "-teacher"]


def test_an_evaluation_runs_in_the_precision_of_the_run(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was handed on as marks of thinking spans: unseen by the embedded engine, and refused by vLLM's arguments."""
    given: dict[str, Any] = {}

    def opened(*_: Any, **options: Any) -> Any:
        given.update(options)
        raise EngineError("enough")

    monkeypatch.setattr(evaluation, "open_engine", opened)
    context = step("s", MODELS / "student-s")
    context.runtime["precision"] = "bfloat16"
    with pytest.raises(EngineError, match="enough"):
        evaluation.run(context)
    assert given == {"adapter": None, "precision": "bfloat16"}
