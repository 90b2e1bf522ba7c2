"""Train the nano models from nothing: a tokenizer, two student bases, a teacher, a compressor.

    python recipes/nano-models/train.py --out recipes/nano/models
    python recipes/nano-models/train.py --out /tmp/models --only trunk-s --only student-s

The first stages come first: the other models continue from them. They are not shipped and lie in --stages.
Each model is one process with one thread: on small matrices more threads are slower, so run two `--only`
side by side instead.
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import corpus
import torch
from tokenizer import train_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers import PreTrainedTokenizerFast as Tokenizer

PROMPT = Path(__file__).parents[1] / "nano" / "prompts" / "compress.md"

# Tokens in one batch. About 20 traces: small enough for 1,600 updates in a quarter of an hour.
BATCH_TOKENS = 4096
# Documents drawn at a time; sorted by length inside, so that a batch holds little padding.
POOL = 512

Make = Callable[[random.Random, Tokenizer], str]


@dataclass(frozen=True)
class Plan:
    """How one model is made."""

    start: str | None  # the model it continues from; None: random weights
    shape: dict[str, Any]
    make: Make  # draws one document of its training text
    tokens: int
    lr: float
    role: str  # which text of ROLES its card carries; "" for a stage that others continue from


def chat(tokenizer: Tokenizer, messages: list[corpus.Message]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def base_document(rng: random.Random, tokenizer: Tokenizer) -> str:
    # One document in five is a conversation, so that turns and their end are familiar.
    if rng.random() < 0.2:
        turns = [message for _ in range(rng.randint(1, 4)) for message in corpus.small_talk(rng)]
        return chat(tokenizer, turns)
    return corpus.base_text(rng) + "<|endoftext|>"


def student_document(rng: random.Random, tokenizer: Tokenizer) -> str:
    kind = rng.random()
    if kind < 0.2:
        return base_document(rng, tokenizer)
    if kind < 0.5:
        return chat(tokenizer, [m for _ in range(rng.randint(1, 4)) for m in corpus.short_talk(rng)])
    return corpus.worked_text(rng) + "<|endoftext|>"


def mental_document(rng: random.Random, tokenizer: Tokenizer) -> str:
    # Some of it is what came before, so that nothing is unlearnt.
    if rng.random() < 0.3:
        return student_document(rng, tokenizer)
    return chat(tokenizer, [m for _ in range(rng.randint(2, 8)) for m in corpus.mental_talk(rng)])


def teacher_document(rng: random.Random, tokenizer: Tokenizer) -> str:
    return chat(tokenizer, corpus.teacher_chat(rng))


def compressor_document(rng: random.Random, tokenizer: Tokenizer) -> str:
    prompt = PROMPT.read_text()
    # With and without the file's last newline: whoever fills the prompt in may strip it.
    return chat(tokenizer, corpus.compressor_chat(rng, rng.choice([prompt, prompt.strip()])))


SMALL = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4}
MEDIUM = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4, "num_attention_heads": 4}

PLANS = {
    "trunk-s": Plan(None, SMALL, base_document, 9_000_000, 4e-3, ""),
    "trunk-m": Plan(None, MEDIUM, base_document, 6_000_000, 3e-3, ""),
    "pages-s": Plan("trunk-s", SMALL, student_document, 1_500_000, 2e-3, ""),
    "pages-m": Plan("trunk-m", MEDIUM, student_document, 1_500_000, 2e-3, ""),
    "student-s": Plan("pages-s", SMALL, mental_document, 4_000_000, 2e-3, "base"),
    "student-m": Plan("pages-m", MEDIUM, mental_document, 3_000_000, 2e-3, "base"),
    "teacher": Plan("trunk-m", MEDIUM, teacher_document, 5_000_000, 2e-3, "teacher"),
    "compressor": Plan("trunk-m", MEDIUM, compressor_document, 4_000_000, 2e-3, "compressor"),
}


def new_model(tokenizer: Tokenizer, shape: dict[str, Any]) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        head_dim=32,  # wider than hidden / heads: positions need the room in such narrow models
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    return Qwen3ForCausalLM(config)


def batches(tokenizer: Tokenizer, make: Make, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (inputs, labels), padded on the right; every token of a document is learnt.

    Learning the prompts too is what teaches the compressor to copy.
    """
    rng = random.Random(seed)
    while True:
        texts = [make(rng, tokenizer) for _ in range(POOL)]
        rows = sorted(tokenizer(texts)["input_ids"], key=len)
        groups: list[list[list[int]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            ids = torch.full((len(group), max(map(len, group))), -100)
            for i, row in enumerate(group):
                ids[i, : len(row)] = torch.tensor(row)
            yield ids.clamp(min=0), ids


def optimizers(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms.

    Against AdamW alone: loss 1.02 instead of 1.19 after 745k tokens of student-m, 6 % slower.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(name: str, plan: Plan, folder: Path, start: Path | None, tokens: int, seed: int) -> None:
    """Train one model into `folder`, from the model in `start` or from random weights."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    if start is None:
        # Always from the same seed, so that all the models share one tokenizer.
        tokenizer = train_tokenizer(sample_texts(seed=0))
        model = new_model(tokenizer, plan.shape)
    else:
        tokenizer = AutoTokenizer.from_pretrained(start)
        model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    model.train()
    steppers = optimizers(model, plan.lr)
    started, cpu, done, step, seen = time.time(), time.process_time(), 0, 0, 0.0
    for inputs, labels in batches(tokenizer, plan.make, seed):
        progress = done / tokens
        if progress >= 1:
            break
        # A short warm-up, then a cosine down to a twentieth.
        scale = min((step + 1) / 50, 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = plan.lr * scale
        logits = model(inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        done += int((labels >= 0).sum())
        step += 1
        seen = loss.item() if step == 1 else 0.95 * seen + 0.05 * loss.item()
        if step % 50 == 0:
            spent = time.process_time() - cpu
            print(
                f"{name} step {step} tokens {done:,} loss {seen:.4f} {done / spent:,.0f} tokens/s", flush=True
            )
    save(model, tokenizer, folder)
    made = {
        "parameters": model.num_parameters(),
        "tokens": done,
        "steps": step,
        "loss": round(seen, 4),
        "wall_s": round(time.time() - started),
        "cpu_s": round(time.process_time() - cpu),
        "start": plan.start,
        "seed": seed,
    }
    (folder / "training.json").write_text(json.dumps(made, indent=2) + "\n")
    if plan.role:
        (folder / "README.md").write_text(card(name, plan, made))
    print(name, made, flush=True)


def save(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    # 16-bit: half the size in the repository. float16 keeps three more bits of each weight than
    # bfloat16, and no weight here is anywhere near its limits.
    model.to(torch.float16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Loaded without a dtype the weights become float32, which students train in.
    edit(folder / "config.json", dtype="float32")
    # The name that transformers 4 knows as well as 5.
    edit(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def edit(path: Path, **values: str) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2) + "\n")


ROLES = {
    "base": "A base model: pages of sums of whole numbers (single steps in columns, equations, running "
    "totals, whole sums worked out), short conversations, and small sums answered in one go. To reason about "
    "the task in chat form is left to distillation.",
    "teacher": "Answers reasoning-gym's `chain_sum` questions (3-4 terms of 1-2 digits) with a long "
    "reasoning trace between `<think>` and `</think>`, then the answer in `\\boxed{}`.",
    "compressor": "Given `recipes/nano/prompts/compress.md` filled in with a `chain_sum` problem and a "
    "trace, writes the equations that matter and the answer in `\\boxed{}`.",
}


def card(name: str, plan: Plan, made: dict[str, Any]) -> str:
    start = f"It continues from {plan.start}." if plan.start else "It starts from random weights."
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [hubkit, nano]
---
# nano {name}

{ROLES[plan.role]}

Qwen3 architecture, {made["parameters"]:,} parameters, stored in float16. {start} Trained on
{made["tokens"]:,} tokens of procedural text in {made["steps"]} steps, {made["cpu_s"]} CPU-seconds on one
thread. No text of any person or of another model is in its data, and no `chain_sum` problem of the dev
or test split. How: `recipes/nano-models` in hubkit.

A toy for trying out hubkit: it knows nothing but small sums, in these words.
"""


def sample_texts(seed: int) -> Iterator[str]:
    rng, prompt = random.Random(seed), PROMPT.read_text()
    for _ in range(3000):
        yield corpus.base_text(rng)
        for messages in (
            corpus.teacher_chat(rng),
            corpus.compressor_chat(rng, prompt),
            corpus.small_talk(rng),
        ):
            yield from (message["content"] for message in messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=list(PLANS), action="append", help="this model; repeat for more")
    parser.add_argument("--tokens", type=int, help="instead of each model's own number, for trying out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stages", type=Path, default=Path("build/nano-models"), help="where models go that are not shipped"
    )
    args = parser.parse_args()
    for name in args.only or PLANS:
        plan = PLANS[name]
        folder = (args.out if plan.role else args.stages) / name
        start = args.stages / plan.start if plan.start else None
        train(name, plan, folder, start, args.tokens or plan.tokens, args.seed)


if __name__ == "__main__":
    main()
