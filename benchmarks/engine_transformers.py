"""The embedded engine against transformers' own padded `generate`, side by side on one model and one machine.

    python benchmarks/engine_transformers.py [--model FOLDER] [--prompts 500] [--rounds 3] [--lengths own]

Both decode the same prompts greedily in float32. hubkit runs as a recipe runs it: a worker process per core,
each with one torch thread and its part of the prompts. `generate` runs as transformers offers it, in one process,
with one thread and with as many as there are cores; and in a process per core as well, which is more than it
offers: that comparison is the one of engine to engine. `--processes 1` compares them on one core.

Batch sizes of both are tried, and the rounds go through all of them in turn, so that a busy machine slows all
alike. Answers are compared token by token.

How unequal answers are decides what continuous batching is worth, so there are three workloads:
- `own`: as the model ends them, up to --max-tokens;
- `equal`: all cut at 80 tokens, before any ends: nothing to win but the cost of a step;
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

DEFAULT = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "teacher"


def workload(options: argparse.Namespace) -> list[Any]:
    """Requests of hubkit's, one per prompt."""
    import reasoning_gym

    from hubkit.config import Sampling
    from hubkit.engines import Request

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
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    end = set(torch.tensor([model.generation_config.eos_token_id]).flatten().tolist())

    def hubkit(size: int) -> Callable[[], dict[str, list[int]]]:
        engine = TransformersEngine(options.model, size, "cpu", threads).__enter__()

        async def collect() -> dict[str, list[int]]:
            return {response.key: response.token_ids async for response in engine.stream(requests)}

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
        before = time.process_time()
        found = answer()
        pipe.send((found, time.process_time() - before))


def main() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--lengths", choices=["own", "equal", "tailed"], default="own")
    parser.add_argument("--processes", type=int, default=cores, help="cores to use; all by default")
    parser.add_argument("--ours", type=int, nargs="*", default=[192, 256], help="slots of each worker")
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

    cores = options.processes
    each = f"{cores} processes" if cores > 1 else "1 process"
    groups = {each: [start(1, part, cores) for part in range(cores)]}
    arms = [("hubkit", each, options.ours), ("generate", each, options.theirs)]
    if cores > 1:
        groups |= {f"{threads} thread{'s' * (threads > 1)}": [start(threads)] for threads in (1, cores)}
        arms += [("generate", name, options.theirs) for name in list(groups)[1:]]

    rates: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    answers: dict[tuple[str, str, int], dict[str, list[int]]] = {}
    for number in range(options.rounds):
        print(f"round {number + 1}")
        for kind, name, sizes in arms:
            for size in sizes:
                pipes = groups[name]
                for word in ((kind, size), "go"):
                    wall = time.perf_counter()
                    for pipe in pipes:
                        pipe.send(word)
                    replies = [pipe.recv() for pipe in pipes]
                wall = time.perf_counter() - wall
                found = {key: ids for part, _ in replies for key, ids in part.items()}
                tokens, cpu = sum(map(len, found.values())), sum(seconds for _, seconds in replies)
                rates.setdefault((kind, name, size), []).append((tokens / wall, tokens / cpu))
                answers[kind, name, size] = found
                print(f"  {kind}, {name}, batch {size:<10}{tokens / wall:>10.0f} tokens/s", flush=True)

    reference = answers["generate", each, options.theirs[0]]
    print(f"\n{'median of ' + str(options.rounds):<38}{'tokens/s':>10}{'per CPU-s':>11}{'same answers':>14}")
    best: dict[tuple[str, str], float] = {}
    for (kind, name, size), measured in rates.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
        best[kind, name] = max(wall, best.get((kind, name), 0))
        same = sum(answers[kind, name, size][key] == ids for key, ids in reference.items())
        print(f"{f'{kind}, {name}, batch {size}':<38}{wall:>10.0f}{cpu:>11.0f}{same:>9}/{len(reference)}")
    lengths = sorted(map(len, reference.values()))
    print(f"answers: {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")
    for (kind, name), rate in best.items():
        if kind == "generate":
            print(f"hubkit in {each} / generate, {name}, each at its best: {best['hubkit', each] / rate:.2f}")
    for group in groups.values():
        for pipe in group:
            pipe.send(None)


if __name__ == "__main__":
    main()
