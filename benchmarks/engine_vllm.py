"""hubkit's vLLM engine, its journal on, against vLLM's own offline `LLM.chat`, and against AsyncLLM in process.

    VLLM_CPU_KVCACHE_SPACE=1 python benchmarks/engine_vllm.py [--model FOLDER] [--prompts 1000] [--rounds 3]

All three hold the same model at the same time, with the same arguments, and take turns in every round, so that a
busy machine slows all alike; the first round warms up and does not count. Greedy decoding of prompts of some
30 tokens. Lengths are set by max_tokens, for the model is given an end token that it never writes: 128 each, or
long-tailed (log-normal, 16 to 800, half below 64). Every round of hubkit's begins with an empty journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
DEFAULT = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "teacher"


def endless(model: Path, folder: Path) -> Path:
    """A copy of the model that ends at max_tokens alone."""
    copy = Path(shutil.copytree(model, folder / "model"))
    for name, key, value in (
        ("config.json", "eos_token_id", 0),
        ("generation_config.json", "eos_token_id", 0),
        ("tokenizer_config.json", "eos_token", "<|pad|>"),
    ):
        content = json.loads((copy / name).read_text()) | {key: value}
        (copy / name).write_text(json.dumps(content))
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=256, help="sequences at once, for all three")
    options = parser.parse_args()

    from vllm import LLM, AsyncEngineArgs, SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    from hubkit.config import EngineRuntime, Sampling
    from hubkit.engines import Request, open_engine
    from hubkit.store import StepContext
    from hubkit.traces.journal import Journal, Key, answer

    chance = random.Random(1)
    tail = [
        min(800, max(16, round(math.exp(chance.gauss(math.log(64), 1.1))))) for _ in range(options.prompts)
    ]
    lengths = {"equal": [128] * options.prompts, "long-tailed": tail}
    messages = [
        [{"role": "user", "content": f"State the final answer: {chance.randrange(99)} + {i} - 12 ="}]
        for i in range(options.prompts)
    ]
    arguments: dict[str, Any] = {
        "max_model_len": 1024,
        "max_num_seqs": options.window,
        "max_num_batched_tokens": 4096,
        "dtype": "float32",
        "enforce_eager": True,
    }

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = endless(options.model, folder)
        runtime = EngineRuntime(engine="vllm", vllm=arguments, window=options.window)

        def offline(kind: str) -> int:
            sampling = [SamplingParams(max_tokens=n, temperature=0.0) for n in lengths[kind]]
            return sum(len(o.outputs[0].token_ids) for o in llm.chat(messages, sampling, use_tqdm=False))

        def ours(kind: str) -> int:
            work = Path(tempfile.mkdtemp(dir=folder))
            context = StepContext("traces", {}, {"engine": runtime.model_dump()}, {}, {}, work, work)
            requests = [
                (key := Key(str(i), 0), Request(key.text, messages[i], Sampling(max_tokens=n), i))
                for i, n in enumerate(lengths[kind])
            ]
            tokens = 0

            def count(response: Any) -> None:
                nonlocal tokens
                assert response.finish_reason == "length", response
                tokens += response.completion_tokens

            with Journal(work / "journal.sqlite", "benchmark") as journal:
                answer(context, engine, journal, requests, len(requests), on_response=count)
            return tokens

        def in_process(kind: str) -> int:
            async def run() -> int:
                limit = asyncio.Semaphore(options.window)

                async def one(i: int) -> int:
                    sampling = SamplingParams(
                        max_tokens=lengths[kind][i], temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY
                    )
                    async with limit:
                        prompt = tokenizer.apply_chat_template(
                            messages[i], add_generation_prompt=True, tokenize=False
                        )
                        async for output in asynchronous.generate(
                            prompt, sampling, f"{kind}-{i}-{time.time()}"
                        ):
                            found = len(output.outputs[0].token_ids)
                        return found

                return sum(await asyncio.gather(*(one(i) for i in range(options.prompts))))

            return loop.run_until_complete(run())

        arms: dict[str, Callable[[str], int]] = {
            "LLM.chat": offline,
            "hubkit, journal on": ours,
            "AsyncLLM in process": in_process,
        }
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with open_engine(model, runtime) as engine:
            llm = LLM(model=str(model), generation_config="vllm", **arguments)
            tokenizer: Any = llm.get_tokenizer()

            async def start() -> AsyncLLM:
                return AsyncLLM.from_engine_args(
                    AsyncEngineArgs(model=str(model), generation_config="vllm", **arguments)
                )

            asynchronous = loop.run_until_complete(start())
            rates: dict[tuple[str, str], list[float]] = {}
            for number in range(options.rounds + 1):
                for kind in lengths:
                    for name, run in arms.items():
                        started = time.perf_counter()
                        tokens = run(kind)
                        rate = tokens / (time.perf_counter() - started)
                        assert tokens == sum(lengths[kind])
                        print(f"round {number} {kind:<12} {name:<20} {rate:>8.0f} tokens/s", flush=True)
                        if number:
                            rates.setdefault((kind, name), []).append(rate)
            asynchronous.shutdown()
    print(f"\nmedians of {options.rounds} rounds, {options.prompts} prompts, window {options.window}")
    for kind in lengths:
        base = statistics.median(rates[kind, "LLM.chat"])
        for name in arms:
            rate = statistics.median(rates[kind, name])
            ratios = [a / b for a, b in zip(rates[kind, name], rates[kind, "LLM.chat"], strict=True)]
            print(
                f"{kind:<12} {name:<20} {rate:>8.0f} tokens/s {rate / base:>6.2f} of LLM.chat "
                f"(by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
            )


if __name__ == "__main__":
    main()
