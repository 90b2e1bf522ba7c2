"""Watches a student's training: progress, time, when a checkpoint is due, and whether weights change."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hubkit.errors import GateError
from hubkit.store import StepContext, write_json
from hubkit.students.exact import choose_layout

__all__ = ["MOVED", "WeightSample", "watcher"]

MOVED: Final = 0.1
"""Minimum share of weights that must have changed. Under Adam all float32 weights change; of bfloat16 weights that are
updated in place, a quarter changes at a learning rate of 1e-5."""
MOVED_BY_CHANCE: Final = 1e-3
"""The same with stochastic rounding of bfloat16 weights: at 1e-5 a weight of 0.5 changes in one step of two hundred, by
as much as two hundred steps together would have changed it."""
STEPS: Final = 6
"""Steps after the warm-up until that is checked."""
CHECKPOINT_S: Final = 2.0
"""Seconds to the first checkpoint, and the minimum between two: what a kill may cost."""
CHECKPOINT_SHARE: Final = 0.02
"""Share of the time for further checkpoints: those of large models take minutes."""
PER_TENSOR: Final = 4096
"""Weights of each tensor that are compared."""


class WeightSample:
    """A sample of each trainable tensor before training, to count later how many weights have changed.

    Embeddings are left out: rows of tokens that no example has do not change.
    """

    def __init__(self, model: Any) -> None:
        embeddings = model.get_input_embeddings()
        left_out = {id(weight) for weight in embeddings.parameters()} if embeddings is not None else set()
        self._weights = [p for p in model.parameters() if p.requires_grad and id(p) not in left_out]
        self._before = [self._sample(weight) for weight in self._weights]

    @staticmethod
    def _sample(weight: Any) -> Any:
        # Of a model that is spread over processes each compares its part: FSDP's are DTensors; ZeRO-3 leaves the weight
        # itself empty, and has the part beside it.
        local = getattr(weight, "ds_tensor", weight).detach()
        local = (local.to_local() if hasattr(local, "to_local") else local).flatten()
        return local[:: max(1, local.numel() // PER_TENSOR)].clone()

    def changed(self) -> tuple[int, int]:
        """Returns the number of weights that changed, and the number of weights compared."""
        pairs = [(self._sample(w), b) for w, b in zip(self._weights, self._before, strict=True)]
        return sum(int((now != then).sum()) for now, then in pairs), sum(b.numel() for _, b in pairs)


def watcher(context: StepContext, trainer: Any, examples: Sequence[Sequence[int]], resumed: bool) -> Any:
    """Returns a callback for the trainer; its `seconds()` are the training time, before and after kills.

    `examples` are two rows of tokens, for the check of the layout. Raises GateError during training if the gradient is
    not finite or is zero, or if weights do not change.
    """
    import torch
    from transformers import TrainerCallback

    spent: Path = context.work / "spent.json"
    before: dict[str, Any] = {"seconds": 0.0, "cpu_seconds": 0.0, "gate": {}}
    if resumed and spent.is_file():
        before |= json.loads(spent.read_text(encoding="utf-8"))
    clock, cpu = time.monotonic(), time.process_time()

    class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self.loss = 0.0
            self.gate: dict[str, Any] = before["gate"]
            self.sample: WeightSample | None = None
            self.look_at = 0
            self.saved_at = self.began = time.monotonic()
            self.interval = CHECKPOINT_S

        def seconds(self) -> dict[str, float]:
            return {
                "seconds": before["seconds"] + time.monotonic() - clock,
                "cpu_seconds": before["cpu_seconds"] + time.process_time() - cpu,
            }

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # First: a forward pass leaves some of a sharded model's weights gathered, which are not those that train.
            if not self.gate:
                self.sample = WeightSample(trainer.accelerator.unwrap_model(trainer.model_wrapped))
                left = state.max_steps - state.global_step
                warm = max(0, args.get_warmup_steps(state.max_steps) - state.global_step)
                self.look_at = state.global_step + min(left, warm + STEPS)
            asked = (context.runtime.get(name, "auto") for name in ("attention", "layout"))
            chosen = choose_layout(trainer, trainer.model_wrapped, examples, *asked)
            context.metrics.update(chosen)
            if chosen["layout_note"]:
                logging.getLogger("hubkit").warning("%s", chosen["layout_note"])

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
        ) -> None:
            logs = logs or {}
            self.loss = float(logs.get("loss", self.loss))
            self._check_finite(float(logs.get("grad_norm", 0.0)), state.global_step)

        def _check_finite(self, norm: float, step: int) -> None:
            if not math.isfinite(norm):
                raise GateError(
                    f"{context.step}: the gradient is not finite at step {step}",
                    "lower sft.learning_rate, or set sft.bf16: false",
                )

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                context.progress(state.global_step, state.max_steps, loss=self.loss)
            if self.sample is not None and state.global_step >= self.look_at:
                self._look(self.sample, state.global_step)
                self.sample = None
            if state.global_step < state.max_steps and self._is_due():
                self.began = time.monotonic()
                control.should_save = True

        def _is_due(self) -> bool:
            """Whether a checkpoint is: as the first process has it, since all of them write it."""
            due = time.monotonic() - self.saved_at >= self.interval
            if trainer.args.world_size > 1:
                due = bool(trainer.accelerator.gather(torch.tensor([due], device=trainer.args.device))[0])
            return due

        def _look(self, sample: WeightSample, step: int) -> None:
            counts = torch.tensor(sample.changed(), dtype=torch.float64, device="cpu")
            counts = trainer.accelerator.reduce(counts.to(trainer.args.device, torch.float32))
            moved = float(counts[0] / counts[1]) if counts[1] else None
            norm = float(trainer.gradient_norm)
            self.gate = {"gradient_norm": norm, "weights_moved": moved, "looked_at_step": step}
            if not math.isfinite(norm) or norm == 0:
                raise GateError(
                    f"{context.step}: the gradient's norm is {norm} after {step} steps: nothing is learned",
                    "look at sft.learning_rate, sft.max_grad_norm and the data",
                )
            if moved is None:
                logging.getLogger("hubkit").warning(
                    "whether weights move could not be looked at: no process has a part of them in memory"
                )
                return
            by_chance = context.config["sft"].get("weights") == "bfloat16"
            if moved < (MOVED_BY_CHANCE if by_chance else MOVED):
                raise GateError(
                    f"{context.step}: after {step} steps {moved:.1%} of the weights have changed: training moves next "
                    "to nothing",
                    "raise sft.learning_rate, or leave sft.weights out so that weights are float32",
                )

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Not every step is logged, and the weights of the last one are published.
            self._check_finite(float(trainer.gradient_norm), state.global_step)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.saved_at = time.monotonic()
            self.interval = max(CHECKPOINT_S, (self.saved_at - self.began) / CHECKPOINT_SHARE)
            if state.is_world_process_zero:
                write_json(spent, self.seconds() | {"gate": self.gate})

    return Watch()
