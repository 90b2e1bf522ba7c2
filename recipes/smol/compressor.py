"""Teach the model to shorten traces: one pass over data/pairs.jsonl, all weights, no loss on what it is asked.

    python recipes/smol/compressor.py                ten minutes on one core with AMX

data/compressor/ is the model. HELD pairs are not learned from: their loss is printed at the end. No problem of a
student, of the dev and test splits, or of data/gsm8k.jsonl is among the pairs (prepare.py).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
SEED, HELD, BATCH = 0, 40, 8
LEARNED: Final = 200
"""Pairs; more are there, for who has more time."""
RATE: Final = 3e-4
"""A third of what SmolLM2-135M was instruction-tuned with: there are a hundred steps here."""
WARMUP: Final = 0.1


def chat(tokenizer: Any, prompt: str, pair: dict[str, str]) -> tuple[list[int], list[int]]:
    """Tokens of what is asked, and of the answer with its end."""
    asked = [{"role": "user", "content": prompt.replace("{reasoning}", pair["reasoning"])}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return tokenizer(text)["input_ids"], tokenizer(f"{pair['short']}{tokenizer.eos_token}")["input_ids"]


def loss_of(model: Any, asked: list[int], answer: list[int]) -> Any:
    """Summed cross-entropy of the answer's tokens."""
    import torch

    tokens = torch.tensor([asked + answer], device=model.device)
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(
        hidden[0, len(asked) - 1 :]
    )  # of the answer alone: the vocabulary is a fifth of the work
    return torch.nn.functional.cross_entropy(logits.float(), tokens[0, len(asked) :], reduction="sum")


def train(model: Any, chats: list[tuple[list[int], list[int]]]) -> None:
    """AdamW on float32 copies of bfloat16 weights, so that small updates are not rounded away.

    Examples go through one by one, which needs no padding and little memory, and BATCH of them make a step.
    """
    import torch

    steps = [chats[i : i + BATCH] for i in range(0, len(chats), BATCH)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    masters = [weight.detach().float().clone().requires_grad_() for weight in weights]
    optimizer = torch.optim.AdamW(masters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = max(1, round(WARMUP * len(steps)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(steps) - step) / (len(steps) - warmup + 1))
    )
    start, done = time.monotonic(), 0
    for step, batch in enumerate(steps):
        trained, total = sum(len(answer) for _, answer in batch), 0.0
        optimizer.zero_grad()
        for asked, answer in batch:
            loss = loss_of(model, asked, answer) / trained
            loss.backward()
            total += loss.item()
            for weight, master in zip(weights, masters, strict=True):
                master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
                weight.grad = None
            done += len(asked) + len(answer)
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for weight, master in zip(weights, masters, strict=True):
                weight.copy_(master)
        speed = done / (time.monotonic() - start)
        print(f"step {step + 1}/{len(steps)}: loss {total:.3f}, {speed:.0f} tokens/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE / "data")
    parser.add_argument("--pairs", type=int, default=LEARNED, help="how many to learn from")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    data: Path = arguments.data

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = data / "SmolLM2-135M-Instruct"
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).to(device)
    prompt = (HERE / "prompts" / "compress.md").read_text(encoding="utf-8").strip()  # as a recipe reads it
    pairs = [json.loads(line) for line in (data / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(SEED).shuffle(pairs)
    held, learned = pairs[:HELD], pairs[HELD:][: arguments.pairs]
    chats = [chat(tokenizer, prompt, pair) for pair in learned]
    print(f"{len(chats)} pairs, {sum(len(a) + len(b) for a, b in chats):,} tokens", flush=True)
    train(model, chats)
    model.eval()
    model.save_pretrained(data / "compressor")
    tokenizer.save_pretrained(data / "compressor")
    with torch.no_grad():
        chats = [chat(tokenizer, prompt, pair) for pair in held]
        losses = [loss_of(model, asked, answer).item() / len(answer) for asked, answer in chats]
        print(f"held out: loss {sum(losses) / len(losses):.3f}", flush=True)


if __name__ == "__main__":
    main()
