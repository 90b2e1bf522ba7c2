"""Which class of transformers holds a model's weights and writes text with them.

Qwen3_5Config -> AutoModelForCausalLM, the text part alone      Mistral3Config -> AutoModelForImageTextToText
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["has_text_class", "text_class"]


def has_text_class(folder: Path) -> bool:
    """Whether there is a class of text alone. Of models that see, such as Ministral 3 in Mistral 3, some have none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    return type(AutoConfig.from_pretrained(folder)) in AutoModelForCausalLM._model_mapping


def text_class(folder: Path) -> Any:
    """The auto class to load a model with that is asked for text; one that sees is given none to see."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if has_text_class(folder) else AutoModelForImageTextToText
