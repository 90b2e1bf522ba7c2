"""Shapes of real models, and the table of what benchmarks/train.py measures."""

from __future__ import annotations

from typing import Any, Final

DENSE: Final = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
LINEAR: Final = {
    "vocab_size": 248320,
    "head_dim": 256,
    "max_position_embeddings": 65536,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}
SHAPES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "tiny": (
        "qwen3",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "vocab_size": 600,
        },
    ),
    "smollm2-135m": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        "qwen3",
        DENSE
        | {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-1.7b": (
        "qwen3",
        DENSE
        | {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3.5-0.8b": (
        "qwen3_5_text",
        LINEAR
        | {
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "linear_num_value_heads": 16,
            "tie_word_embeddings": True,
        },
    ),
    "8b": (
        "qwen3",
        DENSE
        | {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "tie_word_embeddings": False,
        },
    ),
}

SMALL: Final = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "vocab_size": 600,
    "head_dim": 16,
}
SMALL |= {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}
SMALL |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
"""What a shape of a trial has instead; its lengths are a 64th."""
TABLE: Final[tuple[dict[str, Any], ...]] = (
    {"shape": "qwen3-0.6b", "length": 8192, "examples": 8, "goal": 30_000},
    {"shape": "qwen3-1.7b", "length": 16384, "examples": 4, "goal": 15_000},
    {"shape": "qwen3.5-0.8b", "length": 16384, "examples": 4, "goal": 20_000, "goal_gib": 60},
    {"shape": "qwen3.5-0.8b", "length": 32768, "examples": 2, "goal": 20_000, "goal_gib": 60},
    {"shape": "8b", "method": "lora", "length": 4096, "examples": 8, "goal": 15_000},
    {"shape": "qwen3-0.6b", "length": 700, "examples": 96, "goal_share": 0.8},
    {"shape": "qwen3.5-0.8b", "length": 700, "examples": 96, "goal_share": 0.8},
)
"""What is measured on one GPU of 80 GB. Goals: tokens/s, the most GiB, and the share of the tokens/s of the first
row of the shape."""
