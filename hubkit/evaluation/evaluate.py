"""Evaluation: one student, or an untrained base, on one benchmark, by lighteval.

    student model/ and Problem {"id": "chain_sum-2f6c", "problem": "…", "answer": "73", …}
    -> {"id": "chain_sum-2f6c", "output": "<think>\\n…</think>\\n\\nThe answer is …", "correct": true,
        "output_tokens": 41, "finish_reason": "stop", …} in samples.parquet, lighteval's own results.json
       and details/, and in the record {"accuracy": 0.62, "ci_low": 0.55, "ci_high": 0.68, …}

Every student gets the same problems, prompt, decoding and limit; samples of all stand in one order.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import types
from collections.abc import Iterator
from typing import Any, Final

from hubkit.config import Benchmark, EngineRuntime
from hubkit.engines import open_engine
from hubkit.errors import InputError, StepError
from hubkit.evaluation.statistics import wilson
from hubkit.records import EVALUATION_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext

__all__ = ["VERSION", "run"]

VERSION: Final = 1


def run(context: StepContext) -> None:
    """Write samples.parquet, results.json and details/."""
    from hubkit.evaluation.tasks import own_task

    benchmark = Benchmark.model_validate(context.config["benchmark"])
    problems: list[dict[str, Any]] = []
    custom: types.ModuleType | None = None
    task = benchmark.task or f"{benchmark.name}|0"
    if benchmark.problems:
        # lighteval loads tasks through datasets, which wants a folder of its own for them.
        folder = context.work / "problems"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(context.inputs["problems"] / "problems.parquet", folder / "train.parquet")
        problems = list(read_rows(folder / "train.parquet"))
        custom = own_task(benchmark.name, folder, benchmark.sampling.max_tokens)
    started = time.monotonic()
    samples, results = _evaluate(context, benchmark, task, custom)
    for sample in samples:
        place = int(sample["id"])
        if problems:
            sample.update(id=problems[place]["id"], problem=problems[place]["problem"])
        else:
            sample["id"] = f"{benchmark.name}-{place}"
    if problems and len(samples) != len(problems):
        raise StepError(f"lighteval scored {len(samples)} of {len(problems)} problems", "run again")
    (context.out / "results.json").write_text(results, encoding="utf-8")
    context.count("problems", write_rows(context.out / "samples.parquet", samples, EVALUATION_SCHEMA))
    context.metrics.update(_metrics(samples), seconds=round(time.monotonic() - started, 3))


def _metrics(samples: list[dict[str, Any]]) -> dict[str, Any]:
    n, correct = len(samples), sum(sample["correct"] for sample in samples)
    tokens = sum(sample["output_tokens"] for sample in samples)
    low, high = wilson(correct, n)
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci_low": low,
        "ci_high": high,
        "output_tokens": tokens,
        "mean_output_tokens": tokens / n,
        "cut_share": sum(sample["finish_reason"] == "length" for sample in samples) / n,
        "accuracy_per_1000_tokens": correct / max(1, tokens) * 1000,
    }


def _evaluate(
    context: StepContext, benchmark: Benchmark, task: str, custom: types.ModuleType | None
) -> tuple[list[dict[str, Any]], str]:
    """Rows in the order of lighteval's document ids, and its results file. Moves details into the output."""
    with _contained():
        from lighteval.logging.evaluation_tracker import EvaluationTracker
        from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
        from transformers import AutoTokenizer

        from hubkit.evaluation.model import EngineModel
        from hubkit.evaluation.tasks import registry

        config = context.config
        base = context.model("base")
        student = context.inputs["student"] / "model" if "student" in context.inputs else base
        adapter = student if (student / "adapter_config.json").is_file() else None
        tokenizer = AutoTokenizer.from_pretrained(student)
        if not tokenizer.chat_template:
            raise InputError(
                f"{config['student']} has no chat template", "add chat_template.jinja to its tokenizer"
            )
        output = context.work / "lighteval"
        shutil.rmtree(output, ignore_errors=True)  # of an attempt that was killed
        tracker = EvaluationTracker(output_dir=str(output), save_details=True)
        parameters = PipelineParameters(
            launcher_type=ParallelismManager.NONE,
            custom_tasks_directory=custom,  # type: ignore[arg-type,unused-ignore]  # a module is taken too
            remove_reasoning_tags=False,  # EngineModel did: lighteval leaves a span that never closed
            bootstrap_iters=0,
        )
        runtime = EngineRuntime(**context.runtime["engine"])
        threads = context.runtime["threads"]
        weights = base if adapter else student
        with open_engine(weights, runtime, context.runtime["device"], threads, adapter) as engine:
            model = EngineModel(
                name=config["student"],
                engine=engine,
                tokenizer=tokenizer,
                sampling=benchmark.sampling,
                system=config["system"],
                seed=0,
                cache=context.work / "cache",
                progress=context.progress,
            )
            with registry(task, custom):
                pipeline = Pipeline(task, parameters, tracker, model=model)
            pipeline.evaluate()
        tracker.save()
        samples = [
            _sample(detail, model.responses)
            for details in tracker.details_logger.details.values()
            for detail in details
        ]
    (results,) = output.glob("results/**/*.json")
    shutil.copytree(output / "details", context.out / "details")
    samples.sort(key=lambda sample: int(sample["id"]))
    # Published: no folder of this machine may stand in it.
    return samples, results.read_text(encoding="utf-8").replace(str(context.work), "work")


def _sample(detail: Any, responses: dict[str, Any]) -> dict[str, Any]:
    doc, response = detail.doc, responses[detail.doc.id]
    gold = doc.choices[doc.gold_index if isinstance(doc.gold_index, int) else doc.gold_index[0]]
    return {
        "id": doc.id,
        "problem": doc.query,
        "answer": str(gold),
        "output": response.text,
        # A task with several metrics lists its main one first.
        "correct": float(next(iter(detail.metric.values()))) >= 0.5,
        "output_tokens": response.completion_tokens,
        "finish_reason": response.finish_reason,
    }


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Keep lighteval's habits to itself: importing it turns gradients off for the whole process (and this
    process trains the next student), and it logs every stage and shows bars where hubkit shows one."""
    import datasets
    import torch
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    before, gradients = logging.root.manager.disable, torch.is_grad_enabled()
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        torch.set_grad_enabled(gradients)
