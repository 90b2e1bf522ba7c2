"""Token counting and truncation against the tokenizer's own batch speed.

    python benchmarks/tokens.py [--model FOLDER] [--traces 100000] [--rounds 3]

Traces are those that the nano teacher was trained on; budgets are 15 to 30 % of each trace's tokens, like the lengths
of compressed traces. Raw speed is the fastest that the tokenizers library offers (`encode_batch_fast`, lengths only) on
the same traces in the same batches. Rounds go through all three in turn, so that a busy machine slows all alike; ratios
are those of the medians of CPU seconds (one thread each). Truncation is measured as in the step: budgets in, cut texts
and their token counts out. The cuts with exactly the budget are counted, too.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes" / "nano-models"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "recipes" / "nano" / "models" / "student-s")
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    import corpus

    from hubkit.traces.cut import cut_batch
    from hubkit.traces.lengths import count_tokens, load_tokenizer, plain_backend
    from hubkit.traces.variants.controls import BATCH

    rng = random.Random(0)
    different = [corpus.reasoning(rng, corpus.draw_sum(rng)) for _ in range(min(options.traces, 20_000))]
    texts = [different[i % len(different)] for i in range(options.traces)]
    tokenizer = load_tokenizer(options.model)
    backend = plain_backend(tokenizer)
    lengths = count_tokens(options.model, texts)
    budgets = [max(1, int(rng.uniform(0.15, 0.30) * length)) for length in lengths]

    def raw() -> list[int]:
        counts = []
        for start in range(0, len(texts), 1000):
            encodings = backend.encode_batch_fast(texts[start : start + 1000], add_special_tokens=False)
            counts += [len(encoding) for encoding in encodings]
        return counts

    def count() -> list[int]:
        return count_tokens(options.model, texts)

    def truncate() -> list[int]:
        found = []
        for start in range(0, len(texts), BATCH):
            part = slice(start, start + BATCH)
            found += [tokens for _, tokens in cut_batch(tokenizer, texts[part], budgets[part], lengths[part])]
        return found

    sides: dict[str, Callable[[], list[int]]] = {
        "tokenizer, raw batches": raw,
        "count_tokens": count,
        "truncation": truncate,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Any] = {}
    for _ in range(options.rounds):
        for name, side in sides.items():
            start = time.process_time()
            results[name] = side()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    base = medians["tokenizer, raw batches"]
    print(f"{len(texts)} traces, {sum(lengths)} tokens, median of {options.rounds} rounds")
    for name, median in medians.items():
        print(f"{name:<24}{len(texts) / median:>10.0f} traces/CPU-s {base / median:>8.2f} of raw batch speed")
    exact = sum(a == b for a, b in zip(results["truncation"], budgets, strict=True))
    assert results["count_tokens"] == lengths
    print(f"cuts of exactly the budget: {exact} of {len(texts)}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
