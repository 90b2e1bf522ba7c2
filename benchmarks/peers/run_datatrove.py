"""datatrove's inference runner, its checkpoints and request cache on. engine_peers.py says what is handed in."""

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter

address, in_flight, prompts, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
rows = [json.loads(line) for line in prompts.read_text().splitlines()]
documents = [
    Document(text=row["prompt"], id=row["id"], metadata={"max_tokens": row["max_tokens"]}) for row in rows
]
tokens = 0


async def rollout(document, generate):
    global tokens
    result = await generate(
        {
            "messages": [{"role": "user", "content": document.text}],
            "max_tokens": document.metadata["max_tokens"],
        }
    )
    tokens += result.usage["completion_tokens"]
    return result


started = time.perf_counter()
InferenceRunner(
    rollout,
    InferenceConfig(
        server_type="endpoint",
        model_name_or_path="model",
        endpoint_url=address.removesuffix("/v1"),
        default_generation_params={"temperature": 0.0},
        max_concurrent_generations=in_flight,
    ),
    output_writer=JsonlWriter(str(folder / "out"), output_filename="${rank}_chunk_${chunk_index}.jsonl"),
    checkpoints_local_dir=str(folder / "checkpoints"),
    records_per_chunk=500,
).run(documents)
print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - started}))
