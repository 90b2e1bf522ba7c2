"""What the recipe asks of cards of 24, 48 and 80 GB, by arithmetic; of these cards, training was measured on an H100.

    python recipes/one-gpu/budget.py        Markdown; needs no GPU and no download

Memory of training is what hubkit reckons before it trains (hubkit/students/memory.py). Generation reads the weights
and the keys and values of all sequences, once for each token of each; training takes 6 products a parameter and
token, or 4 where only an adapter learns. Generation is assumed to reach UTILISATION of what the card's maker names,
training TRAINING, which is what an H100 reached. Hours are from above: every answer is counted as long as the recipe
lets it get.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hubkit.recipe.file import load_recipe
from hubkit.students.memory import Needs, Shape, reckon, shape_in

HERE: Final = Path(__file__).resolve().parent
UTILISATION: Final = 0.4
TRAINING: Final = 0.1
"""Of 0.6B parameters at 8,192 tokens (docs/scaling.md)."""
STEP_S: Final = 0.004
"""Seconds that a decoding step takes at least, however little it reads."""
MOST_SEQUENCES: Final = 256
QUESTIONS: Final = {"math-500": 500}
"""Of the benchmarks that are lighteval's; the recipe says the others' number."""
COMPRESSIONS: Final = 400
"""Tokens of one: a fifth of what the recipe allows, of which most compressions are far."""


@dataclass(frozen=True)
class Card:
    name: str
    gigabytes: float
    bandwidth: float
    """Bytes a second."""
    flops: float
    """Of bfloat16 products, dense, a second."""
    tokens_per_device: int
    utilisation: float
    """vLLM's gpu_memory_utilization."""


CARDS: Final = (
    Card("24 GB (RTX 4090)", 24e9, 1.01e12, 165e12, 10240, 0.92),
    Card("48 GB (L40S)", 48e9, 0.86e12, 362e12, 20480, 0.92),
    Card("80 GB (H100)", 80e9, 3.35e12, 989e12, 40960, 0.9),
)
_QWEN3: Final = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8, "num_attention_heads": 32}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "Qwen/Qwen3-8B": _QWEN3
    | {
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-4B-Instruct-2507": _QWEN3
    | {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3.5-0.8B": {
        "model_type": "qwen3_5_text",
        "vocab_size": 248320,
        "head_dim": 256,
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "tie_word_embeddings": True,
    },
}
"""The shapes of the text models, as their configurations on the Hub have them."""


def folder_of(model: str, parent: Path) -> Path:
    folder = parent / model.replace("/", "--")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[model]), encoding="utf-8")
    return folder


def cache_bytes(model: str) -> int:
    """Of the keys and values of one token in bfloat16; gated delta nets, three layers of four, keep none."""
    config = CONFIGS[model]
    layers: int = config["num_hidden_layers"] // (4 if "linear_num_key_heads" in config else 1)
    return 4 * layers * int(config["num_key_value_heads"]) * int(config["head_dim"])


def generating(card: Card, model: str, shape: Shape, answers: int, prompt: int, length: int) -> float:
    """Seconds for so many answers of `length` tokens after prompts of `prompt` tokens."""
    weights = 2 * shape.parameters
    kept = cache_bytes(model) * (prompt + length / 2)  # on average an answer is half written
    room = card.gigabytes * card.utilisation - weights - 1.5e9
    sequences = min(MOST_SEQUENCES, answers, math.floor(room / kept))
    if sequences < 1:
        raise SystemExit(f"{card.name}: no answer of {model} fits")
    step = max(STEP_S, (weights + sequences * kept) / (UTILISATION * card.bandwidth))
    return answers * length / sequences * step


def main() -> None:
    recipe = load_recipe(HERE / "recipe.yaml", [])
    teacher, base = recipe.teachers[0], recipe.students.bases[0]
    compressor: Any = recipe.compressors[0]
    problems: Any = recipe.problems
    rows = problems["train"].limit * teacher.samples
    trace, prompt = teacher.sampling.max_tokens, 200
    decoding = recipe.benchmarks[0].sampling.max_tokens
    questions = sum(QUESTIONS.get(b.name) or problems[b.problems].limit for b in recipe.benchmarks)
    students = len(recipe.students.variants) * len(recipe.students.methods) * len(recipe.students.seeds)
    with tempfile.TemporaryDirectory() as parent:
        folders = {model: folder_of(model, Path(parent)) for model in CONFIGS}
        shapes = {model: shape_in(folder, "null") for model, folder in folders.items()}
        print("| card | full student | LoRA student | traces | compress | train | evaluate | together |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        for card in CARDS:
            needs: dict[str, Needs] = {}
            train = 0.0
            for name, method in recipe.students.methods.items():
                config: dict[str, Any] = {"lora": None} | method.model_dump(mode="json")
                reckoned = reckon(folders[base.model], config, {}, True, "cuda", card.tokens_per_device)
                assert reckoned is not None
                needs[name] = reckoned
                # A raw student reads a whole trace, each of the others a sixth of one.
                tokens = rows * config["sft"]["num_train_epochs"] * (trace + 2 * trace / 6)
                products = 4 if config["lora"] else 6
                shape = shapes[base.model]
                assert shape is not None
                train += products * shape.parameters * tokens / (TRAINING * card.flops)
            known = {model: shape for model, shape in shapes.items() if shape is not None}
            hours = [
                generating(card, teacher.model, known[teacher.model], rows, prompt, trace),
                generating(
                    card, compressor.model, known[compressor.model], rows, prompt + trace, COMPRESSIONS
                ),
                train,
                (students + 1) * generating(card, base.model, known[base.model], questions, prompt, decoding),
            ]
            cells = [f"{need.total / 1e9:.1f} GB" for need in needs.values()]
            cells += [f"{seconds / 3600:.1f} h" for seconds in [*hours, sum(hours)]]
            print(f"| {card.name} | {' | '.join(cells)} |")
        disk = (
            sum(2 * shape.parameters for shape in known.values())
            + students * 4 * known[base.model].parameters
        )
        print(f"\nDisk: {disk / 1e9:.0f} GB of models and students.")


if __name__ == "__main__":
    main()
