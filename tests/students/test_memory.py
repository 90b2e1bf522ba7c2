"""Memory is reckoned before training, and a micro-batch that does not fit is taken in parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import warm
from safetensors.torch import load_file
from students_support import LORA, SFT, context, rows, uneven
from support import MODELS
from tiny_model import save_tiny_model

from hubkit.errors import RecipeError, StepError
from hubkit.recipe import preflight as recipe_preflight
from hubkit.store import CheckContext
from hubkit.students import memory, preflight, student
from hubkit.students.limits import free_in_groups
from hubkit.students.memory import reckon, tokens_that_fit

NINE = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 248320,
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "tie_word_embeddings": False,
}
"""The shape of a hybrid model of nine billion parameters."""
FULL = SFT | {"learning_rate": 1e-5, "max_length": 32768, "gradient_checkpointing": True, "bf16": True}
FSDP = {"num_processes": 4, "distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}}


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its configuration alone, as preflight finds it of a model on the Hub."""
    from transformers import AutoConfig

    folder = tmp_path_factory.mktemp("nine")
    AutoConfig.for_model("qwen3_5_text", **NINE).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_disk_is_reckoned_as_it_is_written(lora: dict[str, Any] | None, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    step = context(tmp_path, uneven(), lora=lora)
    student.run(step)
    reckoned = memory.disk_of(MODELS / "student-s", step.config)
    (weights,) = (step.out / "model").glob("*.safetensors")
    assert reckoned.kept == pytest.approx(weights.stat().st_size, rel=0.1)
    (checkpoint,) = step.work.glob("checkpoints/checkpoint-*")
    written = sum(p.stat().st_size for p in checkpoint.iterdir() if p.suffix in (".safetensors", ".pt"))
    assert reckoned.work / 2 == pytest.approx(written, rel=0.02, abs=60_000)  # headers
    # A merged copy is as wide as the configuration says, float32, and not as the base was stored.
    base = AutoModelForCausalLM.from_pretrained(MODELS / "student-s", dtype=torch.float32)
    assert reckoned.merged == (4 * base.num_parameters() if lora else 0)


def test_the_peak_is_of_one_student_not_of_what_its_process_did_before() -> None:
    memory.begin_peak()
    torch.ones(100 << 20)
    before = memory.peak_bytes("cpu")
    memory.begin_peak()
    assert memory.peak_bytes("cpu") < before - (300 << 20)


def test_a_disk_that_is_too_small_for_students_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import NANO

    from hubkit.errors import InputError
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.plan import make_plan
    from hubkit.store import Store

    plan = make_plan(load_recipe(NANO), NANO, tmp_path)
    recipe_preflight.check(plan, Store(tmp_path))
    free = recipe_preflight.SPARE_BYTES + 2_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=r"students need .* GB for \d+ of them, .* for checkpoints"):
        recipe_preflight.check(plan, Store(tmp_path))


@pytest.mark.parametrize("lora", [None, LORA])
def test_weights_are_counted_by_the_models_own_modules(lora: dict[str, Any] | None) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(MODELS / "student-s", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora)) if lora else model
    shape = memory.shape_of(model.config, lora)
    assert shape.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    needs = reckon(MODELS / "student-s", {"sft": SFT, "lora": lora}, {}, False, "cpu", 100)
    assert needs is not None
    assert needs.gradients == 4 * shape.trained and needs.moments == 8 * shape.trained
    assert needs.weights == 4 * sum(p.numel() for p in model.parameters())


def test_nine_billion_parameters_are_laid_out_by_arithmetic(nine: Path) -> None:
    config = {"sft": FULL, "lora": None}
    alone = reckon(nine, config, {}, True, "cuda", 32768)
    spread = reckon(nine, config, {"accelerate": FSDP}, True, "cuda", 32768)
    adapter = reckon(nine, {"sft": FULL, "lora": LORA}, {}, True, "cuda", 32768)
    assert alone and spread and adapter
    parameters = alone.gradients // 4
    assert 8e9 < parameters < 10e9 and alone.moments == 2 * alone.gradients
    assert alone.total > 141e9, "float32 weights, gradients and moments do not fit the largest GPU of today"
    assert spread.gradients == parameters and spread.moments == 2 * parameters
    assert spread.total < 80e9
    assert adapter.gradients < 1e9 and adapter.total < 80e9
    # TRL's loss goes through the vocabulary in tiles: whole logits would be 32 GB.
    assert alone.logits < 3e9 < 32768 * NINE["vocab_size"] * 4


def needed(
    nine: Path, device: str = "cuda", accelerate: Any = None, lora: Any = None, **sft: Any
) -> memory.Needs:
    config, runtime = {"sft": FULL | sft, "lora": lora}, {"accelerate": accelerate or {}}
    needs = reckon(nine, config, runtime, True, device, 32768)
    assert needs
    return needs


def test_what_comes_and_goes_within_a_step_is_reckoned(nine: Path) -> None:
    """torch's foreach optimizers, the gradient of TRL's output layer, and what DDP and FSDP send were left out."""
    parameters, head = needed(nine).gradients // 4, NINE["vocab_size"] * NINE["hidden_size"]
    alone = needed(nine)
    # Adam's square roots of all weights, when the copies in bfloat16 are gone; a fused optimizer makes none.
    assert alone.optimizer == 4 * parameters - 2 * parameters - 4 * head
    fused = needed(nine, optim="adamw_torch_fused")
    assert fused.optimizer == 0 and fused.fixed == alone.fixed
    assert needed(nine, "cpu").optimizer == 0 and needed(nine, "cpu", bf16=False).head == 4 * head
    assert alone.head == 4 * head and needed(nine, lora=LORA).head == 0
    assert needed(nine, lora=LORA | {"modules_to_save": ["lm_head"]}).head == 4 * head
    # The logits of a tile in bfloat16; on a CPU eight of them in float32.
    assert alone.logits == 4096 * 32768 * 2 and needed(nine, "cpu").logits == 4096 * 32768 * 4 * 8
    assert needed(nine, loss_type="dft").logits == 32768 * NINE["vocab_size"] * 12
    # DDP's buckets are a copy of all gradients.
    assert needed(nine, accelerate={"num_processes": 4}).gradients == 2 * alone.gradients
    spread = needed(nine, accelerate=FSDP)
    gathered = spread.weights - parameters
    assert 2 * 2 * head < gathered < 4 * 2 * head, "embeddings and output layer in bfloat16, and a few layers"
    assert spread.head == (4 + 2) * head


def test_tokens_that_fit_pay_for_their_logits_up_to_a_tile() -> None:
    needs = memory.Needs(0, 100, 0, 0, 0, 0, 0, 0, per_token=1.0, per_tile_token=9.0)
    assert tokens_that_fit(needs, int((100 + 10 * 50) / memory.SLACK) + 1, 8192) == 50
    tile = memory.TILE[0]
    assert tokens_that_fit(needs, int((100 + 10 * tile + 1000) / memory.SLACK) + 1, 8192) == tile + 1000


def group(
    folder: Path, limit: str, most: int | str, used: str, now: int, begins: str = "", files: int = 0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit).write_text(f"{most}\n")
    (folder / used).write_text(f"{now}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{begins}inactive_file {files}\n{begins}active_file 5\n")


def test_a_job_of_a_cluster_has_the_memory_of_its_groups(tmp_path: Path) -> None:
    """The root was read alone, which has no limit, and cached files counted as used: a container that had downloaded a
    model had no memory left."""
    limit, used, own = "memory.max", "memory.current", tmp_path / "cgroup"
    own.write_text("0::/slurm/job_7/step_0\n")
    top = tmp_path / "2"
    group(top / "slurm" / "job_7" / "step_0", limit, "max", used, 50)
    assert free_in_groups(top, own) is None
    group(top / "slurm" / "job_7", limit, 1000, used, 900, files=600)
    assert free_in_groups(top, own) == 1000 - 900 + 605
    group(top / "slurm", limit, 500, used, 450)
    assert free_in_groups(top, own) == 55
    own.write_text("3:cpuset:/\n4:memory:/docker/abc\n0::/\n")
    top = tmp_path / "1"
    names = ("memory.limit_in_bytes", 800, "memory.usage_in_bytes", 700, "total_", 95)
    group(top / "memory", *names)  # as in a container, whose path is the machine's
    assert free_in_groups(top, own) == 200
    assert free_in_groups(top, tmp_path / "none") is None
    assert 0 < memory.free_bytes("cpu") <= psutil.virtual_memory().total


def checked(base: Path, method: dict[str, Any], **runtime: Any) -> None:
    preflight.check(
        CheckContext(
            step="student/a",
            config={"sft": FULL, "lora": None} | method,
            runtime={"device": "auto", "accelerate": {}} | runtime,
            models={"base": {"model": str(base), "revision": ""}},
            problems=set(),
            inputs=set(),
            here=False,
        )
    )


def test_what_cannot_fit_is_refused_before_the_run(nine: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"needs 1\d\d\.\d GB on each device and 141.0 GB are free: weights"
    ):
        checked(nine, {}, gpu_memory_gb=141)
    checked(nine, {}, gpu_memory_gb=141, accelerate=FSDP)
    checked(nine, {"lora": LORA}, gpu_memory_gb=141)
    checked(nine, {})  # nothing is known of the GPUs
    without = {"sft": FULL | {"gradient_checkpointing": False}, "lora": LORA}
    with pytest.raises(RecipeError) as told:
        checked(nine, without, gpu_memory_gb=141)
    assert "sft.gradient_checkpointing" in told.value.remedy


def test_tokens_at_once_follow_from_the_memory_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And change no step: the student is the one of a large machine."""
    plain = SFT | {"optim": "sgd", "learning_rate": 0.3, "warmup_steps": 0}
    large = context(tmp_path / "large", uneven(), sft=plain)
    student.run(large)
    assert large.metrics["tokens_per_device"] == 8192
    assert large.metrics["memory_bytes"] > 0 and large.metrics["peak_memory_bytes"] > 1e8
    needs = reckon(MODELS / "student-s", {"sft": plain, "lora": None}, {}, False, "cpu", 1)
    assert needs is not None
    free = int((needs.fixed + needs.logits + 200 * needs.per_token) / memory.SLACK)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    small = context(tmp_path / "small", uneven(), sft=plain)
    student.run(small)
    assert 100 < small.metrics["tokens_per_device"] < 300
    assert small.metrics["steps"] == large.metrics["steps"]
    first, second = (load_file(step.out / "model" / "model.safetensors") for step in (large, small))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needs.fixed // 2)
    with pytest.raises(RecipeError, match="GB are free"):
        student.run(context(tmp_path / "none", uneven(), sft=plain))
    assert tokens_that_fit(needs, 0, 8192) == 1


LIMITED = """
import resource, sys
from pathlib import Path
import torch
sys.path[:0] = {paths!r}
from students_support import SFT, context, uneven
from hubkit.students import student, watch
train, choose_layout = student._train, watch.choose_layout
torch.backends.mkldnn.set_flags(False)  # oneDNN crashes where it gets no memory for the code that it compiles

def limit():
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[3]) * 2**20, resource.RLIM_INFINITY))

def limited(context, trainer, examples):
    if sys.argv[4] == "from the start":
        limit()
    try:
        train(context, trainer, examples)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def chosen(*arguments):
    found = choose_layout(*arguments)
    if sys.argv[4] == "in training":
        limit()
    return found

student._train, watch.choose_layout = limited, chosen
sft = SFT | {{"optim": "sgd", "per_device_train_batch_size": 20, "num_train_epochs": 2}}
sft["gradient_checkpointing"] = "auto" if sys.argv[5] == "auto" else False
step = context(Path(sys.argv[1]), uneven(), model=Path(sys.argv[2]), sft=sft)
step.runtime |= {{"layout": "padded", "tokens_per_device": 8192}}
try:
    student.run(step)
    print(*(step.metrics[name] for name in ("steps", "tokens_per_device", "gradient_checkpointing")))
except Exception as error:
    print(type(error).__name__, error, getattr(error, "remedy", ""))
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Little weights, large activations: some 0.8 GB for a step of 20 examples."""
    return save_tiny_model(tmp_path_factory.mktemp("wide"), hidden_size=16, intermediate_size=16384)


def limited(
    folder: Path, model: Path, megabytes: int, when: str = "from the start", checkpointing: str = ""
) -> str:
    here = Path(__file__).parent
    code = LIMITED.format(paths=[str(here.parent), str(here)])
    done = warm.run("-c", code, str(folder), str(model), str(megabytes), when, checkpointing)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_a_step_that_memory_ran_out_on_is_taken_in_parts(wide: Path, tmp_path: Path) -> None:
    steps, tokens, checkpointing = limited(tmp_path, wide, 400).split()
    assert steps == "2" and 100 < int(tokens) < 2000 and checkpointing == "False"


def test_activations_are_computed_twice_before_a_step_is_taken_in_parts(tmp_path: Path) -> None:
    """The estimate saw no need of it: most of this machine's memory is free, and the limit is the process's own."""
    deep = save_tiny_model(tmp_path / "deep", hidden_size=16, intermediate_size=4096, num_hidden_layers=16)
    steps, tokens, checkpointing = limited(tmp_path / "a", deep, 500, checkpointing="auto").split()
    assert (steps, checkpointing) == ("2", "True") and int(tokens) >= 580


def test_activations_are_computed_twice_if_they_do_not_fit_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = SFT | {"gradient_checkpointing": "auto", "optim": "sgd", "learning_rate": 0.3, "warmup_steps": 0}
    large = context(tmp_path / "large", uneven(), sft=auto)
    student.run(large)
    assert large.metrics["gradient_checkpointing"] is False
    once = {"sft": auto | {"gradient_checkpointing": False}, "lora": None}
    needs = reckon(MODELS / "student-s", once, {}, False, "cpu", 4096)
    assert needs is not None
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(needs.total / memory.SLACK) - 1)
    small = context(tmp_path / "small", uneven(), sft=auto)
    student.run(small)
    assert small.metrics["gradient_checkpointing"] is True
    first, second = (load_file(step.out / "model" / "model.safetensors") for step in (large, small))
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-5)


def test_an_example_that_does_not_fit_says_which_setting_to_lower(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", hidden_size=16, intermediate_size=1 << 18)
    told = limited(
        tmp_path / "a", model, 60, "in training"
    )  # a layer's widest numbers of an example take 120 MB
    assert (
        told.startswith("StepError")
        and "out of memory on the device with" in told
        and "tokens at once" in told
    )
    assert "lower sft.max_length" in told and "run.accelerate" in told
    told = limited(tmp_path / "b", model, 60)  # not even the two short texts that layouts are compared by
    assert told.startswith("StepError") and "out of memory on the device before training" in told
    assert "lora" in told and "run.accelerate" in told


def test_memory_that_runs_out_between_steps_says_which_setting_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's moments, and the copy of them that its foreach form makes, come when the first gradients are there."""

    def step(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 3.20 GiB.\nof the allocated memory"
        )

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(
        StepError, match=r"^student: out of memory: CUDA out of memory. Tried to [^\n]*$"
    ) as told:
        student.run(context(tmp_path, rows()))
    assert "lora" in told.value.remedy and "run.accelerate" in told.value.remedy


def test_a_plan_reckons_tokens_and_rows(tmp_path: Path) -> None:
    from support import ROOT

    from hubkit.recipe.estimate import estimate_all
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.pipeline import status
    from hubkit.recipe.plan import make_plan
    from hubkit.store import Store

    path = ROOT / "recipes" / "nano" / "recipe.yaml"
    plan = make_plan(load_recipe(path), path, tmp_path)
    found = estimate_all(plan, Store(tmp_path), status(plan, Store(tmp_path)))
    tokens = [guess for name, guess in found.items() if name.startswith("tokens/")]
    assert tokens and all(guess.tokens and guess.bytes and guess.bytes > guess.tokens for guess in tokens)
    assert all(guess.bytes for name, guess in found.items() if name.startswith("rows/"))
    json.dumps([guess.__dict__ for guess in found.values()])


def test_what_is_left_of_a_run_for_another_hub_is_reckoned(tmp_path: Path) -> None:
    """A run that goes on asks for the steps that are not done; what they publish of the others is not among them."""
    from support import NANO

    from hubkit.recipe.estimate import estimate_all
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.pipeline import status
    from hubkit.recipe.plan import make_plan
    from hubkit.store import Store

    values = ["hub.endpoint=https://huggingface.co", "hub.namespace=someone"]
    plan, store = make_plan(load_recipe(NANO, values), NANO, tmp_path), Store(tmp_path)
    left = status(plan, store)[-3:]
    assert left[-1].step.kind == "publish"
    assert estimate_all(plan, store, left)["publish"].seconds
