"""The embedded engine against transformers' own padded `generate`, side by side on one model and one machine.

    python benchmarks/engine_transformers.py [--model FOLDER] [--prompts 500] [--rounds 3] [--lengths own]

Both decode the same prompts greedily in float32. hubkit has one engine that may use all cores, and starts processes
for them. `generate` runs as transformers offers it, in one process, with one thread and with one per core. It also
runs in a process per core with a part of the prompts each, which transformers does not offer: that compares the
engines alone. `--cores 1` compares them on one core. Loading is not measured, nor is the first round, which ends
after hubkit's processes have started.

Batch sizes of both are tried, and the rounds go through all of them in turn, so that a busy machine slows all
alike. Answers are compared token by token.

The gain of continuous batching depends on how unequal the answers are, so there are three workloads:
- `own`: as the model ends them, up to --max-tokens;
- `equal`: all cut at 80 tokens, before any ends: only the cost of a step differs;
- `tailed`: each cut at its own limit, log-normal around 60 tokens: most are short and a few are long, as
  reasoning traces are. `generate` decodes a batch to the highest limit in it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import joblib

DEFAULT = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "teacher"


def workload(options: argparse.Namespace) -> list[Any]:
    """Requests of hubkit's, one per prompt."""
    import reasoning_gym

    from hubkit.engines import Request
    from hubkit.section import Sampling

    entries = reasoning_gym.create_dataset(
        "chain_sum", seed=5, size=options.prompts, min_terms=3, max_terms=4, min_digits=1, max_digits=2
    )
    drawn = random.Random(5)
    limits = {
        "own": [options.max_tokens] * len(entries),
        "equal": [80] * len(entries),
        "tailed": [min(options.max_tokens, 1 + int(drawn.lognormvariate(4.1, 0.8))) for _ in entries],
    }[options.lengths]
    return [
        Request(str(i), [{"role": "user", "content": entry["question"]}], Sampling(max_tokens=limit), i)
        for i, (entry, limit) in enumerate(zip(entries, limits, strict=True))
    ]


def work(pipe: Connection, options: argparse.Namespace, threads: int, part: int, parts: int) -> None:
    """Answer a part of the prompts as often as told ("hubkit" or "generate", batch size); send the token ids."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from hubkit.engines.transformers import TransformersEngine

    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    torch.set_num_threads(threads)
    requests = workload(options)[part::parts]
    engines: dict[int, TransformersEngine] = {}
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    end = set(torch.tensor([model.generation_config.eos_token_id]).flatten().tolist())

    def hubkit(size: int) -> Callable[[], dict[str, list[int]]]:
        if size not in engines:
            engines[size] = TransformersEngine(options.model, size, "cpu", threads).__enter__()

        async def collect() -> dict[str, list[int]]:
            return {response.key: response.token_ids async for response in engines[size].stream(requests)}

        return lambda: asyncio.run(collect())

    def generate(size: int) -> Callable[[], dict[str, list[int]]]:
        texts = {
            request.key: tokenizer.apply_chat_template(
                request.messages, add_generation_prompt=True, tokenize=False
            )
            for request in requests
        }
        # Prompts of like length together, which is the best that padding can be given beforehand.
        order = sorted(requests, key=lambda request: len(texts[request.key]))

        def answer() -> dict[str, list[int]]:
            found = {}
            for start in range(0, len(order), size):
                group = order[start : start + size]
                inputs = tokenizer(
                    [texts[request.key] for request in group],
                    padding=True,
                    return_tensors="pt",
                    add_special_tokens=False,
                )
                most = max(request.sampling.max_tokens for request in group)
                output = model.generate(**inputs, do_sample=False, max_new_tokens=most)
                for request, ids in zip(
                    group, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True
                ):
                    stop = next((place + 1 for place, token in enumerate(ids) if token in end), len(ids))
                    found[request.key] = ids[: min(stop, request.sampling.max_tokens)]
            return found

        return answer

    kinds = {"hubkit": hubkit, "generate": generate}
    while (told := pipe.recv()) is not None:
        answer = kinds[told[0]](told[1])
        pipe.send(None)
        pipe.recv()  # all are ready
        pipe.send(answer())
    for engine in engines.values():
        engine.__exit__(None, None, None)


def main() -> None:
    cores = joblib.cpu_count()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--lengths", choices=["own", "equal", "tailed"], default="own")
    parser.add_argument("--cores", type=int, default=cores, help="cores to use; all by default")
    parser.add_argument("--ours", type=int, nargs="*", default=[192, 256], help="slots of each process")
    parser.add_argument(
        "--theirs", type=int, nargs="*", default=[32, 48, 64, 96], help="batch sizes of generate"
    )
    options = parser.parse_args()

    started = []
    context = multiprocessing.get_context("spawn")

    def start(threads: int, part: int = 0, parts: int = 1) -> Connection:
        here, there = context.Pipe()
        started.append(context.Process(target=work, args=(there, options, threads, part, parts), daemon=True))
        started[-1].start()
        return here

    cores = options.cores
    threads = f"{cores} thread{'s' * (cores > 1)}"
    groups = {"hubkit": [start(cores)], f"generate, {threads}": [start(cores)]}
    if cores > 1:
        groups["generate, 1 thread"] = [start(1)]
        groups[f"generate, {cores} processes"] = [start(1, part, cores) for part in range(cores)]

    rates: dict[tuple[str, int], list[float]] = {}
    answers: dict[tuple[str, int], dict[str, list[int]]] = {}
    for number in range(options.rounds + 1):
        print(f"round {number}" if number else "to begin with, not measured")
        for name, pipes in groups.items():
            kind = name.partition(",")[0]
            for size in options.ours if kind == "hubkit" else options.theirs:
                for word in ((kind, size), "go"):
                    before = time.perf_counter()
                    for pipe in pipes:
                        pipe.send(word)
                    replies = [pipe.recv() for pipe in pipes]
                seconds = time.perf_counter() - before
                found = {key: ids for part in replies for key, ids in part.items()}
                rate = sum(map(len, found.values())) / seconds
                if number:
                    rates.setdefault((name, size), []).append(rate)
                answers[name, size] = found
                print(f"  {name}, batch {size:<10}{rate:>10.0f} tokens/s", flush=True)

    reference = answers[f"generate, {threads}", options.theirs[0]]
    print(f"\n{'median of ' + str(options.rounds):<38}{'tokens/s':>10}{'same answers':>14}")
    best: dict[str, float] = {}
    for (name, size), measured in rates.items():
        best[name] = max(statistics.median(measured), best.get(name, 0))
        same = sum(answers[name, size][key] == ids for key, ids in reference.items())
        print(f"{f'{name}, batch {size}':<38}{statistics.median(measured):>10.0f}{same:>9}/{len(reference)}")
    lengths = sorted(map(len, reference.values()))
    print(f"answers: {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
    for name, rate in best.items():
        if name != "hubkit":
            print(f"hubkit / {name}, each at its best: {best['hubkit'] / rate:.2f}")
    for group in groups.values():
        for pipe in group:
            pipe.send(None)


if __name__ == "__main__":
    main()
