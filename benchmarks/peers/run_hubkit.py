"""hubkit: its openai engine as the vllm engine uses it, and the journal. engine_peers.py says what is handed in."""

import json
import sys
import time
from pathlib import Path

from hubkit.config import Sampling
from hubkit.engines import Request, Response
from hubkit.engines.openai import OpenAIEngine
from hubkit.runtime import EngineRuntime
from hubkit.store import StepContext
from hubkit.traces.journal import Journal, Key, answer, request_seed

address, in_flight, prompts, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
rows = [json.loads(line) for line in prompts.read_text().splitlines()]
tokens = 0


def requests():
    for row in rows:
        key = Key(row["id"], 0)
        messages = [{"role": "user", "content": row["prompt"]}]
        yield (
            key,
            Request(key.text, messages, Sampling(max_tokens=row["max_tokens"]), request_seed(0, key)),
        )


def count(response: Response) -> None:
    global tokens
    tokens += response.completion_tokens


started = time.perf_counter()
runtime = EngineRuntime(engine="openai", endpoint=address, window=in_flight)
context = StepContext("traces", {}, {"engine": runtime.model_dump()}, {}, {}, folder, folder)
with (
    Journal(folder / "journal.sqlite", "benchmark") as journal,
    OpenAIEngine(runtime, "model", extra={"return_token_ids": True}) as engine,
):
    answer(context, engine, journal, requests(), len(rows), on_response=count)
print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - started}))
