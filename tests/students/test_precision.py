"""What is looked at before and while a student trains: layout, precision, movement, the base's own files."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from students_support import SFT, context, rows, uneven
from tiny_model import HYBRID, save_tiny_model

from hubkit.errors import GateError, RecipeError
from hubkit.students import exact, kernels, student, watch


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("hybrid"), "qwen3_5_text", **HYBRID)


@pytest.mark.skipif(bool(importlib.util.find_spec("fla")), reason="its kernels would be exact")
def test_a_hybrid_model_without_its_kernels_is_not_packed_and_that_is_said(
    hybrid: Path, tmp_path: Path
) -> None:
    """Packed, its second example would read the first one's state; padded it does not."""
    steps = {}
    for layout in ("packed", "padded"):
        steps[layout] = context(tmp_path / layout, uneven(), model=hybrid)
        steps[layout].runtime["layout"] = layout
        student.run(steps[layout])
    metrics = steps["packed"].metrics
    assert metrics["layout"] == "padded" and metrics["layout_difference"] < 1e-3
    assert "examples are padded, not packed: packed with sdpa a logit is off by" in metrics["layout_note"]
    assert steps["padded"].metrics["layout_note"] == ""
    first, second = (load_file(step.out / "model" / "model.safetensors") for step in steps.values())
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name])


@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text", "qwen3_5_text"])
def test_padding_that_no_mask_tells_of_changes_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where torch's fast attention takes no mask: full attention, sliding windows, gated delta nets."""
    model = save_tiny_model(tmp_path / "model", kind, **(HYBRID if "qwen3_5" in kind else {}))
    students = []
    for masked in (True, False):
        layout = exact.Layout(packed=False, tokens=200, masked=masked)
        monkeypatch.setattr(exact, "_layouts", lambda *_, layout=layout: [("sdpa", layout)])
        # Without Adam's division by the size of gradients, which makes steps out of rounding.
        plain = SFT | {"optim": "sgd", "learning_rate": 0.01, "warmup_steps": 0}
        step = context(tmp_path / str(masked), uneven(), model=model, sft=plain)
        student.run(step)
        assert step.metrics["layout_difference"] < 1e-5
        students.append(load_file(step.out / "model" / "model.safetensors"))
    for name, tensor in students[0].items():
        torch.testing.assert_close(tensor, students[1][name], rtol=1e-4, atol=1e-5)


def test_the_fastest_exact_layout_is_tried_first() -> None:
    names = kernels.ATTENTION["cuda"]
    tried = exact._layouts(names, "auto", "cuda")
    assert [(name, how.packed, how.masked) for name, how in tried[:4]] == [
        *((name, True, True) for name in kernels.FLASH),
        ("sdpa", False, False),
    ]
    assert all(how.packed for _, how in exact._layouts(names, "packed", "cuda")[: len(names)])
    assert not any(how.packed for _, how in exact._layouts(names, "padded", "cuda"))
    on_cpu = exact._layouts(("sdpa",), "auto", "cpu")
    assert [(name, how.packed, how.masked) for name, how in on_cpu] == [("sdpa", False, True)]


@pytest.mark.slow
@pytest.mark.skipif(bool(importlib.util.find_spec("fla")), reason="its kernels would be exact")
def test_what_two_processes_are_warned_of_is_told(
    hybrid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = context(tmp_path, uneven(), 2, model=hybrid)
    step.runtime["layout"] = "packed"
    student.run(step)
    told = capsys.readouterr().err
    assert told.count("warning: student: examples are padded, not packed") == 1
    assert "falling back to its reference PyTorch implementation" in told, "transformers' own"


def test_fsdp_finds_the_blocks_of_a_family_that_sees(hybrid: Path) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from transformers import AutoModelForCausalLM

    from hubkit.students.loading import keep_blocks_that_exist

    model: Any = AutoModelForCausalLM.from_pretrained(hybrid)
    keep_blocks_that_exist(model)
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(model)
    assert model._no_split_modules == {"Qwen3_5DecoderLayer"}


def test_attention_that_is_not_there_is_told(dense: Path, tmp_path: Path) -> None:
    step = context(tmp_path, uneven(), model=dense)
    step.runtime["attention"] = "flash_attention_3"
    with pytest.raises(RecipeError, match=r"run.attention: flash_attention_3 does not run here") as told:
        student.run(step)
    assert "leave run.attention out" in told.value.remedy


def test_training_that_moves_nothing_stops(dense: Path, tmp_path: Path) -> None:
    from students_support import SFT

    step = context(tmp_path, uneven(), model=dense, sft=SFT | {"learning_rate": 1e-30})
    with pytest.raises(GateError, match=r"after 6 steps 0.0% of the weights have changed"):
        student.run(step)


def test_a_last_gradient_that_is_not_finite_stops_too(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 101 steps every second one is logged, and the last one was not looked at."""
    from students_support import SFT
    from transformers import Trainer

    norm = Trainer._get_grad_norm

    def last(self: Any, model: Any, grad_norm: Any = None) -> Any:
        return float("nan") if self.state.global_step == 100 else norm(self, model, grad_norm=grad_norm)

    monkeypatch.setattr(Trainer, "_get_grad_norm", last)
    sft = SFT | {"max_steps": 101, "per_device_train_batch_size": 1}
    with pytest.raises(GateError, match="the gradient is not finite at step 101"):
        student.run(context(tmp_path, rows(), model=dense, sft=sft))


def test_a_gradient_that_is_not_finite_stops(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "base")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GateError, match=r"not finite|is nan"):
        student.run(context(tmp_path, uneven(), model=model))


def test_a_checkpoint_that_lacks_weights_is_told_but_not_of_tied_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tied weights are stored once: without their second name a checkpoint is whole."""
    from support import MODELS

    from hubkit.students.gates import open_tokenizer
    from hubkit.students.loading import open_trainer
    from hubkit.students.rows import TokenRows

    base, step = MODELS / "student-s", context(tmp_path, uneven())
    rows = TokenRows(step.inputs["tokens"], step.inputs["rows"], 256, 0.0)
    trainer, _ = open_trainer(step, base, open_tokenizer(base), rows)
    trainer.save_model(str(tmp_path / "checkpoint"))
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert "lm_head.weight" not in weights
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
        assert "missing" not in caplog.text
        del weights["model.norm.weight"]
        save_file(weights, tmp_path / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
        trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "missing keys" in caplog.text and "model.norm.weight" in caplog.text
    assert "lm_head" not in caplog.text


def test_precision_is_not_that_of_an_accelerate_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate config` writes one into its file, and `accelerate launch` hands it on by the environment."""
    from students_support import SFT
    from support import MODELS

    from hubkit.students.gates import open_tokenizer
    from hubkit.students.loading import open_trainer
    from hubkit.students.rows import TokenRows

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    base, step = MODELS / "student-s", context(tmp_path, uneven(), sft=SFT | {"bf16": False})
    rows = TokenRows(step.inputs["tokens"], step.inputs["rows"], 256, 0.0)
    trainer, _ = open_trainer(step, base, open_tokenizer(base), rows)
    assert step.metrics["precision"] == "float32" and trainer.accelerator.mixed_precision == "no"


def test_bfloat16_weights_need_an_optimizer_that_keeps_updates(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from students_support import SFT

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchao" else found(name))
    step = context(tmp_path, uneven(), model=dense, sft=SFT | {"weights": "bfloat16"})
    with pytest.raises(RecipeError, match="torchao is not installed"):
        student.run(step)


@pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="needs torchao")
def test_bfloat16_weights_move_by_chance_where_they_would_round_to_nothing(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from students_support import SFT

    from hubkit.students import loading

    sft = SFT | {"learning_rate": 1e-5, "num_train_epochs": 4, "weights": "bfloat16"}
    step = context(tmp_path / "chance", uneven(), model=dense, sft=sft)
    student.run(step)
    assert 0.02 < step.metrics["weights_moved"] < 0.5
    monkeypatch.setattr(
        loading, "rounding_optimizer", lambda given: (torch.optim.AdamW, {"lr": given.learning_rate})
    )
    plain = context(tmp_path / "plain", uneven(), model=dense, sft=sft)
    student.run(plain)
    assert plain.metrics["weights_moved"] < step.metrics["weights_moved"] / 4


def test_a_model_without_sdpa_trains_with_eager_attention(tmp_path: Path) -> None:
    """gpt-oss, whose sinks sdpa does not have: no attention that was tried on a CPU ran it."""
    base = save_tiny_model(
        tmp_path / "base", "gpt_oss", num_local_experts=4, num_experts_per_tok=2, sliding_window=16
    )
    step = context(tmp_path, uneven(), model=base)
    step.runtime["layout"] = "packed"
    student.run(step)
    assert (step.metrics["attention"], step.metrics["layout"]) == ("eager", "padded")
    assert step.metrics["layout_difference"] < 1e-3
    assert step.metrics["layout_note"].startswith(
        "examples are padded, not packed: packed with eager a logit is off"
    )
    sinks = {
        name: w for name, w in load_file(step.out / "model" / "model.safetensors").items() if "sinks" in name
    }
    before = load_file(base / "model.safetensors")
    assert sinks and all((w != before[name]).any() for name, w in sinks.items())


def test_weights_that_zero_3_parts_are_compared_by_their_parts() -> None:
    """The weights themselves are empty then: nothing was compared, and the gate let everything pass."""
    model: Any = torch.nn.Linear(300, 50, bias=False)
    model.get_input_embeddings = lambda: None
    model.weight.ds_tensor = torch.nn.Parameter(model.weight.data.flatten()[:7500].clone())
    model.weight.data = torch.empty(0)
    sample = watch.WeightSample(model)
    assert sample.changed() == (0, 7500)
    model.weight.ds_tensor.data += 1
    assert sample.changed() == (7500, 7500)


def test_a_gate_that_could_not_look_says_so(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        watch.WeightSample, "_sample", staticmethod(lambda weight: weight.detach().flatten()[:0])
    )
    step = context(tmp_path, uneven(), model=dense)
    student.run(step)
    assert step.metrics["weights_moved"] is None and step.metrics["gradient_norm"] > 0
    (told,) = json.loads((step.work / "warnings.json").read_text())
    assert told.startswith("whether weights move could not be looked at")


GENERATION: list[dict[str, Any]] = [
    {"temperature": 0.6, "top_p": 0.95},
    {"top_k": 20, "eos_token_id": [2, 5]},
    {"num_beams": 1, "early_stopping": True, "eos_token_id": 2},
]


@pytest.mark.parametrize("given", GENERATION)
def test_a_base_whose_generation_config_does_not_validate_trains(
    given: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import GenerationConfig

    model = save_tiny_model(tmp_path / "base")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 2} | given))
    step = context(tmp_path, uneven(), model=model)
    student.run(step)
    written = GenerationConfig.from_pretrained(step.out / "model")
    written.validate(strict=True)
    assert written.eos_token_id == given.get("eos_token_id", 2)
    if "temperature" in given:
        assert written.do_sample and written.temperature == 0.6
