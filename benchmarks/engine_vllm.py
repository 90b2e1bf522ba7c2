"""hubkit's vLLM engine, its journal on, against vLLM's own offline `LLM.chat`: in process and with vLLM's API server.

    VLLM_CPU_KVCACHE_SPACE=1 python benchmarks/engine_vllm.py [--model FOLDER] [--prompts 1000] [--rounds 3] \
        [--window 256]

All three load the same model at the same time, with the same arguments, and take turns in every round, in an order
that rotates, so that a busy machine slows all alike; the first round is a warm-up and does not count.
Processes that are not measured are stopped (SIGSTOP), because idle ones would still wake up often.
Greedy decoding of prompts of some 30 tokens. max_tokens sets the lengths, since the model is given an end token
that it never writes: 128 each, or long-tailed (log-normal, 16 to 800, half below 64). Every run of hubkit
begins with an empty journal.

The model is a Qwen3 of 4.9 million random parameters with the nano recipe's tokenizer, large enough to take
most of the time. With `--model recipes/nano/models/teacher` (0.6 million) mostly the code around the model is
measured: the worst case for any harness.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
NANO = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "teacher"
KINDS = ("equal", "long-tailed")
ARGUMENTS: dict[str, Any] = {
    "max_model_len": 1024,
    "max_num_batched_tokens": 4096,
    "dtype": "float32",
    "enforce_eager": True,
}


def model_of(given: Path | None, folder: Path) -> Path:
    """A copy of the given model, or one of random weights, that ends at max_tokens alone."""
    copy = Path(shutil.copytree(given or NANO, folder / "model"))
    for name, key, value in (
        ("config.json", "eos_token_id", 0),
        ("generation_config.json", "eos_token_id", 0),
        ("tokenizer_config.json", "eos_token", "<|pad|>"),
    ):
        content = json.loads((copy / name).read_text()) | {key: value}
        (copy / name).write_text(json.dumps(content))
    if given is None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(
            copy,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            layer_types=["full_attention"] * 6,
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(copy)
    return copy


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child} | descendants(child)
    return found


def send(number: int, pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def lengths_of(kind: str, prompts: int) -> list[int]:
    if kind == "equal":
        return [128] * prompts
    chance = random.Random(1)
    return [min(800, max(16, round(math.exp(chance.gauss(math.log(64), 1.1))))) for _ in range(prompts)]


def prompts_of(prompts: int) -> list[str]:
    chance = random.Random(2)
    return [f"State the final answer: {chance.randrange(99)} + {i} - 12 =" for i in range(prompts)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=256, help="sequences at once, for all three")
    options = parser.parse_args()

    from vllm import LLM, SamplingParams

    from hubkit.engines import Engine, Request, open_engine
    from hubkit.engines.settings import EngineRuntime
    from hubkit.section import Sampling
    from hubkit.store import StepContext
    from hubkit.traces.journal import Journal, Key, answer

    lengths = {kind: lengths_of(kind, options.prompts) for kind in KINDS}
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts_of(options.prompts)]

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = model_of(options.model, folder)
        direct = EngineRuntime(engine="vllm", vllm=ARGUMENTS, window=options.window)
        server = direct.model_copy(update={"in_process": False})

        def offline(kind: str) -> int:
            sampling = [SamplingParams(max_tokens=n, temperature=0.0) for n in lengths[kind]]
            return sum(len(o.outputs[0].token_ids) for o in llm.chat(messages, sampling, use_tqdm=False))

        def ours(kind: str, engine: Engine) -> int:
            work = Path(tempfile.mkdtemp(dir=folder))
            context = StepContext("traces", {}, {"engine": direct.model_dump()}, {}, {}, work, work)
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

        processes: list[set[int]] = []
        """Of each arm."""
        stack = ExitStack()

        def started() -> None:
            own = descendants(os.getpid()).difference(*processes)
            processes.append(own)
            stack.callback(send, signal.SIGCONT, own)  # else they could not end
            send(signal.SIGSTOP, own)

        with stack:
            llm = LLM(model=str(model), generation_config="vllm", max_num_seqs=options.window, **ARGUMENTS)
            started()
            in_process = stack.enter_context(open_engine(model, direct))
            started()
            behind_server = stack.enter_context(open_engine(model, server))
            started()
            arms: dict[str, Callable[[str], int]] = {
                "LLM.chat": offline,
                "hubkit in process": lambda kind: ours(kind, in_process),
                "hubkit with server": lambda kind: ours(kind, behind_server),
            }
            rates: dict[tuple[str, str], list[float]] = {}
            for number in range(options.rounds + 1):
                for kind in KINDS:
                    names = list(arms)
                    for name in names[number % 3 :] + names[: number % 3]:
                        own = processes[list(arms).index(name)]
                        send(signal.SIGCONT, own)
                        begun = time.perf_counter()
                        tokens = arms[name](kind)
                        rate = tokens / (time.perf_counter() - begun)
                        send(signal.SIGSTOP, own)
                        assert tokens == sum(lengths[kind])
                        load = os.getloadavg()[0]
                        print(
                            f"round {number} {kind:<12} {name:<20} {rate:>8.0f} tokens/s (load {load:.1f})",
                            flush=True,
                        )
                        if number:
                            rates.setdefault((kind, name), []).append(rate)
    print(f"\nmedians of {options.rounds} rounds, {options.prompts} prompts, window {options.window}")
    for kind in KINDS:
        for name in arms:
            rate = statistics.median(rates[kind, name])
            ratios = [a / b for a, b in zip(rates[kind, name], rates[kind, "LLM.chat"], strict=True)]
            print(
                f"{kind:<12} {name:<20} {rate:>8.0f} tokens/s, {statistics.median(ratios):.2f} of LLM.chat "
                f"(by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
            )


if __name__ == "__main__":
    main()
