"""The embedded engine against transformers' own padded `generate`, side by side on one model.

    python benchmarks/engine_transformers.py [--model FOLDER] [--prompts 384] [--rounds 3] [--lengths own]

Both decode the same prompts greedily in float32 on one thread; batch sizes of both are tried, and the
rounds go through all of them in turn, so that a busy machine slows all alike. CPU seconds are what
counts there. Answers are compared token by token.

How unequal answers are decides what continuous batching is worth, so there are three workloads:
- `own`: as the model ends them, up to --max-tokens;
- `equal`: all cut at 80 tokens, before any ends: nothing to win but the cost of a step;
- `tailed`: each cut at its own limit, log-normal around 60 tokens: most are short and a few are long, as
  reasoning traces are. `generate` decodes a batch to the highest limit in it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
DEFAULT = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "teacher"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--prompts", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--lengths", choices=["own", "equal", "tailed"], default="own")
    parser.add_argument("--ours", type=int, nargs="*", default=[192, 256, 384], help="slots of the engine")
    parser.add_argument("--theirs", type=int, nargs="*", default=[32, 64, 96], help="batch sizes of generate")
    options = parser.parse_args()

    import reasoning_gym
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hubkit.config import Sampling
    from hubkit.engines import Request
    from hubkit.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    entries = reasoning_gym.create_dataset(
        "chain_sum", seed=5, size=options.prompts, min_terms=3, max_terms=4, min_digits=1, max_digits=2
    )
    drawn = random.Random(5)
    limits = {
        "own": [options.max_tokens] * len(entries),
        "equal": [80] * len(entries),
        "tailed": [min(options.max_tokens, 1 + int(drawn.lognormvariate(4.1, 0.8))) for _ in entries],
    }[options.lengths]
    requests = [
        Request(str(i), [{"role": "user", "content": entry["question"]}], Sampling(max_tokens=limit), i)
        for i, (entry, limit) in enumerate(zip(entries, limits, strict=True))
    ]
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    texts = [
        tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        for request in requests
    ]
    end = set(torch.tensor([model.generation_config.eos_token_id]).flatten().tolist())

    def ours(engine: TransformersEngine) -> list[list[int]]:
        async def collect() -> dict[str, list[int]]:
            return {response.key: response.token_ids async for response in engine.stream(requests)}

        found = asyncio.run(collect())
        return [found[request.key] for request in requests]

    def theirs(size: int) -> list[list[int]]:
        # Prompts of like length together, which is the best that padding can be given beforehand.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), size):
            group = order[start : start + size]
            inputs = tokenizer(
                [texts[i] for i in group], padding=True, return_tensors="pt", add_special_tokens=False
            )
            most = max(limits[i] for i in group)
            output = model.generate(**inputs, do_sample=False, max_new_tokens=most)
            for i, ids in zip(group, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                stop = next((place + 1 for place, token in enumerate(ids) if token in end), len(ids))
                found[i] = ids[: min(stop, limits[i])]
        return [found[i] for i in range(len(texts))]

    runs: dict[str, list[tuple[float, float]]] = {}
    answers: dict[str, list[list[int]]] = {}

    def measure(name: str, function: Any, argument: Any) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        answers[name] = function(argument)
        tokens = sum(map(len, answers[name]))
        rates = (tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu))
        runs.setdefault(name, []).append(rates)
        print(f"  {name:<24}{rates[0]:>10.0f} tokens/s {rates[1]:>10.0f} tokens/CPU-s", flush=True)

    for number in range(options.rounds):
        print(f"round {number + 1}")
        for size in options.ours:
            with TransformersEngine(options.model, size, "cpu", 1) as engine:
                measure(f"hubkit, {size} slots", ours, engine)
        for size in options.theirs:
            measure(f"generate, batch {size}", theirs, size)

    reference = answers[f"generate, batch {options.theirs[0]}"]
    print(
        f"\n{'median of ' + str(options.rounds):<26}{'tokens/s':>12}{'tokens/CPU-s':>14}{'same answers':>14}"
    )
    medians: dict[str, float] = {}
    for name, rates in runs.items():
        wall, cpu = (statistics.median(column) for column in zip(*rates, strict=True))
        medians[name] = cpu
        same = sum(a == b for a, b in zip(answers[name], reference, strict=True))
        print(f"{name:<26}{wall:>12.0f}{cpu:>14.0f}{same:>9}/{len(reference)}")
    best = {
        side: max(v for name, v in medians.items() if name.startswith(side))
        for side in ("hubkit", "generate")
    }
    lengths = sorted(map(len, reference))
    print(f"answers: {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
    print(f"hubkit / generate, each at its best: {best['hubkit'] / best['generate']:.2f} per CPU second")


if __name__ == "__main__":
    main()
