"""Small random models and a tokenizer, built in a second, for tests that need a model but not its wits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

__all__ = [
    "CHAT_TEMPLATE",
    "HYBRID",
    "renamed_marks",
    "save_adapter",
    "save_seeing",
    "save_tiny_model",
    "save_tiny_tokenizer",
]

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
HYBRID = {
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 12,
}
"""Sizes of a small qwen3_5_text, of which three layers are gated delta nets and one is attention."""
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]


def save_tiny_tokenizer(folder: Path, template: str = CHAT_TEMPLATE, special: list[str] | None = None) -> Any:
    """A byte-level tokenizer without merges: one token per byte, and whole tags."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = SPECIAL + (special or [])
    vocabulary = {name: number for number, name in enumerate([*names, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, special=True) for name in names])
    core.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>") if tag not in names])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_tiny_model(folder: Path, kind: str = "qwen3", ends: list[int] | None = None, **options: Any) -> Path:
    """A random model whose greedy answers wander, so that some end early and some at the limit.

    `ends` are the ids of its end tokens; ten of 260 make answers of different lengths.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = save_tiny_tokenizer(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 48,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "max_position_embeddings": 512,
            "initializer_range": 0.4,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": 2,
        }
        | options,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=ends or [2, *range(20, 29)], pad_token_id=0)
    model.save_pretrained(folder)
    return folder


def save_seeing(text: Path, folder: Path, kind: str) -> Path:
    """A tiny model as a multimodal class holds it, with the tokenizer and template of the folder `text`.

    `kind`: qwen3_5 or mistral3, as Qwen3.5 and Ministral 3 are published.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    sizes = {"vocab_size": 256 + 8, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4}
    sizes |= {
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 512,
        "initializer_range": 0.4,
    }
    sizes |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    torch.manual_seed(0)
    if kind == "qwen3_5":
        sizes |= {"num_hidden_layers": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2}
        sizes |= {"linear_key_head_dim": 12, "linear_value_head_dim": 12}
        eyes = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 48}
        config = AutoConfig.for_model(kind, text_config=sizes, vision_config=eyes)
    else:
        eyes = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
        eyes |= {"num_attention_heads": 2, "head_dim": 16, "image_size": 56, "patch_size": 14}
        sizes |= {"model_type": "ministral3", "num_hidden_layers": 2}
        config = AutoConfig.for_model(kind, text_config=sizes, vision_config=eyes)
    shutil.copytree(text, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(folder)
    shutil.copyfile(text / "generation_config.json", folder / "generation_config.json")
    return folder


def save_adapter(base: Path, folder: Path, **options: Any) -> Path:
    """A random LoRA adapter on a model, of which all parts change answers. `options` are LoraConfig's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    options = {"target_modules": "all-linear"} | options
    config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, weight in model.named_parameters():
        if "modules_to_save" in name or "trainable_tokens" in name:
            weight.data += torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def renamed_marks(model: Path, folder: Path) -> Path:
    """A copy of a model whose <think> and </think> are the special tokens <r> and </r>."""
    shutil.copytree(model, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(
            text.replace("<think>", "<r>").replace("</think>", "</r>"), encoding="utf-8"
        )
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        token["special"] = True
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder
