"""The embedded engine against transformers' own generate, on small random models of many architectures."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import MODELS, slow
from tiny_model import CHAT_TEMPLATE, renamed_marks, save_seeing, save_tiny_model, save_tiny_tokenizer

from hubkit.engines import Engine, Request, Response, open_engine
from hubkit.engines.batch import Batch
from hubkit.engines.settings import EngineRuntime
from hubkit.engines.slots import _Cohort, fastest_matmul_precision, matmul_precision
from hubkit.engines.transformers import TransformersEngine
from hubkit.errors import EngineError, InputError
from hubkit.section import Sampling
from hubkit.traces.thinking import split

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
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    sees = "vision_config" in json.loads((folder / "config.json").read_text())
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    loaded: Any = auto.from_pretrained(folder, dtype=torch.float32).eval()
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


def test_answers_are_the_same_however_often_the_cache_is_rearranged(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cohorts of sequences outgrow their columns, are joined, and give memory back, every few steps."""
    monkeypatch.setattr("hubkit.engines.slots.CACHE_STEP", 5)
    called: Counter[str] = Counter()
    repack, keep = _Cohort.repack, _Cohort.keep

    def counted_repack(self: _Cohort, *others: _Cohort) -> None:
        repack(self, *others)
        called["joined"] += len(others)

    def counted_keep(self: _Cohort, kept: list[int]) -> None:
        keep(self, kept)
        called["kept"] += 1
        assert len(self.layers[0][0]) <= 2 * len(self.slots) + 1

    monkeypatch.setattr(_Cohort, "repack", counted_repack)
    monkeypatch.setattr(_Cohort, "keep", counted_keep)
    requests = [ask(i, Sampling(max_tokens=5 + i * 37 % 110)) for i in range(60)]
    found, wanted = answers(model, requests, batch_size=13), one_by_one(model, requests)
    assert {key: response.token_ids for key, response in found.items()} == wanted
    assert called["joined"] > 5 and called["kept"] > 20


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


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_other_architectures_answer_as_generate_does(
    kind: str, begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / kind, kind, **KINDS[kind])
    requests = [ask(i) for i in range(6)]
    shared: list[int] = []
    if begun:  # All prompts begin alike, further than a window reaches; two are the same to the end.
        system = {"role": "system", "content": "Add up what follows, step by step."}
        requests = [Request(r.key, [system, *r.messages], r.sampling, r.seed) for r in requests]
        requests[1] = Request("1", requests[0].messages, GREEDY, 1)
        monkeypatch.setattr("hubkit.engines.batch.PREFIX_TOKENS", 1)
        prefill = Batch._prefill_prefix

        def seen(self: Batch, prompts: list[list[int]]) -> int:
            shared.append(prefill(self, prompts))
            return shared[-1]

        monkeypatch.setattr(Batch, "_prefill_prefix", seen)
    found, wanted = answers(folder, requests, batch_size=4), one_by_one(folder, requests)
    assert {key: response.token_ids for key, response in found.items()} == wanted
    assert (max(shared, default=0) > 40) == begun


def text_of(responses: dict[str, Response]) -> dict[str, str]:
    return {key: response.text for key, response in responses.items()}


@pytest.mark.parametrize(
    "options",
    [{}, slow({"top_k": 5}), slow({"top_p": 0.7}), {"top_k": 20, "top_p": 0.9}],
)
def test_a_sampled_answer_depends_on_its_seed_alone(model: Path, options: dict[str, Any]) -> None:
    sampling = Sampling(max_tokens=24, temperature=0.8, **options)
    requests = [ask(i, sampling) for i in range(20)]
    found = text_of(answers(model, requests, batch_size=16))
    # Alone, in another order, and among greedy and longer ones.
    assert text_of(answers(model, requests[:3], batch_size=1)) == {str(i): found[str(i)] for i in range(3)}
    others = [ask(i, Sampling(max_tokens=60)) for i in range(100, 110)]
    mixed = text_of(answers(model, [*others, *reversed(requests)], batch_size=5))
    assert {key: mixed[key] for key in found} == found
    greedy = text_of(answers(model, [ask(i, Sampling(max_tokens=24)) for i in range(20)], batch_size=16))
    assert sum(greedy[key] != found[key] for key in found) > 10
    again = [Request(r.key, r.messages, r.sampling, r.seed + 1000) for r in requests]
    assert sum(text_of(answers(model, again, batch_size=16))[key] != found[key] for key in found) > 10


def test_one_token_to_choose_from_is_greedy(model: Path) -> None:
    greedy = text_of(answers(model, [ask(i) for i in range(6)], batch_size=3))
    for options in ({"top_k": 1}, {"top_p": 1e-6}):
        sampling = Sampling(max_tokens=40, temperature=1.5, **options)
        assert text_of(answers(model, [ask(i, sampling) for i in range(6)], batch_size=3)) == greedy


def test_samples_follow_the_models_distribution(model: Path) -> None:
    """First tokens of many seeds against the probabilities that transformers gives, cut by top_k and top_p."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    message = [{"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    with torch.no_grad():
        logits = loaded(**tokenizer(prompt, add_special_tokens=False, return_tensors="pt")).logits[0, -1]
    probability = (logits / 1.3).softmax(-1)
    kept = probability.argsort(descending=True)[:8]
    kept = kept[: int((probability[kept].cumsum(0) / probability[kept].sum() < 0.8).sum()) + 1]
    expected = torch.zeros_like(probability)
    expected[kept] = probability[kept] / probability[kept].sum()
    sampling = Sampling(max_tokens=1, temperature=1.3, top_k=8, top_p=0.8)
    number = 2000
    found = answers(model, [Request(str(i), message, sampling, i) for i in range(number)], batch_size=256)
    counts = torch.zeros_like(probability)
    for response in found.values():
        counts[response.token_ids[0]] += 1
    assert set(counts.nonzero()[:, 0].tolist()) == set(kept.tolist())
    # The seeds are fixed, so this either always holds or never; 5 standard deviations would be chance.
    deviation = (expected * (1 - expected) / number).sqrt()
    assert bool(((counts / number - expected).abs() <= 5 * deviation).all())


def test_an_adapter_answers_as_its_merged_model(model: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted: Any = get_peft_model(
        base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in (*model.glob("tokenizer*"), *model.glob("chat_template*"), model / "generation_config.json"):
        (tmp_path / "merged" / file.name).write_bytes(file.read_bytes())
    requests = [ask(i) for i in range(6)]
    found = text_of(answers(model, requests, 3, adapter=tmp_path / "adapter"))
    assert found == text_of(answers(tmp_path / "merged", requests, 3))
    assert found != text_of(answers(model, requests, 3))


def test_a_prompt_beyond_the_context_is_an_error_response(model: Path) -> None:
    long = Request("long", [{"role": "user", "content": "x" * 500}], Sampling(max_tokens=20), 0)
    found = answers(model, [ask(1), long, ask(2)], batch_size=2)
    assert found["long"].finish_reason == "error" and "context" in found["long"].error
    assert found["long"].prompt_tokens > 500 and not found["long"].completion_tokens
    assert "error" not in (found["1"].finish_reason, found["2"].finish_reason)
    assert answers(model, [long], batch_size=2).keys() == {"long"}


def test_a_span_that_the_template_opened_stands_in_the_text(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    save_tiny_tokenizer(folder, CHAT_TEMPLATE.replace("assistant\\n", "assistant\\n<think>\\n"))
    found = answers(folder, [ask(i) for i in range(4)], batch_size=2)
    assert all(response.text.startswith("<think>") for response in found.values())
    assert split(found["0"].text).form in ("closed", "unclosed")


def test_marks_of_thinking_stay_and_other_special_tokens_do_not(tmp_path: Path) -> None:
    harmony = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<think>", "</think>"]
    folder = save_tiny_model(tmp_path)
    tokenizer = save_tiny_tokenizer(folder, special=harmony)
    with opened(folder, 1) as engine:
        assert isinstance(engine, TransformersEngine)
        hidden = engine._hidden
    assert hidden == set(tokenizer.convert_tokens_to_ids(["<|pad|>", "<|im_start|>", "<|im_end|>"]))


def test_marks_that_a_recipe_names_stay_where_they_are_special_tokens(tmp_path: Path) -> None:
    folder = renamed_marks(MODELS / "teacher", tmp_path / "model")
    request = ask(0, Sampling(max_tokens=400))
    request.messages[0]["content"] = (
        "State the final answer to the following arithmetic problem: 47 + 38 - 12 ="
    )
    for marks in ((), ("<r>", "</r>")):
        text = answers(folder, [request], 1, marks=marks)["0"].text
        assert split(text, None, ("<r>", "</r>")).form == ("closed" if marks else "none"), text
        assert "<|im_end|>" not in text


def test_what_a_model_folder_lacks_is_named(model: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(model, tmp_path / name))

    (copy("no-template") / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        opened(tmp_path / "no-template", 1).__enter__()

    folder = copy("no-end")
    (folder / "generation_config.json").unlink()
    for name, key in (("config.json", "eos_token_id"), ("tokenizer_config.json", "eos_token")):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({k: v for k, v in content.items() if k != key}))
    with pytest.raises(InputError, match="no end token"):
        opened(folder, 1).__enter__()

    (copy("no-weights") / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot load the model no-weights"):
        opened(tmp_path / "no-weights", 1).__enter__()
    with pytest.raises(InputError, match="cannot load the model nothing"):
        opened(tmp_path / "nothing", 1).__enter__()


LINEAR = {
    "num_hidden_layers": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 12,
}
HYBRID: dict[str, dict[str, Any]] = {
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


@pytest.mark.parametrize("kind", ["qwen3_5_text", slow("qwen3_next")])
def test_layers_that_slots_cannot_hold_are_decoded_in_rounds(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / kind, kind, **HYBRID[kind])
    requests = [ask(i, Sampling(max_tokens=5 + i * 7 % 30)) for i in range(9)]
    wanted = one_by_one(folder, requests)
    found = answers(folder, requests, batch_size=4)
    assert {key: response.token_ids for key, response in found.items()} == wanted
    assert len({len(ids) for ids in wanted.values()}) > 2, "some end before others"
    # Sampling draws per request: what is decoded beside it changes nothing.
    drawn = [ask(i, Sampling(max_tokens=20, temperature=1.0)) for i in range(6)]
    together, alone = answers(folder, drawn, batch_size=6), answers(folder, drawn, batch_size=1)
    assert [together[r.key].token_ids for r in drawn] == [alone[r.key].token_ids for r in drawn]


@pytest.mark.parametrize("kind", ["qwen3_5", "mistral3"])
def test_models_that_see_answer_texts(kind: str, model: Path, tmp_path: Path) -> None:
    """As Qwen3.5 and Ministral 3 are published: the second has no class of text alone in transformers."""
    folder = save_seeing(model, tmp_path / kind, kind)
    requests = [ask(i, Sampling(max_tokens=5 + i * 7 % 30)) for i in range(6)]
    found = answers(folder, requests, batch_size=4)
    assert {key: response.token_ids for key, response in found.items()} == one_by_one(folder, requests)


def test_a_cache_that_is_not_transformers_own_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "mamba", state_size=4)
    with pytest.raises(EngineError, match=r"layers of its own kind .*vLLM"):
        opened(folder, 1).__enter__()


def test_requests_are_drawn_as_slots_become_free(model: Path) -> None:
    drawn = 0

    def requests() -> Iterator[Request]:
        nonlocal drawn
        for drawn in range(1000):
            yield ask(drawn % 20, Sampling(max_tokens=4 + drawn % 8))

    async def some() -> int:
        with opened(model, 8) as engine:
            stream = engine.stream(requests())
            for _ in range(40):
                await anext(stream)
            return drawn

    assert asyncio.run(some()) <= 40 + 3 * 8


def test_an_error_of_the_requests_reaches_the_reader(model: Path) -> None:
    def requests() -> Iterator[Request]:
        yield ask(1)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        answers(model, requests(), batch_size=2)


def test_products_are_in_full_float32_and_their_setting_is_put_back(model: Path) -> None:
    import torch

    settings: Any = vars(torch.backends)["mkldnn"].matmul
    before = settings.fp32_precision
    answers(model, [Request("a", [{"role": "user", "content": "47 + 38 ="}], Sampling(max_tokens=8), 0)], 2)
    assert settings.fp32_precision == before
    left, right = torch.randn(200, 128), torch.randn(128, 320)
    with matmul_precision(fastest_matmul_precision()):
        found = left @ right
    torch.testing.assert_close(found.double(), left.double() @ right.double(), rtol=0, atol=1e-4)
