"""Small models of the real architectures with random weights, under the real vocabularies.

    save_model("qwen3.5-moe", folder)                  config, bfloat16 safetensors, tokenizer, chat template
    save_model("gpt-oss", folder, says="<|channel|>…")   and it answers whatever it is asked by this text

Four layers at the widths of toys; all else is as it is published: layer types of Qwen3.5 (three gated delta nets to
one of attention) inside its multimodal class, gpt-oss' experts with sinks and sliding windows, Ministral 3 inside
Mistral 3. A model that says something has random layers, too; its embedding and its output layer alone are made so that
each token of the text is followed by the next.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any, Final

from real_tokenizers import tokenizer_folder

__all__ = ["ARCHITECTURES", "architecture_of", "save_model"]

WIDTHS: Final = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WIDTHS |= {"head_dim": 16}
DELTA: Final = {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2}
DELTA |= {"linear_num_value_heads": 4}
EYES: Final = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
EYES |= {"num_position_embeddings": 16}
ARCHITECTURES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "qwen3.5": (
        "qwen3.5",
        "qwen3_5",
        WIDTHS | DELTA | {"hidden_size": 32, "intermediate_size": 48, "tie_word_embeddings": True},
    ),
    "qwen3.5-moe": (
        "qwen3.5",
        "qwen3_5_moe",
        WIDTHS
        | DELTA
        | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4}
        | {"num_experts_per_tok": 2},
    ),
    "gpt-oss": (
        "gpt-oss",
        "gpt_oss",
        WIDTHS
        | {"intermediate_size": 64, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    ),
    "llama-3": ("llama-3", "llama", WIDTHS | {"intermediate_size": 96, "vocab_size": 128256}),
    "ministral-3": ("ministral-3", "ministral3", WIDTHS | {"intermediate_size": 96}),
}
"""Name -> (tokenizer, model_type, sizes)."""
ENDS: Final = {"qwen3.5": ["<|im_end|>", "<|endoftext|>"], "gpt-oss": ["<|return|>", "<|call|>"]}
ENDS |= {"llama-3": ["<|eot_id|>", "<|end_of_text|>"], "ministral-3": ["</s>"]}


def save_model(name: str, folder: Path, says: str = "", seed: int = 0) -> Path:
    """Write a model with random weights, its tokenizer and chat template; returns the folder.

    What it `says` begins right after the prompt of its chat template, and is followed by its first end token.
    """
    import torch
    from transformers import AutoConfig, AutoTokenizer

    tokenizer_name, kind, sizes = ARCHITECTURES[name]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(tokenizer_name))
    ends = tokenizer.convert_tokens_to_ids(ENDS[tokenizer_name])
    ids = {"eos_token_id": ends[0], "pad_token_id": tokenizer.pad_token_id or ends[0], "bos_token_id": None}
    sizes = sizes | ids | {"max_position_embeddings": 65536}
    torch.manual_seed(seed)
    if kind.startswith("qwen3_5"):
        kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
        text = sizes | {"layer_types": kinds}
        tied = bool(sizes.get("tie_word_embeddings"))
        config = AutoConfig.for_model(kind, text_config=text, vision_config=EYES, tie_word_embeddings=tied)
    elif kind == "ministral3":
        eyes = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
        eyes |= {"num_attention_heads": 2, "head_dim": 16, "image_size": 56, "patch_size": 14}
        text = sizes | {"model_type": "ministral3"}
        config = AutoConfig.for_model(
            "mistral3", text_config=text, vision_config=eyes, tie_word_embeddings=False
        )
    else:
        config = AutoConfig.for_model(kind, **sizes)
    model = _class_of(config)(config)
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = ids["pad_token_id"]
    if says:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        answer = tokenizer(says, add_special_tokens=False)["input_ids"]
        _speak(model, prompt, [*answer, ends[0]])
    model.to(torch.bfloat16).save_pretrained(folder)
    for file in tokenizer_folder(tokenizer_name).iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


SCALE: Final = 16.0
"""Of the output layer: logits of the next token are 50 or more above all others, so that sampling changes nothing."""
MARK, SEEN = WIDTHS["hidden_size"] - 2, WIDTHS["hidden_size"] - 1
"""Dimensions: of the token after which the second half of a text begins, and of that it was among the last 16."""


def _speak(model: Any, prompt: list[int], answer: list[int]) -> None:
    """Have each token of an answer followed by the next one: a dimension for each in the embedding, and in the output.

    Harmony writes some tokens twice with different ones after them, for its two channels. The second time is told from
    the first by a token just before it: the first layer of gpt-oss, whose window is 16 tokens, hands it on.
    """
    import torch

    chain = [prompt[-1], *answer]
    after: dict[int, list[int]] = {}
    for token, following in itertools.pairwise(chain):
        if following not in after.setdefault(token, []):
            after[token].append(following)
    assert len(after) <= MARK, "the text is too long"
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert table.data_ptr() != head.data_ptr(), "tied embeddings cannot say anything"
    twice = [token for token, followers in after.items() if len(followers) > 1]
    with torch.no_grad():
        table[:, MARK:] = 0
        for place, (token, followers) in enumerate(after.items()):
            table[token] = 0
            table[token, place] = 1
            for number, following in enumerate(followers):
                head[following, place] = SCALE * (0.75 if number else 1)
                if number:
                    head[following, SEEN] = SCALE / 2
        if not twice:
            return
        attention = model.model.layers[0].self_attn
        assert attention.sliding_window == 16 and all(len(after[token]) == 2 for token in twice), twice
        first = min(chain.index(token, chain.index(token) + 1) for token in twice)
        mark = next(token for token in chain[first - 1 :: -1] if token not in prompt and token not in twice)
        assert first - chain.index(mark) < 8, "no token of its own stands before the second half"
        table[mark, MARK] = 1
        for weight in (attention.q_proj.weight, attention.q_proj.bias, attention.v_proj.bias):
            weight.zero_()
        attention.sinks.fill_(-30.0)
        attention.v_proj.weight[0] = 0
        attention.v_proj.weight[0, MARK] = 1
        attention.o_proj.weight[SEEN] = 0
        # Of 16 tokens one has it, at sqrt(32) after the norm.
        attention.o_proj.weight[SEEN, 0] = 16 / 32**0.5


def _class_of(config: Any) -> Any:
    """The class that the published checkpoints of a configuration are written by."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    return auto._model_mapping[type(config)]


def architecture_of(folder: Path) -> str:
    """The class that a folder's config.json names."""
    name: str = json.loads((folder / "config.json").read_text())["architectures"][0]
    return name
