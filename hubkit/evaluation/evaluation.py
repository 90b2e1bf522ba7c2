"""Evaluation: one student, or an untrained base, on one benchmark, by lighteval.

    student model/ and Problem {"id": "chain_sum-2f6c", "problem": "…", "answer": "73", …}
    -> {"id": "chain_sum-2f6c", "output": "<think>\\n…</think>\\n\\nThe answer is …", "correct": true,
        "output_tokens": 41, "finish_reason": "stop", …} in samples.parquet, lighteval's own results.json
       and details/, and in the record {"accuracy": 0.62, "ci_low": 0.55, "ci_high": 0.68, …}

Every student gets the same problems, prompt, decoding and limit, and samples are in the same order for all. A student
of a mixture has an evaluation for each of its levels of effort, in which its chat template is given the level.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hubkit.engines import choose, open_engine
from hubkit.engines.check import check_engine
from hubkit.engines.kept import is_open, kept_engine, release
from hubkit.engines.settings import EngineRuntime
from hubkit.engines.weights import no_code
from hubkit.errors import EngineError, InputError, RecipeError, StepError, first_line
from hubkit.evaluation.benchmark import Benchmark, check_level
from hubkit.evaluation.published import check_served, merged, trained_answers
from hubkit.evaluation.statistics import summary
from hubkit.evaluation.tasks import Tasks, built_in, contained, own_task
from hubkit.records import EVALUATION_SCHEMA, SAMPLED_SCHEMA, RowWriter, files_of, part_of, read_rows
from hubkit.store import CheckContext, StepContext, digest
from hubkit.students.gates import level_of
from hubkit.students.preflight import base_folder
from hubkit.traces.answers import Answers
from hubkit.traces.journal import Journal

__all__ = ["VERSION", "check", "run"]

VERSION: Final = 2
PROMPTS: Final = ("What is 12 + 30?", "Name a prime number above 90.", "How many legs do three spiders have?")
"""Prompts for the check that the engine serves the trained model, if the benchmark's own problems are not at hand."""

_TEXTS: Final = ("problem", "answer", "output")


def check(context: CheckContext) -> None:
    """Check that the engine is available and can serve the student."""
    engine = context.runtime["engine"]
    if "student" in context.inputs and engine["engine"] == "openai":
        raise _not_served(context.step)
    if context.here:
        check_engine(engine, context.step)
    _check_room(context)


def _not_served(step: str) -> EngineError:
    """An endpoint would answer with whatever model it serves, the same for every student."""
    return EngineError(
        f"{step}: an endpoint does not serve the student just trained",
        "set run.engines.students.engine=transformers",
    )


def _check_room(context: CheckContext) -> None:
    """Raise RecipeError where answers may be as long as all that the engine holds: it would refuse every prompt."""
    most = context.config["benchmark"]["sampling"]["max_tokens"]
    runtime = EngineRuntime(**context.runtime["engine"])
    if context.here:
        runtime = choose(runtime, context.runtime["device"])
    if runtime.engine == "vllm":
        holds, what = runtime.vllm.get("max_model_len"), "run.engines.students.vllm.max_model_len"
    elif runtime.engine == "transformers":
        base = context.models["base"]
        folder = base_folder(base["model"], base["revision"])
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            holds = config.get("text_config", config).get("max_position_embeddings")
        except (OSError, ValueError, AttributeError):
            return  # the check of students tells
        what = f"max_position_embeddings of {context.config['base']}"
    else:
        return
    if type(holds) is int and 0 < holds <= most:
        raise RecipeError(
            f"{context.step}: its answers may have {most} tokens, and prompt and answer together {holds} ({what})",
            "lower the benchmark's sampling.max_tokens"
            + (f", or raise {what}" if runtime.engine == "vllm" else ""),
        )


def run(context: StepContext) -> None:
    """Write samples.parquet, results.json and details/."""
    benchmark = Benchmark.model_validate(context.config["benchmark"])
    runtime = choose(EngineRuntime(**context.runtime["engine"]), context.runtime["device"])
    context.runtime["engine"] = runtime.model_dump(mode="json")  # the record says which one it was
    weights, adapter, tokenizer = _student(context)
    check_level(tokenizer, context.config.get("level", {}))
    answers = max(1, benchmark.samples)
    with contained(context.work / "datasets"):
        problems: list[dict[str, Any]] = []
        if benchmark.problems:
            # lighteval loads tasks through datasets, which wants a folder of its own for them.
            folder = context.work / "problems" / benchmark.problems
            folder.mkdir(parents=True, exist_ok=True)
            table = context.inputs["problems"] / "problems.parquet"
            for number, file in enumerate(files := files_of(table)):
                shutil.copyfile(file, part_of(folder / "train.parquet", number, len(files)))
            problems = list(read_rows(table))
            name = f"{benchmark.name}|0"
            task = own_task(benchmark.name, folder, benchmark.sampling.max_tokens, answers)
        else:
            assert benchmark.task is not None, "Benchmark has one of the two"
            revision = context.models.get("benchmark", {}).get("revision", "")
            name = benchmark.task
            task = built_in(name, benchmark.sampling.max_tokens, revision, answers)
        started = time.monotonic()  # lighteval's import, 10 to 20 s once per process, is not the student's
        found = _evaluate(context, benchmark, name, task, problems, (weights, adapter, tokenizer))
        schema = SAMPLED_SCHEMA if answers > 1 else EVALUATION_SCHEMA
        told: list[dict[str, Any]] = []
        """Rows without their texts."""
        with RowWriter(context.out / "samples.parquet", schema) as samples:
            for place, sample in enumerate(found):
                if problems:
                    problem = problems[int(sample["id"].rpartition("/")[2])]
                    sample.update(id=problem["id"], problem=problem["problem"])
                else:
                    sample["id"] = f"{benchmark.name}-{place // answers}"
                samples.add(sample)
                told.append({name: value for name, value in sample.items() if name not in _TEXTS})
        seconds = round(time.monotonic() - started, 3)
    asked = [problem["id"] for problem in problems for _ in range(answers)]
    if problems and [sample["id"] for sample in told] != asked:
        raise StepError(f"lighteval scored {len(told)} of {len(asked)} answers", "run again")
    if not told:
        raise InputError(f"{name} has no problems", "choose another benchmark")
    context.count("problems", len(told) // answers)
    context.metrics.update(summary(told), seconds=seconds)


def _student(context: StepContext) -> tuple[Path, Path | None, Any]:
    """Returns the folder of the weights, the adapter on them if any, and the tokenizer that the engine will use."""
    from transformers import AutoTokenizer

    weights, adapter = context.inputs.get("student", Path()) / "model", None
    if "student" not in context.inputs:
        weights = context.model("base")
    elif context.runtime["engine"]["engine"] == "openai":
        raise _not_served(context.step)
    elif (weights / "adapter_config.json").is_file():
        weights, adapter = context.model("base"), weights
        if context.runtime["engine"]["engine"] != "transformers":
            weights, adapter = merged(weights, adapter, context.work / "merged"), None
    if (template := context.config.get("chat_template")) and weights == context.model("base"):
        weights = _with_template(weights, template, context.work / "base")
    try:
        no_code()
        tokenizer = AutoTokenizer.from_pretrained(weights)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{context.config['student']} has no usable tokenizer: {first_line(error)}",
            "put its tokenizer files beside the weights",
        ) from error
    if not tokenizer.chat_template:
        raise InputError(
            f"{context.config['student']} has no chat template", "add chat_template.jinja to its tokenizer"
        )
    return weights, adapter, tokenizer


def _with_template(base: Path, template: str, folder: Path) -> Path:
    """Returns the base with the chat template of its students: engines read the template from the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in base.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def _evaluate(
    context: StepContext,
    benchmark: Benchmark,
    name: str,
    task: Tasks,
    problems: list[dict[str, Any]],
    student: tuple[Path, Path | None, Any],
) -> Iterator[dict[str, Any]]:
    """Rows in the order of the benchmark, with lighteval's document as id. Writes results.json and details/.

    Texts stay in the journal and are read one by one, by lighteval, too: 3,000 answers of 24,000 tokens are 300 MB of
    text, which it would hold several times.
    """
    from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters

    from hubkit.evaluation.model import EngineModel
    from hubkit.evaluation.tasks import only, reading
    from hubkit.evaluation.tracker import open_tracker

    config, (weights, adapter, tokenizer) = context.config, student
    output = context.work / "lighteval"
    shutil.rmtree(output, ignore_errors=True)  # of an attempt that was killed
    tracker = open_tracker(output)
    parameters = PipelineParameters(
        launcher_type=ParallelismManager.NONE,
        remove_reasoning_tags=False,  # EngineModel did: lighteval leaves a span that never closed
        bootstrap_iters=0,
    )
    device, threads = context.runtime["device"], context.runtime["threads"]
    precision = context.runtime.get("precision", "auto")
    runtime = EngineRuntime(**context.runtime["engine"])
    chats = _chats(problems, config["system"])
    served = digest(
        [
            str(context.inputs.get("student", "")),
            context.models["base"],
            config.get("chat_template", ""),
            runtime.model_dump(mode="json"),
            [device, threads, precision],
        ]
    )
    expected: list[list[int]] = []
    if not is_open(served):
        release()  # another model's memory
        expected = _trained_answers(context, chats, tokenizer)
    with (
        Journal(context.work / "journal.sqlite", digest(config), _answers(context)) as journal,
        kept_engine(
            served,
            lambda: open_engine(weights, runtime, device, threads, adapter=adapter, precision=precision),
            context.runtime.get("keep_engine", False),
        ) as kept,
    ):
        if kept.engine.precision:
            context.metrics["precision"] = kept.engine.precision
        if expected:
            agreement = asyncio.run(check_served(kept.engine, chats, expected, tokenizer, level_of(config)))
            kept.notes["served_agreement"] = agreement
        context.metrics.update(kept.notes)
        model = EngineModel(
            name=config["student"],
            engine=kept.engine,
            tokenizer=tokenizer,
            sampling=benchmark.sampling,
            system=config["system"],
            journal=journal,
            context=context,
            cache=context.work / "cache",
            samples=max(1, benchmark.samples),
            template=level_of(config),
        )
        with only(task), reading(name):
            pipeline = Pipeline(name, parameters, tracker, model=model)
        _number(pipeline)
        pipeline.evaluate()
        tracker.save()
        details = [detail for rows in tracker.details_logger.details.values() for detail in rows]
        # lighteval shuffles documents; students are compared row by row.
        details.sort(key=lambda detail: (detail.doc.task_name, int(detail.doc.id)))
        (results,) = output.glob("results/**/*.json")
        # Published: no folder of this machine may stand in it. JSON may have escaped the folder's name.
        text = results.read_text(encoding="utf-8")
        for work in (json.dumps(f"{context.work}/")[1:-1], f"{context.work}/"):
            text = text.replace(work, "")
        (context.out / "results.json").write_text(text, encoding="utf-8")
        shutil.copytree(output / "details", context.out / "details")
        for detail in details:
            yield from _samples(detail, model, task)


def _answers(context: StepContext) -> Answers | None:
    """Answers of this same student or base in earlier evaluations: a longer benchmark asks only for new ones."""
    if context.root is None:
        return None
    student = context.record("student").output if "student" in context.inputs else ""
    base = context.models["base"]
    parts = [student, base.get("digest") or base, context.config.get("chat_template", "")]
    return Answers(context.root, digest(parts), context.work)


def _number(pipeline: Any) -> None:
    """Give each document its own number: lighteval starts from 0 in each split that a task evaluates."""
    for docs in pipeline.documents_dict.values():
        if len({doc.id for doc in docs}) < len(docs):
            for number, doc in enumerate(sorted(docs, key=lambda doc: (int(doc.id), doc.query))):
                doc.id = str(number)


def _chats(problems: list[dict[str, Any]], system: str) -> list[list[dict[str, str]]]:
    """Prompts on which the engine is compared with the trained model."""
    head = [{"role": "system", "content": system}] if system else []
    texts = [problem["problem"] for problem in problems[:3]] or list(PROMPTS)
    return [[*head, {"role": "user", "content": text}] for text in texts]


def _trained_answers(
    context: StepContext, chats: list[list[dict[str, str]]], tokenizer: Any
) -> list[list[int]]:
    """Returns the student's answers by transformers and PEFT, from its published files. Empty for a base."""
    if "student" not in context.inputs:
        return []
    weights, adapter = context.inputs["student"] / "model", None
    if (weights / "adapter_config.json").is_file():
        weights, adapter = context.model("base"), weights
    level, device = level_of(context.config), context.runtime["device"]
    return trained_answers(weights, adapter, chats, tokenizer, level, device)


def _samples(detail: Any, model: Any, task: Tasks) -> Iterator[dict[str, Any]]:
    """A row per answer of an EngineModel to one of lighteval's documents."""
    from hubkit.evaluation.model import document

    doc = detail.doc
    gold = doc.choices[doc.gold_index if isinstance(doc.gold_index, int) else doc.gold_index[0]]
    if task.sampled is None:
        # A task with several metrics lists its main one first.
        found: list[tuple[float, str | None]] = [(float(next(iter(detail.metric.values()))), None)]
    else:
        found = task.sampled.scores[doc.task_name, doc.id]
    for sample, (score, extracted) in enumerate(found):
        if score not in (0, 1):
            raise InputError(
                f"{doc.task_name} scores an answer {score:g}, between wrong and right",
                "choose a task whose answers are right or wrong",
            )
        response = model.response(doc, sample)
        # If a server separated the reasoning, it is put back: an output is everything that was generated.
        span = f"<think>\n{response.reasoning}\n</think>\n\n" if response.reasoning else ""
        yield {
            "id": document(doc, sample).id,
            "problem": doc.query,
            "answer": str(gold).strip(),
            "output": span + response.text,
            "correct": score == 1,
            "output_tokens": response.completion_tokens,
            "finish_reason": response.finish_reason,
        } | ({"sample": sample, "extracted": extracted} if len(found) > 1 else {})
