"""A small finished run, for tests of what comes after it: real records, Parquet files and model weights.

Its texts are hostile on purpose: HTML, Markdown, template braces and code fences in prompts, problems and outputs.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubkit.evaluation.statistics import wilson
from hubkit.problems import contamination
from hubkit.recipe.config import Recipe
from hubkit.records import (
    EVALUATION_SCHEMA,
    PROBLEM_SCHEMA,
    messages_of,
    write_rows,
)
from hubkit.release import report
from hubkit.store import Record, StepContext, Store, digest, digest_folder
from hubkit.traces.lengths import length_metrics
from hubkit.traces.variants import VARIANTS, truncated

HOSTILE = (
    '<script>document.title="owned"</script><img src=x onerror="document.title=1"> **bold** | {{7*7}} ${8*8}'
)
PROMPT = (
    "Shorten this.\n````\n```python\nprint('{reasoning}')\n```\n````\n</code></pre><script>alert(1)</script>"
)
COUNTS = {"raw": (12, 90), "compressed": (10, 12), "truncated": (10, 12)}
"""Variant -> rows, reasoning tokens of each."""
RIGHT = {"raw": 15, "compressed": 11, "truncated": 3, None: 1}
PROBLEMS = 20


@dataclass
class Run:
    """Folders of finished steps, and what a publish or report step is given."""

    root: Path
    recipe: Recipe
    inputs: dict[str, Path]
    models: dict[str, dict[str, str]]
    hub: str = "hub"
    """Name of the local Hub's folder."""

    def context(self, step: str, out: Path, config: dict[str, Any] | None = None) -> StepContext:
        wanted = ("raw", "compressed", "truncated", "student", "evaluation")
        inputs = {n: f for n, f in self.inputs.items() if step != "report" or n.split("/")[0] in wanted}
        inputs.pop("publish", None)  # of an earlier Hub
        about = {"recipe": self.recipe.model_dump(mode="json", exclude={"run"})}
        (out / "work").mkdir(parents=True, exist_ok=True)
        return StepContext(
            step=step,
            config=config or about,
            runtime={},
            inputs=inputs,
            models=self.models if step == "publish" else {},
            out=out / "out",
            work=out / "work",
            paths={"hub": self.root / self.hub},
        )

    def finish(self, step: str, function: Callable[[StepContext], None], folder: Path) -> Record:
        """Run a step through the store, as the pipeline does."""
        context = self.context(step, folder)
        # A release is pushed to several Hubs, each time as a step of its own.
        inputs = {name: Record.read(folder).output for name, folder in context.inputs.items()}
        parts = {"step": step, "version": 1, "config": context.config, "inputs": inputs}
        key = digest(parts if step == "report" else [step, str(folder)])
        record = Store(self.root).run(context, step, 1, key, inputs, function)
        self.inputs[step] = Store(self.root).folder(step, key)
        return record


def tiny_model(folder: Path) -> None:
    """A Qwen3 with random weights and a byte-level tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(["<|end|>", "<|start|>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=(
            "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
        ),
    )
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def adapter(base: Path, folder: Path) -> None:
    """A LoRA adapter as PEFT saves it, with the base's local path in it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def small_recipe() -> Recipe:
    sampling = {"max_tokens": 40}
    sft = {"learning_rate": 1e-3, "max_length": 128}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "description": f"A test release {HOSTILE}",
            "problems": {
                "train": {"source": "reasoning-gym", "task": "chain_sum", "size": 20, "split": "train"},
                "test": {"source": "reasoning-gym", "task": "chain_sum", "size": 20, "split": "test"},
            },
            "teachers": [{"name": "sage", "model": "./sage", "sampling": sampling, "system": "Be```brief"}],
            "compressors": [{"name": "short", "model": "./short", "prompt": PROMPT, "sampling": sampling}],
            "students": {
                "bases": [{"name": "s", "model": "./s"}],
                "variants": ["raw", "compressed-short", "truncated-short"],
                "methods": {"full": {"sft": sft}, "lora": {"sft": sft, "lora": {"r": 2}}},
                "seeds": [0, 1],
            },
            "benchmarks": [{"name": "test", "problems": "test", "sampling": sampling}],
        }
    )


def build(root: Path, reported: bool = False) -> Run:
    """All steps before report and publish, and the report, in a folder of one's own."""
    made = _made(reported)
    shutil.copytree(made.root, root, dirs_exist_ok=True)

    def moved(path: Path | str) -> Path:
        return root / Path(path).relative_to(made.root)

    models = {name: about | {"model": str(moved(about["model"]))} for name, about in made.models.items()}
    return Run(root, made.recipe, {name: moved(folder) for name, folder in made.inputs.items()}, models)


@functools.cache
def _made(reported: bool) -> Run:
    """Made once in a process, for copies; goes when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="small-release-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if not reported:
        return _build(folder)
    run = build(folder / "run", reported=False)
    run.finish("report", report.run, folder / "r")
    return run


def _build(root: Path) -> Run:
    """Write them through the store."""
    recipe = small_recipe()
    run = Run(root, recipe, {}, {})
    for name in ("s", "sage", "short"):
        folder = root / "models" / name
        tiny_model(folder)
        (folder / "pytorch_model.bin").write_bytes(b"a pickle that must not be published")
        (folder / "modeling.py").write_text("raise SystemExit('code that must not be published')")
        run.models[name] = {"model": str(folder), "revision": ""}
    base_digest = digest_folder(root / "models" / "s")

    def step(name: str, config: dict[str, Any], write: Callable[[StepContext], None]) -> None:
        given = dict(run.inputs)
        inputs = {of: Record.read(folder).output for of, folder in given.items()}
        if name.startswith("evaluation/") and config["variant"]:
            inputs["student"] = inputs[f"student/{config['student']}"]
        if name.startswith(("student/", "evaluation/")):
            inputs["model:base"] = base_digest
        if name == "contamination":
            given = {
                "training/problems/train": run.inputs["problems/train"],
                "test": run.inputs["problems/test"],
            }
        # The check carries these out again, if they are of the same version.
        version = truncated.VERSION if name.startswith("truncated/") else 1
        version = contamination.VERSION if name == "contamination" else version
        key = digest({"step": name, "version": version, "config": config, "inputs": inputs})
        work = root / "work" / name
        context = StepContext(name, config, {}, given, {}, root / "tmp" / digest(name), work)
        Store(root).run(context, name.split("/")[0], version, key, inputs, write)
        run.inputs[name] = Store(root).folder(name, key)

    def problems(context: StepContext) -> None:
        rows = [
            {
                "id": id_,
                "source": "x",
                "problem": text,
                "answer": str(i),
                "verifier": "math",
                "metadata": "",
            }
            for i in range(PROBLEMS)
            for id_, text in [(f"p{i}", problem(i)) if context.config["set"] == "test" else trained_on(i)]
        ]
        context.count("kept", write_rows(context.out / "problems.parquet", rows, PROBLEM_SCHEMA))

    for name in ("train", "test"):
        step(f"problems/{name}", {"set": name}, problems)
    step("contamination", {}, contamination.run)
    for kind, place in (("raw", "sage"), ("compressed", "sage/short"), ("truncated", "sage/short")):
        step(f"{kind}/{place}", {}, lambda context, kind=kind: _variant(context, kind))

    def matched(context: StepContext) -> None:
        (context.out / "matched.json").write_text("[]")

    step("matched/sage", {"teacher": "sage"}, matched)
    students = [
        ("s-raw-full", "raw", "full", 0),
        ("s-raw-full-seed1", "raw", "full", 1),
        ("s-compressed-short-full", "compressed-short", "full", 0),
        ("s-truncated-short-full", "truncated-short", "full", 0),
        ("s-raw-lora", "raw", "lora", 0),
    ]
    base = root / "models" / "s"
    for student, variant, method, seed in students:
        about = {
            "student": student,
            "teacher": "sage",
            "base": "s",
            "variant": variant,
            "method": method,
            "seed": seed,
        }
        arguments = recipe.students.methods[method].model_dump(mode="json")
        step(f"student/{student}", about | arguments | {"system": ""}, lambda c: _student(c, base))
        _evaluation(step, about)
    nobody = {"teacher": None, "variant": None, "method": None, "seed": None}
    _evaluation(step, {"student": "s", "base": "s", **nobody})
    return run


def problem(number: int) -> str:
    return f"What is {number} + 0? {HOSTILE}"


def trained_on(number: int) -> tuple[str, str]:
    """Id and text of a training problem."""
    return f"t{number}", f"What is {number} and nothing? {HOSTILE}"


def _variant(context: StepContext, kind: str) -> None:
    rows, tokens = COUNTS[kind]
    extra = {
        "raw": {},
        "compressed": {"compressor": "short", "prompt_sha": "0123456789ab"},
        "truncated": {"budget_tokens": 12, "matched_to": "short"},
    }[kind]
    # The tokenizer has a token per byte. A truncated trace is the beginning of the raw one.
    reasoning = "Think </pre> and on".ljust(90, ".")[:tokens] if kind != "compressed" else "Short </pre>"
    data = [
        {
            "id": id_,
            "source": "x",
            "problem": text,
            "answer": str(i),
            "messages": messages_of(text, reasoning, f"\\boxed{{{i}}}"),
            "reasoning": reasoning,
            "solution": f"\\boxed{{{i}}}",
            "teacher": "sage",
            "sample": 0,
            "correct": True,
            "verifier": "math",
            "finish_reason": "stop",
            "reasoning_chars": tokens,
            "reasoning_tokens": tokens,
            "raw_reasoning_chars": 90,
            "raw_reasoning_tokens": 90,
            "ratio": tokens / 90,
            **extra,
        }
        for i in range(rows)
        for id_, text in [trained_on(i)]
    ]
    write_rows(context.out / "data.parquet", data, VARIANTS[kind].schema)
    context.count("kept", rows)
    context.count("dropped_wrong", 12 - rows + (8 if kind == "raw" else 0))
    context.metrics |= length_metrics(data)


def _student(context: StepContext, base: Path) -> None:
    if context.config["lora"]:
        adapter(base, context.out / "model")
    else:
        shutil.copytree(base, context.out / "model")
        (context.out / "model" / "training_args.bin").write_bytes(b"a pickle that must not be published")
    (context.out / "training.json").write_text("[]")
    tokens = COUNTS[context.config["variant"].split("-")[0]][1] * 1000
    context.metrics |= {
        "train_rows": 10,
        "train_tokens": tokens,
        "loss_tokens": tokens // 2,
        "steps": 7,
        "train_seconds": tokens / 9000,
        "train_cpu_seconds": tokens / 9000,
        "parameters": 30000,
        "trainable_parameters": 300,
        "cut_share": 0.0,
        "final_loss": 0.5,
        "precision": "bfloat16",
        "weights_moved": 0.987,
        "gradient_norm": 1.2345,
        "looked_at_step": 6,
        "layout": "padded",
        "attention": "sdpa",
        "layout_difference": 0.0000123,
        "layout_note": "examples are padded, not packed: packed with sdpa a logit is off by 7.0%",
    }
    if context.config["lora"]:
        context.metrics["lora_without"] = ["linear_attn.in_proj_a"]


def _evaluation(step: Callable[..., None], about: dict[str, Any]) -> None:
    kind = about["variant"].split("-")[0] if about["variant"] else None
    right, tokens = RIGHT[kind], COUNTS.get(kind or "raw", (0, 90))[1]

    def write(context: StepContext) -> None:
        rows = [
            {
                "id": f"p{i}",
                "problem": problem(i),
                "answer": str(i),
                "output": f"<think>\nthought {i} {HOSTILE}\n</think>\n\n\\boxed{{{i + (i >= right)}}} {HOSTILE}",
                "correct": i < right,
                "output_tokens": tokens,
                "finish_reason": "stop" if i % 5 else "length",
            }
            for i in range(PROBLEMS)
        ]
        write_rows(context.out / "samples.parquet", rows, EVALUATION_SCHEMA)
        share = right / PROBLEMS
        low, high = wilson(right, PROBLEMS)
        context.metrics |= {
            "n": PROBLEMS,
            "correct": right,
            "accuracy": share,
            "ci_low": low,
            "ci_high": high,
            "mean_output_tokens": float(tokens),
            "cut_share": 0.2,
            "accuracy_per_1000_tokens": share / tokens * 1000,
            "seconds": 1.0,
        }
        _lighteval_files(context.out, about["student"], rows)

    benchmark = {"name": "test", "problems": "test", "task": None, "sampling": {"max_tokens": 40}}
    step(f"evaluation/{about['student']}/test", about | {"benchmark": benchmark}, write)


def _lighteval_files(out: Path, model: str, rows: list[dict[str, Any]]) -> None:
    """What lighteval leaves of a run, as far as anything reads it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    date = "2026-11-24T06-24-06.123456"
    share = sum(row["correct"] for row in rows) / len(rows)
    task = {"hf_repo": "problems/test", "hf_subset": "default", "evaluation_splits": ["train"]}
    parameters = {"max_new_tokens": 40, "temperature": 0.0}
    results = {
        "config_general": {
            "max_samples": None,
            "model_name": model,
            "model_config": {"generation_parameters": parameters},
        },
        "results": {"test|0": {"accuracy": share}, "all": {"accuracy": share}},
        "versions": {},
        "config_tasks": {"test|0": task},
    }
    (out / "results.json").write_text(json.dumps(results))
    path = out / "details" / model / date / f"details_test|0_{date}.parquet"
    path.parent.mkdir(parents=True)
    details = [
        {
            "doc": {"id": str(i), "query": row["problem"], "choices": [row["answer"]], "gold_index": 0},
            "metric": {"accuracy": float(row["correct"])},
            "model_response": {"text": [row["output"]], "reasonings": ["thought"], "output_tokens": [[1, 2]]},
        }
        for i, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(details), path)
