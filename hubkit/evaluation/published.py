"""Makes sure that the published weights are evaluated: one folder for every engine, and a check that it is served.

A student that is an adapter is merged by PEFT into a copy of its base in the work folder, because servers that load
adapters themselves have silently answered with the base.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hubkit.engines.base import Engine, Request
from hubkit.engines.weights import load_adapter, load_model, read_config
from hubkit.errors import GateError
from hubkit.section import Sampling
from hubkit.students.loading import make_saveable

__all__ = ["AGREEMENT", "check_served", "merged", "trained_answers"]

PROMPTS: Final = 3
TOKENS: Final = 16
"""Greedy tokens of each prompt that are compared."""
AGREEMENT: Final = 0.25
"""Minimum share of these tokens that agree, up to the first difference. In half precision two programs differ at some
near tie; another model differs at once."""
EXACT: Final = 1e-3
"""Largest difference of logits in float32, as a share of the largest logit. A merged model is compared before it is
rounded to the base's type: rounding alone makes 0.03 on SmolLM2-135M in bfloat16, whatever the adapter."""


def merged(base: Path, adapter: Path, folder: Path) -> Path:
    """Write the base with an adapter merged into it; returns the folder.

    Raises GateError if one set of weights cannot give the logits that base and adapter give together, as with LoRA on
    tied weights (students/adapters.py refuses it before training), or if the copy differs from the merged model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    stored = read_config(base).dtype or torch.float32
    model = load_model(AutoModelForCausalLM, base, dtype=torch.float32)
    student = load_adapter(model, adapter).eval()
    ids = torch.arange(min(64, model.config.get_text_config().vocab_size))[None]
    with torch.no_grad():
        wanted = student(ids).logits
        whole = student.merge_and_unload()
        off = _off(whole(ids).logits, wanted)
        weights = [weight for weight in whole.parameters() if weight.is_floating_point()]
        for weight in weights:  # buffers, such as rotary frequencies, stay exact
            weight.data = weight.data.to(stored).to(torch.float32)
        wanted = whole(ids).logits
        for weight in weights:
            weight.data = weight.data.to(stored)
        make_saveable(whole)
        shutil.rmtree(folder, ignore_errors=True)
        whole.save_pretrained(folder)
        del student, whole, model, weights, weight
        copy = load_model(AutoModelForCausalLM, folder, dtype=torch.float32)
        off = max(off, _off(copy.eval()(ids).logits, wanted))
    if off > EXACT:
        raise GateError(
            f"merged into its base the adapter gives other logits, by {off:.1%}: one set of weights cannot hold both",
            "leave tied embeddings out of the adapter's targets, or train without lora",
        )
    tokenizer = adapter if (adapter / "tokenizer_config.json").is_file() else base
    for file in tokenizer.iterdir():
        wanted = file.suffix in (".json", ".jinja", ".txt", ".model") and not (folder / file.name).exists()
        if wanted and not file.name.startswith(("adapter_", "model.")):
            shutil.copyfile(file, folder / file.name)
    return folder


def _off(found: Any, wanted: Any) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def trained_answers(
    weights: Path,
    adapter: Path | None,
    chats: Sequence[list[dict[str, str]]],
    tokenizer: Any,
    template: Mapping[str, str] | None = None,
    device: str = "auto",
) -> list[list[int]]:
    """Returns greedy tokens of the published files by transformers and PEFT, one prompt after the other.

    `template`: variables for the chat template; `device`: a recipe's `run.device`. What it takes of a GPU is given
    back: vLLM, a process of its own, does not start where less is free than it is to have.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else "auto"
    model = load_model(AutoModelForCausalLM, weights, dtype=dtype)
    if adapter is not None:
        model = load_adapter(model, adapter)
    model = model.to(device).eval()
    answers = []
    for messages in chats[:PROMPTS]:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True, **(template or {})
        ).to(device)
        prompt = inputs["input_ids"]
        with torch.no_grad():
            made = model.generate(
                input_ids=prompt,
                attention_mask=inputs["attention_mask"],
                max_new_tokens=TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        answers.append(made[0, prompt.shape[1] :].tolist())
        del inputs, prompt, made
    del model
    cuda: Any = torch.cuda
    if cuda.is_initialized():
        gc.collect()  # PEFT's models are cycles
        cuda.empty_cache()
    return answers


async def check_served(
    engine: Engine,
    chats: Sequence[list[dict[str, str]]],
    expected: Sequence[Sequence[int]],
    tokenizer: Any,
    template: Mapping[str, str] | None = None,
) -> float:
    """Returns the share of the trained model's greedy answers that the engine gives, up to the first difference.

    Raises GateError if the engine serves another model.
    """
    sampling = Sampling(max_tokens=TOKENS)
    requests = [
        Request(f"served-{number}", messages, sampling, number, dict(template or {}))
        for number, messages in enumerate(chats[:PROMPTS])
    ]
    texts: dict[str, str] = {}
    async for response in engine.stream(requests):
        if response.finish_reason == "error":
            raise GateError(f"the engine does not answer: {response.error}", "look at its log")
        span = f"<think>\n{response.reasoning}" if response.reasoning else ""
        texts[response.key] = span + response.text
    shares = []
    for request, ids in zip(requests, expected, strict=True):
        wanted = _plain(tokenizer.decode(ids, skip_special_tokens=True))
        found = _plain(texts[request.key])
        differ = [place for place, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b]
        same = differ[0] if differ else min(len(wanted), len(found))
        shares.append(same / max(1, len(wanted)) if wanted else float(not found))
    agreement = sum(shares) / max(1, len(shares))
    if agreement < AGREEMENT:
        raise GateError(
            f"the engine does not serve the trained model: {agreement:.0%} of the beginnings of answers agree, such as "
            f"{texts[requests[0].key][:60]!r} for {tokenizer.decode(expected[0])[:60]!r}",
            "set run.engines.students.engine=transformers",
        )
    return agreement


def _plain(text: str) -> str:
    """Returns the text without blanks and marks of the thinking span, which some engines separate."""
    for mark in ("<think>", "</think>"):
        text = text.replace(mark, "")
    return "".join(text.split())
