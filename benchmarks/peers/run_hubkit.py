"""hubkit: its openai engine as the vllm engine uses it, and the journal. engine_peers.py says what is handed in."""

import json
import sys
import time
from pathlib import Path

from hubkit.engines import Engine, Request, Response
from hubkit.engines.openai import OpenAIEngine
from hubkit.engines.settings import EngineRuntime
from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.traces.journal import Journal, Key, answer, request_seed


def measure(engine: Engine, runtime: EngineRuntime, prompts: Path, folder: Path) -> dict[str, float]:
    """Tokens of all answers, and seconds with the journal opened and closed."""
    started = time.perf_counter()
    rows = [json.loads(line) for line in prompts.read_text().splitlines()]
    requests = []
    for row in rows:
        key = Key(row["id"], 0)
        messages = [{"role": "user", "content": row["prompt"]}]
        sampling = Sampling(max_tokens=row["max_tokens"])
        requests.append((key, Request(key.text, messages, sampling, request_seed(0, key))))
    tokens = 0

    def count(response: Response) -> None:
        nonlocal tokens
        tokens += response.completion_tokens

    context = StepContext("traces", {}, {"engine": runtime.model_dump()}, {}, {}, folder, folder)
    with Journal(folder / "journal.sqlite", "benchmark") as journal:
        answer(context, engine, journal, requests, len(rows), on_response=count)
    return {"tokens": tokens, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    address, in_flight, prompts, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    runtime = EngineRuntime(engine="openai", endpoint=address, window=in_flight)
    with OpenAIEngine(runtime, "model", extra={"return_token_ids": True}) as engine:
        print(json.dumps(measure(engine, runtime, prompts, folder)))
