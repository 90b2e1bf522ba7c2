"""bespokelabs-curator, its response files on. engine_peers.py says what is handed in."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"CURATOR_DISABLE_RICH_DISPLAY": "1", "CURATOR_VIEWER": "0", "TELEMETRY_ENABLED": "false"}
# It counts a prompt's tokens with a vocabulary that it downloads; litellm, which it needs, brings a copy.
litellm = Path(importlib.util.find_spec("litellm").origin).parent
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(litellm / "litellm_core_utils" / "tokenizers"))

from bespokelabs import curator  # noqa: E402

address, in_flight, prompts, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
rows = [json.loads(line) for line in prompts.read_text().splitlines()]


class Asker(curator.LLM):
    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"id": row["id"], "response": response}


started = time.perf_counter()
asker = Asker(
    model_name="model",
    backend="openai",
    generation_params={"temperature": 0.0},
    backend_params={
        "base_url": address,
        "api_key": "none",
        "max_concurrent_requests": in_flight,
        # Without these it would hold back, as from a hosted API.
        "max_requests_per_minute": 10**6,
        "max_tokens_per_minute": 10**10,
        # By default an answer that reached its length is thrown away and asked for again.
        "invalid_finish_reasons": ["content_filter"],
    },
)
response = asker(
    [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "generation_params": json.dumps({"max_tokens": row["max_tokens"]}),
        }
        for row in rows
    ],
    working_dir=str(folder),
)
seconds = time.perf_counter() - started
print(json.dumps({"tokens": response.token_usage.output, "seconds": seconds}))
