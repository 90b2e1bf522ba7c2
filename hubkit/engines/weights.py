"""Finds the transformers class that generates text with a model's weights, and checks that the weights are the model's.

    Qwen3_5Config -> AutoModelForCausalLM, the text part alone      Mistral3Config -> AutoModelForImageTextToText

transformers fills missing weights with random numbers, and ignores superfluous ones, so a config.json that belongs to
other weights gives a model that runs. `misfit` compares shapes, for which the headers of the files are enough;
`load_model` checks the loaded model.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hubkit.errors import InputError, first_line
from hubkit.precision import read_header

__all__ = [
    "MISFIT_REMEDY",
    "has_text_class",
    "load_adapter",
    "load_model",
    "misfit",
    "no_code",
    "read_config",
    "stored_shapes",
    "text_class",
    "torn_weights",
]

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The files that transformers reads: the single file, or else the files that the index names."""
BUFFERS: Final = re.compile(
    r"(attn|attention)\.(masked_)?bias$|(causal_mask|inv_freq|(cos|sin)_cached|position_ids|freqs_cis|alibi)$"
)
"""Constants in old checkpoints, such as GPT-2's and CodeGen's, which are computed today."""
MISFIT_REMEDY: Final = "take the config.json that belongs to these weights, or another model"


def no_code() -> None:
    """Make transformers refuse models with their own code. Otherwise it asks on the terminal, and runs the code."""
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def read_config(folder: Path) -> Any:
    """Returns a model's configuration. Raises OSError or ValueError, in one line, if it cannot be read."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    no_code()
    try:
        return AutoConfig.from_pretrained(folder)
    except StrictDataclassError as error:  # values that do not go together
        raise ValueError(f"config.json: {first_line(error.__cause__ or error)}") from error


def torn_weights(folder: Path) -> str:
    """Returns which weight file is missing or incomplete, such as a pointer of git-lfs; "" if none is."""
    if not (folder / WHOLE).is_file():
        if not (folder / INDEX).is_file():
            return f"neither {WHOLE} nor {INDEX} is there"
        try:
            parts = _parts(folder)
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{INDEX} cannot be read"
        if missing := [path.name for path in parts if not path.is_file()]:
            return f"{missing[0]} of its index is missing"
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("consolidated"):  # the same weights in Mistral's own form
            continue
        try:
            read_header(path)
        except ValueError as error:
            return str(error)
    return ""


def stored_shapes(folder: Path) -> dict[str, list[int]]:
    """Returns weight -> its shape, from the headers of the files that transformers reads. Raises ValueError if one is
    incomplete."""
    files = [folder / WHOLE] if (folder / WHOLE).is_file() else _parts(folder)
    return {name: tensor["shape"] for path in files for name, tensor in read_header(path).items()}


def _parts(folder: Path) -> list[Path]:
    named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    return [folder / str(name) for name in sorted(named)]


def misfit(folder: Path, shapes: Mapping[str, list[int]]) -> str:
    """Returns how stored weights differ from the model that the config.json in a folder describes; "" if they do not.

    `shapes` are those of the weights. Nothing is allocated. Quantised weights, whose shapes differ, are not checked.
    Raises ValueError if no model can be built from the configuration.
    """
    import torch
    from transformers import AutoModelForTokenClassification

    config = read_config(folder)
    if getattr(config, "quantization_config", None):
        return ""
    classifies = str((config.architectures or [""])[0]).endswith("ForTokenClassification")
    auto = AutoModelForTokenClassification if classifies else text_class(folder)
    with _quiet():
        try:
            with torch.device("meta"):
                model: Any = auto.from_config(config)
        except Exception as error:  # sizes that do not go together fail wherever a layer first divides by one
            raise ValueError(f"no model can be built of config.json: {first_line(error)}") from error
        try:
            model, found = type(model).from_pretrained(
                None,
                config=model.config,
                state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except RuntimeError as error:  # weights that it would put together, such as those of experts
            return f"its weights do not go together ({first_line(error)})"
    return _differences(model, found)


def load_model(auto: Any, folder: Path, **options: Any) -> Any:
    """Returns a model with its weights, by one of transformers' Auto classes, and with no other weights.

    Raises InputError if the weights do not fit config.json.
    """
    model, found = auto.from_pretrained(
        folder, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True, **options
    )
    if told := _differences(model, found):
        raise InputError(f"the model {folder.name}: {told}", MISFIT_REMEDY)
    return model


def load_adapter(model: Any, folder: Path) -> Any:
    """Returns PEFT's model with the whole adapter in a folder.

    PEFT only warns about missing parts, which then have no effect, and silently ignores superfluous ones. Raises
    InputError for both, and for an adapter of other sizes.
    """
    from peft import PeftModel, get_peft_model_state_dict

    told = ""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Found missing adapter keys")
        try:
            adapted = PeftModel.from_pretrained(model, folder)
            left = (
                read_header(folder / "adapter_model.safetensors").keys()
                - get_peft_model_state_dict(adapted).keys()
            )
            if lora := sorted(name for name in left if "lora_" in name):
                told = f"{len(lora)} of its parts have no place, such as {lora[0]}"
        except (UserWarning, RuntimeError, ValueError, OSError) as error:
            told = first_line(error)
    if told:
        raise InputError(
            f"the adapter {folder.name} does not fit the model: {told}",
            "give the base that it was trained on",
        )
    return adapted


def _differences(model: Any, found: Mapping[str, Any]) -> str:
    """Returns the first kind of difference in transformers' report of loading."""
    if wrong := sorted(found["mismatched_keys"]):
        name, stored, expected = wrong[0]
        return (
            f"{len(wrong)} of its weights have other shapes than by its config.json, such as {name}: "
            f"{list(stored)}, not {list(expected)}"
        )
    weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if missing := sorted(weights & set(found["missing_keys"])):
        return f"{len(missing)} weights of its config.json are not in its files, such as {missing[0]}"
    modules = {_kind(name): module for name, module in model.named_modules()}
    if left := sorted(name for name in found["unexpected_keys"] if _belongs(name, modules)):
        return f"{len(left)} of its weights have no place by its config.json, such as {left[0]}"
    return ""


def _kind(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _belongs(name: str, modules: Mapping[str, Any]) -> bool:
    """Whether a superfluous weight belongs to the model itself: to its blocks or to a layer with other weights.

    Weights of a vision tower, of heads for other tasks or for several tokens at once are left out on purpose.
    """
    if BUFFERS.search(name):
        return False
    block = re.match(r"(.*?\.)??\d+(?=\.)", name)
    if block and _kind(block[0]) in modules:
        return True
    layer = modules.get(_kind(name.rpartition(".")[0]))
    return layer is not None and any(True for _ in layer.parameters(recurse=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and report."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the user's environment keeps those of the Hub away
                logging.enable_progress_bar()


def has_text_class(folder: Path) -> bool:
    """Whether there is a text-only class. Some multimodal models, such as Ministral 3 in Mistral 3, have none."""
    from transformers import AutoModelForCausalLM

    return type(read_config(folder)) in AutoModelForCausalLM._model_mapping


def text_class(folder: Path) -> Any:
    """Returns the auto class for text generation; a multimodal model is given no images."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if has_text_class(folder) else AutoModelForImageTextToText
