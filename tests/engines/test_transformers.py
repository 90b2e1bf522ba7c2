"""The embedded engine against transformers' own generate, on small random models of many architectures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny_model

from hubkit.config import EngineRuntime, Sampling
from hubkit.engines import Engine, Request, Response, open_engine

GREEDY = Sampling(max_tokens=40)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("qwen3"))


def ask(number: int, sampling: Sampling = GREEDY) -> Request:
    # Prompts of very different lengths, so that padding and slots of unequal length are exercised.
    return Request(
        str(number),
        [{"role": "user", "content": f"{number}: " + "ab " * (number * 7 % 23)}],
        sampling,
        number,
    )


def opened(model: Path, batch_size: int, **options: Any) -> Engine:
    return open_engine(model, EngineRuntime(batch_size=batch_size), "cpu", 1, **options)


def answers(model: Path, requests: Iterable[Request], batch_size: int, **options: Any) -> dict[str, Response]:
    async def collect(engine: Engine) -> list[Response]:
        return [response async for response in engine.stream(requests)]

    with opened(model, batch_size, **options) as engine:
        found = asyncio.run(collect(engine))
    assert len({response.key for response in found}) == len(found)
    return {response.key: response for response in found}


def one_by_one(folder: Path, requests: list[Request]) -> dict[str, list[int]]:
    """What transformers' own generate gives for each prompt alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = {}
    for request in requests:
        prompt = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        output = loaded.generate(**inputs, do_sample=False, max_new_tokens=request.sampling.max_tokens)
        found[request.key] = output[0, inputs["input_ids"].shape[1] :].tolist()
    return found


def test_greedy_answers_are_those_of_generate_one_by_one(model: Path) -> None:
    requests = [ask(i, Sampling(max_tokens=10 + i % 60)) for i in range(40)]
    found, wanted = answers(model, requests, batch_size=7), one_by_one(model, requests)
    assert {key: response.token_ids for key, response in found.items()} == wanted
    reasons = {response.finish_reason for response in found.values()}
    assert reasons == {"stop", "length"}, "the model is meant to end some answers and not others"
    for key, response in found.items():
        assert response.completion_tokens == len(wanted[key])
        assert (response.finish_reason == "length") == (
            len(wanted[key]) == next(r for r in requests if r.key == key).sampling.max_tokens
            and wanted[key][-1] not in [2, *range(20, 29)]
        )


KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "mistral": {"sliding_window": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "gemma2": {"sliding_window": 16, "attn_logit_softcapping": 2.0},
    "gemma3_text": {"sliding_window": 16},
    "gpt_oss": {"sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "phi3": {"sliding_window": 16},
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_architectures_answer_as_generate_does(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / kind, kind, **KINDS[kind])
    requests = [ask(i) for i in range(6)]
    found, wanted = answers(folder, requests, batch_size=4), one_by_one(folder, requests)
    assert {key: response.token_ids for key, response in found.items()} == wanted
