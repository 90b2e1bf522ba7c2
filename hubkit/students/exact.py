"""Checks before training whether examples in one batch get the same logits as each alone.

The model itself is asked, on the device and in the precision of training. If the logits differ, as in hybrid models
whose kernels are missing (their fallback ignores where an example ends), another layout is taken, and that is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hubkit.errors import RecipeError, StepError, first_line
from hubkit.students.kernels import ATTENTION, FLASH, why_not, without_gradient
from hubkit.students.memory import ran_out
from hubkit.students.steps import Layout, collate

__all__ = ["TOLERANCE", "choose_layout", "difference"]

TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2}
"""Precision of products -> allowed difference of a logit, as a share of the largest logit. Rounding stays below a tenth
of it; the leaked state of another example makes 0.07 in float32 and 0.5 in bfloat16 on a random Qwen3.5. The limit does
not grow with depth: both layouts go through the same kernels. Random models of 64 layers differed by nothing on a CPU,
with weights eight times as large as usual by 0.014. Where two computations round alone the difference grows with
the square root of the depth: bfloat16 was off from float32 by 0.007 at 2 layers, and by 0.022 at 64. Beyond the limit a
slower layout is taken, and that is said."""
_LOST: Final = "gives no gradient to"
_REMEDY: Final = "leave run.attention out: the best that runs is taken"
LENGTHS: Final = (48, 31)
"""Tokens of the two examples: enough for a state to leak and to fill a kernel's blocks unevenly, and few enough to be
quick."""


def difference(trainer: Any, model: Any, rows: Sequence[Sequence[int]], layout: Layout) -> float:
    """Returns the largest difference of logits between rows in one batch and each alone, as a share of the largest
    logit."""
    import torch

    pad = trainer._tokenizer.pad_token_id

    def logits(batch: Sequence[Sequence[int]], how: Layout) -> Any:
        made = collate([{"input_ids": list(ids), "labels": list(ids)} for ids in batch], how, pad)
        made.pop("labels")
        inputs = trainer._prepare_inputs(made)
        with torch.no_grad(), trainer.compute_loss_context_manager():
            return model(**inputs, use_cache=False).logits.float()

    training = model.training
    model.eval()
    try:
        alone = [logits([ids], Layout(packed=False, tokens=1))[0] for ids in rows]
        found = logits(rows, layout)
    finally:
        model.train(training)
    if layout.packed:
        together = found[0].split([len(ids) for ids in rows])
    else:
        together = [found[place][: len(ids)] for place, ids in enumerate(rows)]
    worst = max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True))
    return worst / max(float(a.abs().max()) for a in alone)


def choose_layout(
    trainer: Any, model: Any, rows: Sequence[Sequence[int]], attention: str, wanted: str
) -> dict[str, Any]:
    """Set the trainer's layout to the best that is exact, and the model's attention to the best that runs it.

    Returns the values for the record: attention, layout, the difference, and a note if they are not those that were
    asked for. `rows` are token ids of two examples, `attention` and `wanted` are run.attention and run.layout. Raises
    RecipeError if the `attention` that was asked for does not run or would leave weights without a gradient, or if
    none runs.
    """
    layout: Layout = trainer.layout
    device = trainer.args.device.type
    names = ATTENTION.get(device, ("sdpa",)) if attention == "auto" else (attention,)
    precision = "bfloat16" if trainer.args.bf16 or next(model.parameters()).dtype.itemsize < 4 else "float32"
    limit, tried = TOLERANCE[precision], []
    rows = [list(ids[:length]) for ids, length in zip(rows, LENGTHS, strict=False)]
    inner = trainer.accelerator.unwrap_model(model)
    if attention == "auto" and not inner._supports_sdpa:
        # As for gpt-oss, whose sinks it does not have. Eager attention is last: it has all scores in memory.
        names = (*(name for name in names if name != "sdpa"), "eager")
    kind = inner.config.get_text_config().model_type
    for name, how in _layouts(names, wanted, device):
        found = "packed" if how.packed else "padded"
        # The attentions of torch itself need no such look.
        if name not in ("sdpa", "eager") and (lost := without_gradient(kind, device, name)):
            tried.append(f"{name} {_LOST} {lost}")
            if attention != "auto":
                raise RecipeError(f"run.attention: {tried[-1]}", _REMEDY)
            continue
        try:
            inner.set_attn_implementation(name)
            off = difference(trainer, model, rows, how)
        except Exception as error:  # of whatever kind a kernel's compiler, its driver or a download has
            if ran_out(error):
                raise StepError(
                    f"out of memory on the device before training, with {sum(LENGTHS)} tokens",
                    "train an adapter (lora), spread the model with run.accelerate, or take a smaller base",
                ) from error
            tried.append(f"{name} does not run here ({first_line(error, 120)})")
            continue
        # All processes take the same layout: that of the largest difference in any of them.
        off = float(trainer.accelerator.gather(_tensor(off, trainer)).max()) if _many(trainer) else off
        if off <= limit:
            layout.packed, layout.masked = how.packed, how.masked
            note = (
                "" if wanted in (found, "auto") else f"examples are {found}, not {wanted}: {'; '.join(tried)}"
            )
            note = note or "; ".join(dict.fromkeys(told for told in tried if _is_said(told)))
            return {"attention": name, "layout": found, "layout_difference": off, "layout_note": note}
        tried.append(f"{found} with {name} a logit is off by {off:.1%}")
    if all("does not run here" in told for told in tried):
        if attention != "auto":
            raise RecipeError(f"run.attention: {tried[-1]}", f"install it, or {_REMEDY}")
        raise RecipeError(
            f"the model does not run on this device: {tried[-1]}",
            "look at the packages and kernels that it names: install them again, or uninstall them",
        )
    layout.single, layout.packed, layout.masked = True, False, True
    note = f"each example is alone: {'; '.join(tried)}"
    return {"attention": inner.config._attn_implementation, "layout": "single", "layout_note": note}


def _layouts(names: Sequence[str], wanted: str, device: str) -> list[tuple[str, Layout]]:
    """Returns attentions with layouts in the order in which they are tried, those of `names` within a layout.

    auto is padded on a CPU, where packed attention takes three times as long. On a GPU it is packed with flash
    attention, else padded with torch's own: without a mask that is a fused kernel. flex_attention, which packs, too, is
    compiled again for other lengths.
    """

    def layouts(*kinds: Layout) -> list[tuple[str, Layout]]:
        return [(name, how) for how in kinds for name in names]

    tokens = sum(LENGTHS) * 2
    packed, padded = Layout(packed=True, tokens=tokens), Layout(packed=False, tokens=tokens)
    without_mask = (
        [("sdpa", Layout(False, tokens, masked=False))] if "sdpa" in names and device == "cuda" else []
    )
    if wanted == "packed":
        return layouts(packed) + without_mask + layouts(padded)
    if wanted == "padded" or device == "cpu":
        return without_mask + layouts(padded)
    fast = [(name, packed) for name in names if name in FLASH]
    return fast + without_mask + [each for each in layouts(packed) if each not in fast] + layouts(padded)


def _many(trainer: Any) -> bool:
    return bool(trainer.args.world_size > 1)


def _tensor(value: float, trainer: Any) -> Any:
    import torch

    return torch.tensor(value, device=trainer.args.device)


def _is_said(told: str) -> bool:
    """Whether the record says why an attention was not taken: not if its package is not installed."""
    package = FLASH.get(told.partition(" ")[0])
    missing = package is not None and why_not(package).endswith("is not installed")
    return not missing and (package is not None or "does not run here" not in told)
