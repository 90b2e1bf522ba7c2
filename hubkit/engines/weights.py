"""Which class of transformers holds a model's weights and writes text with them.

Qwen3_5Config -> AutoModelForCausalLM, the text part alone      Mistral3Config -> AutoModelForImageTextToText
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

__all__ = ["has_text_class", "no_code", "text_class", "torn_weights"]


def no_code() -> None:
    """Have transformers refuse models that bring their own code. It asks on the terminal otherwise, and runs it."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def torn_weights(folder: Path) -> str:
    """What of a model's weights is missing or not whole, such as a pointer of git-lfs; "" where nothing is."""
    index = folder / "model.safetensors.index.json"
    if (
        index.is_file() and not (folder / "model.safetensors").is_file()
    ):  # which is what transformers takes first
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} cannot be read"
        if missing := sorted(name for name in named if not (folder / str(name)).is_file()):
            return f"{missing[0]} of its index is missing"
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("consolidated"):  # the same weights in Mistral's own form
            continue
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                tensors = json.loads(file.read(min(length, size)))
            ends = [t["data_offsets"][1] for name, t in tensors.items() if name != "__metadata__"]
            whole = 8 + length + max(ends, default=0) == size
        except (ValueError, KeyError, TypeError, AttributeError, struct.error):
            whole = False
        if not whole:
            return f"{path.name}, {size:,} bytes, is not a whole safetensors file"
    return ""


def has_text_class(folder: Path) -> bool:
    """Whether there is a class of text alone. Of models that see, such as Ministral 3 in Mistral 3, some have none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    no_code()
    return type(AutoConfig.from_pretrained(folder)) in AutoModelForCausalLM._model_mapping


def text_class(folder: Path) -> Any:
    """The auto class to load a model with that is asked for text; one that sees is given none to see."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if has_text_class(folder) else AutoModelForImageTextToText
