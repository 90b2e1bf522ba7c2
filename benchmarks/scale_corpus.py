"""The corpus of benchmarks/scale.py, the endpoint that gives it, and the recipe that asks there.

A trace's reasoning is sentences drawn by the problem's number; a compression is the beginning of a trace, so that it
has no numbers that the trace does not have. `python benchmarks/scale_corpus.py` is the endpoint.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent.parent))

CHARACTERS = int(os.environ.get("SCALE_CHARACTERS", "15000"))
"""Of a trace's reasoning, in the middle. The test takes fewer."""
ANSWER: Final = 100_000
"""Characters of each answer of an evaluation: 24,000 tokens of a text with four characters a token."""
TEXT: Final = """so we need the sum of these two terms and then check whether it is an integer which means that the
sequence converges because each factor divides the product wait let me recompute this carefully consider the case where
both sides are positive by symmetry it follows hence substituting back gives another equation for the angle therefore
the total number of ways equals the remainder modulo a prime actually maybe there is a simpler approach"""
WORDS: Final = TEXT.split()
FORMS: Final = ("{a} + {b} = {c}", "${a} \\times {b}$", "x^2 - {b}x + {a}", "\\frac{{{a}}}{{{b}}}", "{a}")
TEMPLATE: Final = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sentences() -> list[str]:
    """Sentences that traces are put together from, with numbers and formulas among the words."""
    chance = random.Random(0)
    made = []
    for _ in range(4000):
        words = chance.choices(WORDS, k=chance.randint(6, 18))
        for _ in range(chance.randint(0, 3)):
            a, b = chance.randint(2, 999), chance.randint(2, 99)
            words.insert(chance.randrange(len(words)), chance.choice(FORMS).format(a=a, b=b, c=a + b))
        made.append(" ".join(words).capitalize() + chance.choice([". ", ".\n", ".\n\n", ", so "]))
    return made


def key_of(number: int) -> str:
    return str((number * 7919) % 1000)


def reply(prompt: str, lines: list[str], seed: int = 0) -> tuple[str, str, int]:
    """(text, finish reason, completion tokens) of an answer to a problem, or of a compression of one's trace.

    A compression is a beginning of the trace, so it has no numbers that the trace does not have.
    """
    if found := re.search(r"Test (\d+):", prompt):
        chance = random.Random(prompt)
        body = "".join(chance.choices(lines, k=ANSWER // 78))
        wrong = chance.random() < 0.5
        answer = int(key_of(int(found[1]))) + wrong
        return f"<think>\n{body}\n</think>\n\nThe answer is \\boxed{{{answer}}}.", "stop", len(body) // 4
    found = re.search(r"Problem (\d+):", prompt)
    number = int(found[1]) if found else 0
    short = "Shorten" in prompt[:100]
    chance = random.Random(f"{number} {short} {seed}")
    middle, spread = (CHARACTERS / 10, 0.5) if short else (CHARACTERS, 0.9)
    characters = int(chance.lognormvariate(math.log(middle), spread))
    count = max(1, min(characters, 10 * CHARACTERS) // 78)
    body = "".join(chance.choices(lines, k=count))
    right = key_of(number) if chance.random() > 1 / 12 else str(int(key_of(number)) + 1)
    if short:
        body = prompt.partition("?\n\n")[2][: len(body)].rpartition(" ")[0]
        return f"{body}\n\\boxed{{{right}}}", "stop", len(body) // 3
    if chance.random() < 0.02:
        return f"<think>\nProblem {number}: {body}", "length", len(body) // 3
    solution = "".join(chance.choices(lines, k=12)) + f"The answer is \\boxed{{{right}}}."
    return f"<think>\nProblem {number}: {body}\n</think>\n\n{solution}", "stop", len(body) // 3


def serve() -> None:
    """Answer chat completions until this process is ended, or its parent has; prints the address first."""
    from aiohttp import web

    from hubkit.processes import end_with_parent

    end_with_parent()
    lines = sentences()

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        text, reason, tokens = reply(body["messages"][-1]["content"], lines, body.get("seed", 0))
        choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 100, "completion_tokens": tokens}
        return web.json_response({"choices": [choice], "usage": usage})

    async def main() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def endpoint() -> Iterator[str]:
    command = [sys.executable, __file__]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def copy_tokenizer(tokenizer: Path, folder: Path) -> str:
    """Make a folder that has a tokenizer and a chat template, and stands where a model would; returns its name."""
    folder.mkdir(exist_ok=True)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
    ):
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    if not (folder / "chat_template.jinja").exists():
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return f"./{folder.name}"


def write_recipe(
    folder: Path, address: str, traces: int, tokenizer: Path, shards: int, workers: int, tests: int = 0
) -> Path:
    """A recipe with the paper's steps for this many traces of one teacher, and a benchmark of so many problems."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "problems.jsonl").open("w") as file:
        for number in range(math.ceil(traces / 3)):
            text = f"Problem {number}: {' '.join(random.Random(number).choices(WORDS, k=40))}?"
            file.write(json.dumps({"id": f"p-{number}", "problem": text, "answer": key_of(number)}) + "\n")
    with (folder / "test.jsonl").open("w") as file:
        for number in range(tests):
            text = f"Test {number}: {' '.join(random.Random(-number).choices(WORDS, k=40))}?"
            file.write(json.dumps({"id": f"t-{number}", "problem": text, "answer": key_of(number)}) + "\n")
        if not tests:
            file.write(json.dumps({"id": "t", "problem": "What is 1 + 1?", "answer": "2"}) + "\n")
    (folder / "shorten.md").write_text(
        "Shorten this reasoning, and box the answer.\n\n{problem}\n\n{reasoning}\n"
    )
    source = {"source": "file", "verifier": "math"}
    decoding = {"max_tokens": 24576, "temperature": 0.6}
    model = copy_tokenizer(tokenizer, folder / "model")
    recipe = {
        "name": "scale",
        "version": 1,
        "description": "Text steps at size.",
        "license": "apache-2.0",
        "language": ["en"],
        "seed": 0,
        "problems": {"train": {**source, "path": "problems.jsonl"}, "test": {**source, "path": "test.jsonl"}},
        "teachers": [{"name": "t", "model": model, "samples": 3, "sampling": decoding, "shards": shards}],
        "compressors": [
            {
                "name": "c",
                "model": model,
                "prompt": "shorten.md",
                "sampling": {"max_tokens": 6144, "temperature": 0.0},
                "attempts": 2,
                "shards": shards,
            }
        ],
        "students": {
            "bases": [{"name": "s", "model": model}],
            "variants": ["raw", "compressed-c", "truncated-c"],
            "methods": {"full": {"sft": {"learning_rate": 1e-5, "num_train_epochs": 1, "max_length": 32768}}},
            "seeds": [0],
        },
        "benchmarks": [{"name": "test", "problems": "test", "sampling": decoding}],
        "hub": {"endpoint": "local", "namespace": "local"},
        "run": {
            "device": "cpu",
            "workers": workers,
            "engines": {"default": {"engine": "openai", "endpoint": address, "window": 64}},
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder / "recipe.yaml"


if __name__ == "__main__":
    serve()
