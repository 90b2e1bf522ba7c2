"""Kernels that are missing or broken are told in one line, before a run and before training."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from students_support import SFT, context, uneven
from support import MODELS
from tiny_model import HYBRID, save_tiny_model

from hubkit.errors import RecipeError
from hubkit.store import CheckContext
from hubkit.students import kernels, preflight, student

BROKEN = "raise ImportError('libcudart.so.12: cannot open shared object file\\nsecond line')"


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("hybrid"), "qwen3_5_text", **HYBRID)


@pytest.fixture(autouse=True)
def asked_anew(tmp_path: Path) -> Iterator[None]:
    for function in (kernels.check_attention, kernels.tell_attention, kernels.check_linear):
        function.cache_clear()
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def installed(folder: Path, package: str, code: str) -> None:
    """A package as a folder on the path has it."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(code)


@pytest.mark.parametrize("package", ["fla", "causal_conv1d"])
def test_kernels_that_cannot_be_imported_are_refused(
    package: str, hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would say that they are not installed, and take reference code."""
    installed(tmp_path, package, BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        RecipeError, match=rf"b: {package} is installed and cannot be imported \(libcud"
    ) as told:
        kernels.check_linear(hybrid, "cpu", "b")
    assert "\n" not in str(told.value) and "pip uninstall" in told.value.remedy
    kernels.check_linear(save_tiny_model(tmp_path / "dense"), "cpu", "a")  # has no such layers


def test_what_a_gpu_lacks_is_told_with_its_cost(hybrid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        kernels.check_linear(hybrid, "cuda", "b")
        kernels.tell_attention("auto", "cuda")
        kernels.tell_attention("sdpa", "cuda")
        kernels.tell_attention("auto", "cpu")
        kernels.check_linear(hybrid, "cpu", "b")
    linear, flash = capsys.readouterr().err.splitlines()
    assert "(fla, causal_conv1d are not installed)" in linear and "1,100 tokens/s" in linear
    assert "flash_attn is not installed; kernels is not installed. torch's own is taken" in flash
    assert "padded, not packed" in flash and flash.endswith("pip install '.[kernels]'")


def test_a_gpu_that_lacks_the_convolution_alone_cannot_pack(
    hybrid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is on no package index as a wheel: the usual case of those who install the extra."""
    installed(tmp_path, "fla", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(kernels, "_fails", lambda *asked, **sizes: "")  # there is no GPU to ask
    kernels.check_linear(hybrid, "cuda", "b")
    [line] = capsys.readouterr().err.splitlines()
    assert "causal_conv1d is not installed" in line and "padded, not packed" in line and "1,100" not in line


def test_flash_attention_that_is_broken_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that cannot be imported, and one that can be and does not run."""
    installed(tmp_path, "flash_attn", BROKEN)
    installed(tmp_path, "kernels", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    kernels.tell_attention("auto", "cuda")
    [line] = capsys.readouterr().err.splitlines()
    assert "flash_attn is installed and cannot be imported (libcudart.so.12: cannot open" in line
    assert "kernels-community/flash-attn2 does not run here (" in line


def test_another_attention_is_taken_for_a_broken_one_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kernels.ATTENTION, "cpu", ("flash_attention_2", "sdpa"))
    for name, note in (("missing", ""), ("broken", "flash_attention_2 does not run here (")):
        step = context(tmp_path / name, uneven())
        if name == "broken":
            installed(tmp_path, "flash_attn", "")
            monkeypatch.syspath_prepend(str(tmp_path))
        student.run(step)
        assert step.metrics["attention"] == "sdpa" and step.metrics["layout"] == "padded"
        assert step.metrics["layout_note"].startswith(note) and bool(step.metrics["layout_note"]) == bool(
            note
        )


def test_an_attention_that_does_not_run_in_the_precision_of_training_is_told_before_the_run() -> None:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(module: Any, query: Any, *given: Any, **options: Any) -> Any:
        if query.dtype.itemsize > 2:
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        return sdpa_attention_forward(module, query, *given, **options)

    AttentionInterface.register("narrow_alone", attend)
    try:
        kernels.check_attention("narrow_alone", "cpu", True)
        with pytest.raises(RecipeError, match=r"narrow_alone does not run here \(FlashAttention only"):
            kernels.check_attention("narrow_alone", "cpu", False)
    finally:
        AttentionInterface._global_mapping.pop("narrow_alone")


@pytest.fixture
def forward_alone() -> Iterator[str]:
    """An attention without a backward pass. What it gives is right, and of a kernel torch says nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(*given: Any, **options: Any) -> tuple[Any, None]:
        return sdpa_attention_forward(*given, **options)[0].detach(), None

    AttentionInterface.register("forward_alone", attend)
    AttentionMaskInterface.register("forward_alone", sdpa_mask)
    yield "forward_alone"
    AttentionInterface._global_mapping.pop("forward_alone")
    AttentionMaskInterface._global_mapping.pop("forward_alone")


def test_an_attention_that_would_leave_weights_as_they_are_is_not_taken(
    forward_alone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that for gpt-oss leaves its sinks, and as one for inference would leave queries, keys and values."""
    monkeypatch.setitem(kernels.ATTENTION, "cpu", (forward_alone, "sdpa"))
    step = context(tmp_path / "a", uneven())
    student.run(step)
    assert step.metrics["attention"] == "sdpa"
    assert "forward_alone gives no gradient to " in step.metrics["layout_note"]
    assert "self_attn.k_proj.weight" in step.metrics["layout_note"]
    assert kernels.without_gradient("gpt_oss", "cpu", "eager") == ""
    step = context(tmp_path / "b", uneven())
    step.runtime["attention"] = forward_alone
    with pytest.raises(RecipeError, match=r"^run.attention: forward_alone gives no gradient to "):
        student.run(step)


@pytest.mark.parametrize(
    ("package", "sft"), [("torchao", {"weights": "bfloat16"}), ("liger_kernel", {"use_liger_kernel": True})]
)
def test_what_a_method_needs_and_is_broken_is_told(
    package: str, sft: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, package, BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = CheckContext(
        step="student/a",
        config={"sft": SFT | sft, "lora": None},
        runtime={"device": "cpu", "accelerate": {}},
        models={"base": {"model": str(MODELS / "student-s"), "revision": ""}},
        problems=set(),
        inputs=set(),
        here=True,
    )
    preflight._check_arguments.cache_clear()
    with pytest.raises(RecipeError, match=rf"{package} is installed and cannot be imported \(libcudart"):
        preflight.check(asked)
    preflight._check_arguments.cache_clear()


CALLED = """
import json, sys
from pathlib import Path
folder, base = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(folder), {tests!r}]
from students_support import context, uneven
from hubkit.errors import HubkitError
from hubkit.students import kernels, student
told = []
for ask in (
    lambda: kernels.check_linear(base, "cpu", "b"),
    lambda: student.run(context(folder / "run", uneven(), model=base)),
):
    try:
        ask()
        told.append(["passed", ""])
    except HubkitError as error:
        told.append([error.message, error.remedy])
print(json.dumps(told))
"""


@pytest.mark.parametrize(
    ("package", "function"), [("fla", "chunk_gated_delta_rule"), ("causal_conv1d", "causal_conv1d_fn")]
)
def test_a_kernel_whose_first_call_fails_stops_before_training(
    package: str, function: str, hybrid: Path, tmp_path: Path
) -> None:
    """As compiled kernels do on a device or with a torch that they were not made for."""
    code = (
        f"def {function}(*args, **more):\n    raise AssertionError('no kernel image is available\\nmore')\n"
    )
    installed(tmp_path, package, code)
    done = warm.run("-c", CALLED.format(tests=str(Path(__file__).parent.parent)), str(tmp_path), str(hybrid))
    assert done.returncode == 0, done.stderr[-2000:]
    before, within = json.loads(done.stdout.splitlines()[-1])
    assert before[0].startswith(
        f"students of b: its gated delta nets do not run on this CPU with {package}: no "
    )
    assert "pip uninstall" in before[1]
    assert (
        within[0]
        == "the model does not run on this device: sdpa does not run here (no kernel image is available)"
    )
    assert "install them again" in within[1]
