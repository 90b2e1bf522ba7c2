"""Training with the real TRL and PEFT, on the shipped base and a handful of traces."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from safetensors.torch import load_file
from students_support import LORA, SFT, context, rows, uneven
from support import MODELS, slow

from hubkit.errors import GateError, RecipeError
from hubkit.processes import free_ports
from hubkit.store import StepContext, digest_folder
from hubkit.students import student
from hubkit.students.launch import check_accelerate


def test_full_fine_tuning(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    step = context(tmp_path, rows())
    student.run(step)
    assert step.counts == {"rows": 20}, "only matched rows are trained on"
    metrics = step.metrics
    assert metrics["trainable_parameters"] == metrics["parameters"] == 279_360
    assert metrics["steps"] == 10 and 0 < metrics["loss_tokens"] < metrics["train_tokens"]
    log = json.loads((tmp_path / "student" / "out" / "training.json").read_text())
    assert metrics["weights_moved"] > 0.99 and metrics["gradient_norm"] > 0
    assert metrics["attention"] == "sdpa" and metrics["layout_note"] == ""
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    names = {path.name for path in (tmp_path / "student" / "out" / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"README.md", "training_args.bin", "optimizer.pt"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "student" / "out" / "model")
    assert model.num_parameters() == 279_360
    assert AutoTokenizer.from_pretrained(tmp_path / "student" / "out" / "model").chat_template


def test_lora_is_an_adapter_on_the_base(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    step = context(tmp_path, rows(), lora=LORA)
    student.run(step)
    assert 0 < step.metrics["trainable_parameters"] < step.metrics["parameters"] / 2
    folder = tmp_path / "student" / "out" / "model"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "s" and config["r"] == 4
    layers = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_modules"] == layers, "in any order the digest of a student would be chance"
    assert not (folder / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(MODELS / "student-s")
    loaded = PeftModel.from_pretrained(base, folder)
    trained = [p for n, p in loaded.named_parameters() if "lora_B" in n]
    assert trained and any(bool(p.abs().sum() > 0) for p in trained)


def test_the_same_seed_gives_the_same_student(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        step = context(tmp_path / name, rows())
        student.run(step)
        found.append(digest_folder(step.out))
    assert found[0] == found[1]


# Without Adam's division by the size of gradients, which makes steps out of the rounding of those that are nothing.
PLAIN = SFT | {"optim": "sgd", "learning_rate": 0.3, "warmup_steps": 0}
FSDP = {
    "num_processes": 2,
    "distributed_type": "FSDP",
    "fsdp_config": {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    },
}
ON_GPU = {"device": "cuda", "precision": "float32", "attention": "sdpa"}
"""As on a CPU: in bfloat16 two layouts differ by more than an error would."""
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"layout": "padded"},
    "padded, a few tokens at once": {"layout": "padded", "tokens_per_device": 90},
    "packed": {"layout": "packed"},
    "packed, a few tokens at once": {"layout": "packed", "tokens_per_device": 90},
    "two processes, padded": {"accelerate": {"num_processes": 2}, "layout": "padded"},
    "two processes that share the weights": {"accelerate": FSDP, "layout": "padded"},
    "two processes that share the weights, packed": {
        "accelerate": FSDP,
        "layout": "packed",
        "tokens_per_device": 90,
    },
    "eight processes": {"accelerate": {"num_processes": 8}, "layout": "padded"},
    "two processes, packed": {
        "accelerate": {"num_processes": 2},
        "layout": "packed",
        "tokens_per_device": 90,
    },
    "on a GPU, padded": ON_GPU | {"layout": "padded"},
    "on a GPU, packed": ON_GPU | {"layout": "packed", "tokens_per_device": 90},
}
HOW = ("layout", "layout_difference", "tokens_per_device", "memory_bytes", "peak_memory_bytes")
# Several processes take ten seconds to start; one such pair is always run.
SLOW = [(layout, method) for layout in LAYOUTS if "processes" in layout for method in ("full", "lora")][:-1]


def marks(layout: str, method: str) -> list[pytest.MarkDecorator]:
    found = [pytest.mark.slow] if (layout, method) in SLOW else []
    if "GPU" in layout:
        found.append(pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StepContext]:
    """One student with all its weights and one with an adapter, each example in a micro-batch of its own."""
    made = {}
    for name, lora in (("full", None), ("lora", LORA)):
        made[name] = context(tmp_path_factory.mktemp(name), uneven(), lora=lora, sft=PLAIN)
        made[name].runtime |= {"layout": "padded", "tokens_per_device": 1}
        student.run(made[name])
    return made


@pytest.mark.parametrize(
    ("layout", "method"),
    [
        pytest.param(layout, method, marks=marks(layout, method))
        for layout in LAYOUTS
        for method in ("full", "lora")
    ],
)
def test_a_student_does_not_depend_on_how_its_examples_are_laid_out(
    method: str, layout: str, trained: dict[str, StepContext], tmp_path: Path
) -> None:
    one = trained[method]
    step = context(tmp_path, uneven(), lora=LORA if method == "lora" else None, sft=PLAIN)
    step.runtime |= LAYOUTS[layout]
    student.run(step)
    if "processes" in layout:
        last = 7 if layout.startswith("eight") else 1
        assert list(step.work.glob(f"checkpoints/*/rng_state_{last}.pth")), "there was a second process"
        shared = list(step.work.glob("checkpoints/*/pytorch_model_fsdp_0/*.distcp"))
        assert len(shared) == (2 if "share the weights" in layout else 0), "each process wrote its part"
    assert step.metrics["device"] == ("cuda" if "GPU" in layout else "cpu")
    how = dict.fromkeys(
        ("device", "train_seconds", "train_cpu_seconds", "final_loss", "gradient_norm", "weights_moved", *HOW)
    )
    assert step.metrics | how == one.metrics | how
    assert step.metrics["layout"] == ("packed" if "packed" in layout else "padded")
    rounding = 10 if "GPU" in layout else 1  # other kernels add in another order
    assert step.metrics["layout_difference"] < 1e-5 * rounding
    assert step.metrics["weights_moved"] == pytest.approx(one.metrics["weights_moved"], abs=1e-3)
    assert step.metrics["gradient_norm"] == pytest.approx(one.metrics["gradient_norm"], rel=1e-3)
    assert step.metrics["final_loss"] == pytest.approx(one.metrics["final_loss"], rel=1e-4 * rounding)
    assert step.counts == one.counts == {"rows": 20}
    files = [sorted(p.name for p in (made.out / "model").iterdir()) for made in (step, one)]
    assert files[0] == files[1]
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    weights, same = (load_file(made.out / "model" / name) for made in (step, one))
    assert weights.keys() == same.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, same[key], rtol=1e-4 * rounding, atol=1e-5 * rounding)


SHARED_OUT = """
import json, os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}]
os.environ |= {{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": {port!r}}}
os.environ |= {{"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}}
import torch
from torch.distributed.fsdp import FSDPModule
from test_student import PLAIN, context, uneven
from hubkit.students.gates import open_tokenizer
from hubkit.students.loading import open_trainer
from hubkit.students.rows import TokenRows

step = context(Path(sys.argv[1]), uneven(), sft=PLAIN | {{"max_steps": 1}})
step.runtime |= {{"layout": "packed", "tokens_per_device": 90, "precision": "bfloat16"}}
base, rows = step.model("base"), TokenRows(step.inputs["tokens"], step.inputs["rows"], 256, 0.0)
trainer, _ = open_trainer(step, base, open_tokenizer(base), rows)
held, found, once = [], [], trainer._prepare_inputs
FSDPModule.set_requires_gradient_sync = lambda self, wanted: held.append(not wanted)

def seen(inputs):
    model = trainer.model_wrapped
    whole = all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    found.append((isinstance(model, FSDPModule), whole))
    return once(inputs)

trainer._prepare_inputs = seen
trainer.train()
policy = trainer.accelerator.state.fsdp_plugin.mixed_precision_policy
print(json.dumps([found, sum(held), str(policy.param_dtype), str(policy.reduce_dtype)]))
"""


def test_gradients_of_weights_that_are_shared_out_are_summed_up_in_parts(tmp_path: Path) -> None:
    """Held back until the last micro-batch, as without FSDP, they are whole in every process: 18 GB of nine billion."""
    here = Path(__file__).parent
    code = SHARED_OUT.format(tests=str(here.parent), here=str(here), port=str(*free_ports()))
    done = warm.run("-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    found, held, *dtypes = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) > 2, "a step of several micro-batches"
    assert found == [[True, False]] + [[True, True]] * (len(found) - 1) and held == 0
    assert dtypes == ["torch.bfloat16", "torch.float32"], "of products, and of what processes add up"


def test_accumulated_steps_are_one_step(trained: dict[str, StepContext], tmp_path: Path) -> None:
    """Examples per step are the product of the two, whatever is on a device at once."""
    sft = PLAIN | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    step = context(tmp_path, uneven(), sft=sft)
    student.run(step)
    assert step.metrics["steps"] == trained["full"].metrics["steps"] == 10
    weights, same = (load_file(made.out / "model" / "model.safetensors") for made in (step, trained["full"]))
    for key, tensor in weights.items():
        torch.testing.assert_close(tensor, same[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "told"), [({"fsdp": 2}, "unknown keys"), ({"distributed_type": "DDP"}, "'DDP' is not a valid")]
)
def test_what_accelerate_does_not_take_is_told_beforehand(
    given: dict[str, Any], told: str, tmp_path: Path
) -> None:
    check_accelerate({"num_processes": 2}, tmp_path)
    with pytest.raises(RecipeError, match=f"run.accelerate: .*{told}"):
        check_accelerate({"num_processes": 2} | given, tmp_path)


def test_checkpoints_that_another_layout_of_processes_left_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sharded ones do not hold what a single process looks for, nor the other way round."""
    step = context(tmp_path, rows(), sft=SFT | {"num_train_epochs": 1})
    left = step.work / "checkpoints" / "checkpoint-3"
    left.mkdir(parents=True)
    (left / "trainer_state.json").write_text('{"global_step": 3}')
    (step.work / "form.json").write_text('"FSDP, SHARDED_STATE_DICT"')
    student.run(step)
    assert step.metrics["steps"] == 5 and "it begins again" in capsys.readouterr().err
    student.run(step)
    assert "begins again" not in capsys.readouterr().err, "its own it reads"


@pytest.mark.parametrize("processes", [1, slow(2)])
def test_gates_come_before_training(processes: int, tmp_path: Path) -> None:
    step = context(tmp_path, rows(), processes, sft=SFT | {"max_length": 12})
    with pytest.raises(GateError):
        student.run(step)
    assert not (tmp_path / "student" / "work" / "checkpoints").exists()


RESUMED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}]
from test_student import SFT, context, rows, student
sft = SFT | {{"num_train_epochs": 24, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}}
step = context(Path(sys.argv[1]), rows(), sft=sft)
step.runtime["accelerate"] = {accelerate}
student.run(step)
print(step.metrics["steps"], step.metrics["train_seconds"])
"""


@pytest.mark.timeout(900)  # on a busy machine a process takes minutes to its first checkpoint
@pytest.mark.parametrize(
    "processes",
    [1, slow(2), slow(FSDP, id="FSDP")],
)
def test_a_killed_training_goes_on_from_its_checkpoint(
    processes: int | dict[str, Any], tmp_path: Path
) -> None:
    here = Path(__file__).parent
    accelerate = {"num_processes": 2} if processes == 2 else {} if processes == 1 else processes
    code = RESUMED.format(tests=str(here.parent), here=str(here), accelerate=accelerate)
    command = ["-c", code, str(tmp_path)]
    process = warm.Python(*command)
    checkpoints = tmp_path / "student" / "work" / "checkpoints"
    until = time.monotonic() + 280
    while not list(checkpoints.glob("checkpoint-*/trainer_state.json")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while _at_work(tmp_path) and time.monotonic() < until:  # what it had started ends with it
        time.sleep(0.05)
    assert not _at_work(tmp_path)
    # A torn one, as a kill within a save leaves it, is not trusted.
    (checkpoints / "checkpoint-9999").mkdir()
    (checkpoints / "checkpoint-9999" / "trainer_state.json").write_text('{"global_st')
    reached = [int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*")]
    done = warm.run(*command, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "missing keys" not in done.stderr, (
        "its output layer is tied to its embeddings, and stored with them"
    )
    assert done.stdout.split()[0] == "120"
    log = json.loads((tmp_path / "student" / "out" / "training.json").read_text())
    assert [entry["step"] for entry in log if "loss" in entry] == sorted(
        {entry["step"] for entry in log if "loss" in entry}
    )
    assert min(reached) >= 1 and not (checkpoints / "checkpoint-9999").exists()


def _at_work(folder: Path) -> list[str]:
    """Command lines of processes that have the folder as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text().replace("\0", " "))
    return [line for line in found if str(folder) in line]
