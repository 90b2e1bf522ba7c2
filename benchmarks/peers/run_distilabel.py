"""distilabel's pipeline, its cache on. engine_peers.py says what is handed in."""

import json
import sys
import time
from pathlib import Path

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

address, in_flight, prompts, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
rows = [json.loads(line) for line in prompts.read_text().splitlines()]
LENGTHS = {row["prompt"]: row["max_tokens"] for row in rows}


class LLM(OpenAILLM):
    async def _generate_chat_completion(self, input, **arguments):  # it has one length for all prompts
        arguments["max_new_tokens"] = LENGTHS[input[-1]["content"]]
        return await super()._generate_chat_completion(input, **arguments)


if __name__ == "__main__":
    started = time.perf_counter()
    with Pipeline(cache_dir=folder / "cache") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": row["prompt"]} for row in rows], batch_size=in_flight)
        generate = TextGeneration(
            llm=LLM(
                model="model",
                base_url=address,
                api_key="none",
                timeout=600,
                generation_kwargs={"temperature": 0.0},
            ),
            input_batch_size=in_flight,
        )
        load >> generate
    result = pipeline.run()
    seconds = time.perf_counter() - started
    tokens = 0
    for row in result["default"]["train"]:
        (statistics,) = [v for k, v in row["distilabel_metadata"].items() if k.startswith("statistics")]
        counted = statistics["output_tokens"]
        tokens += sum(counted) if isinstance(counted, list) else counted
    print(json.dumps({"tokens": tokens, "seconds": seconds}))
