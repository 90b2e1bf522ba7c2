"""Optional kernels of training: which of them are missing or broken on this machine, and what that costs.

transformers treats a broken package like a missing one, and takes reference code; it also calls packages whose
functions fail. So kernels are imported and run before training, in a model of one small layer.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

from hubkit.engines.weights import read_config
from hubkit.errors import RecipeError, first_line

__all__ = [
    "ATTENTION",
    "FLASH",
    "check_attention",
    "check_linear",
    "tell_attention",
    "why_not",
    "without_gradient",
]

FLASH: Final = {
    "flash_attention_3": "flash_attn_interface",
    "flash_attention_2": "flash_attn",
    "kernels-community/flash-attn2": "kernels",
}
"""Flash attention, by transformers' names -> the package that has it, or fetches it from the Hub."""
ATTENTION: Final = {"cuda": (*FLASH, "sdpa", "flex_attention"), "cpu": ("sdpa",)}
"""Attentions in the order in which they are tried if the recipe does not choose; missing ones are skipped."""
LINEAR: Final = ("fla", "causal_conv1d")
"""Packages of the kernels for gated delta nets."""
SMALL: Final = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "moe_intermediate_size"), 64),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_experts"), 2),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
    "shared_expert_intermediate_size": 64,
    "num_experts_per_tok": 1,
    "vocab_size": 16,
    "num_hidden_layers": 1,
}
"""Sizes of the model in which kernels are tried."""


def why_not(package: str) -> str:
    """Returns why a package cannot be used: it is not installed, or its import raises. Returns "" if it can be used."""
    name = package.partition(".")[0]
    if importlib.util.find_spec(name) is None:
        return f"{name} is not installed"
    try:
        importlib.import_module(package)
    except Exception as error:
        return f"{name} is installed and cannot be imported ({first_line(error)})"
    return ""


def _fails(kind: str, device: str, attention: str = "sdpa", narrow: bool | None = None, **sizes: Any) -> str:
    """Returns the error of a small model in a training step; "" if it runs. `narrow`: in bfloat16, as by default on
    GPUs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    narrow = device == "cuda" if narrow is None else narrow
    dtype = torch.bfloat16 if narrow else torch.float32
    try:
        config = AutoConfig.for_model(kind, **SMALL | sizes)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
        ids = torch.ones(1, 8, dtype=torch.long, device=device)
        model.to(device)(ids, use_cache=False).logits.float().sum().backward()
    except Exception as error:
        return first_line(error)
    return ""


@functools.cache
def without_gradient(kind: str, device: str, attention: str) -> str:
    """Weights that an attention gives no gradient, as flash attention's kernel for gpt-oss does with its sinks: what
    comes out is right, and nothing is said. Asked of a small model of the kind, beside eager attention. Returns ""
    where all get one, and where no such model runs here."""
    try:
        with_eager, found = (_trained(kind, device, how) for how in ("eager", attention))
    except Exception:
        return ""  # who asks runs it on the model itself
    lost = sorted(name.rpartition("layers.0.")[2] for name in with_eager - found)
    return ", ".join(lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")


def _trained(kind: str, device: str, attention: str) -> set[str]:
    """Weights of a small model that get a gradient. torch's random numbers stay where they were."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL)
    if getattr(config, "layer_types", None):
        config.layer_types = ["full_attention"]  # the first may be another, such as a gated delta net
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
        ids = torch.arange(8, device=device)[None]
        model.to(device)(ids, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    return {
        name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()
    }


@functools.cache
def check_attention(name: str, device: str, narrow: bool) -> None:
    """Raise RecipeError for an attention that does not run on this machine, or not in the precision of products, which
    `narrow` says is bfloat16: flash attention does not in float32."""
    if name != "auto" and (told := _fails("llama", device, name, narrow)):
        raise RecipeError(
            f"run.attention: {name} does not run here ({told})",
            "install it, or leave run.attention out: the best that runs is taken",
        )


@functools.cache
def tell_attention(asked: str, device: str) -> None:
    """Print once, on stderr, that a GPU has no flash attention, why, and what that costs."""
    if device != "cuda" or asked != "auto":
        return
    reasons = []
    for name, package in FLASH.items():
        reason = why_not(package)
        if not reason and (told := _fails("llama", device, name)):
            reason = f"{name} does not run here ({told})"
        if not reason:
            return
        reasons.append(reason)
    print(
        f"warning: students are trained without flash attention: {'; '.join(reasons)}. torch's own is taken, "
        "with examples padded, not packed: 1.08 times the tokens with nano's traces; pip install '.[kernels]'",
        file=sys.stderr,
    )


@functools.cache
def check_linear(folder: Path, device: str, name: str) -> None:
    """Check the kernels of a hybrid base's gated delta nets. Raises RecipeError if one is installed and broken; prints
    on stderr which kernels a GPU lacks, and what that costs."""
    text = read_config(folder).get_text_config()
    if "linear_attention" not in (getattr(text, "layer_types", None) or ()):
        return
    reasons = {package: why_not(package) for package in LINEAR}
    missing = [package for package in LINEAR if reasons[package].endswith("is not installed")]
    for package, reason in reasons.items():
        if reason and package not in missing:
            raise RecipeError(f"students of {name}: {reason}", _remedy(package))
    # With the base's head sizes, so that the code compiled for a GPU is that which training needs.
    sizes = {key: value for key, value in text.to_dict().items() if key.startswith("linear_")}
    if len(missing) < len(LINEAR) and (
        told := _fails(text.model_type, device, layer_types=["linear_attention"], **sizes)
    ):
        there = [package for package in LINEAR if package not in missing]
        raise RecipeError(
            f"students of {name}: its gated delta nets do not run on this {'GPU' if device == 'cuda' else 'CPU'} with "
            f"{' and '.join(there)}: {told}",
            _remedy(*there),
        )
    if "fla" in missing and device == "cuda":
        print(
            f"warning: students of {name}: its gated delta nets run without kernels ({', '.join(missing)} are not "
            "installed), examples padded: 1,100 tokens/s were measured so on an H100 for 0.8B parameters, a twentieth "
            "of what is usual; pip install '.[kernels]'",
            file=sys.stderr,
        )
    elif missing and device == "cuda":
        print(
            f"warning: students of {name}: causal_conv1d is not installed, so that their examples are padded, not "
            "packed: 1.08 times the tokens with nano's traces; pip install causal-conv1d compiles it",
            file=sys.stderr,
        )


def _remedy(*packages: str) -> str:
    names = " ".join({"fla": "flash-linear-attention"}.get(package, package) for package in packages)
    return f"install it again, or pip uninstall {names}: without it training is exact, and slower"
