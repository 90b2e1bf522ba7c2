"""TRL's SFTTrainer with given optimizer steps, each split into micro-batches that fit on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hubkit.errors import StepError
from hubkit.students.memory import ran_out
from hubkit.students.steps import Layout, collate, micro_batches, steps_of_epoch

__all__ = ["trainer_class"]


class Steps:
    """A torch batch sampler: the micro-batches of each optimizer step of an epoch, for this process."""

    def __init__(
        self, lengths: Sequence[int], per_step: int, seed: int, layout: Layout, shuffled: bool, forms: int
    ) -> None:
        self.lengths, self.per_step, self.seed = lengths, per_step, seed
        self.rows, self.forms = len(lengths) // forms, forms
        self.layout, self.shuffled, self.epoch = layout, shuffled, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // self.per_step)

    def __iter__(self) -> Iterator[list[list[int]]]:
        for step in steps_of_epoch(
            self.rows, self.per_step, self.seed, self.epoch, self.shuffled, self.forms
        ):
            dealt = micro_batches([self.lengths[i] for i in step], self.layout)
            yield [[step[place] for place in batch] for batch in dealt[self.layout.rank]]


class Rows:
    """A torch dataset whose items are micro-batches: lists of {"input_ids", "labels"}."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: list[int]) -> list[dict[str, Any]]:
        return [self.rows[place] for place in places]


def trainer_class() -> Any:
    """Returns a subclass of SFTTrainer. Its `layout` says how steps are laid out in memory; `lengths` are those of the
    rows, each of which has `forms`.

    `per_device_train_batch_size` is the number of examples per optimizer step over all processes, and
    `gradient_accumulation_steps` is 1: the trainer is handed whole steps.
    """
    import torch
    from accelerate import DistributedType
    from torch.utils.data import DataLoader
    from trl import SFTTrainer

    class Loader(DataLoader):  # type: ignore[type-arg]
        """Has the current epoch, which transformers sets, or the batch sampler if the first steps are skipped."""

        def set_epoch(self, epoch: int) -> None:
            self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]

    class StudentTrainer(SFTTrainer):  # type: ignore[misc,unused-ignore]
        def __init__(
            self,
            *,
            lengths: Sequence[int],
            layout: Layout,
            forms: int = 1,
            may_checkpoint: bool = False,
            **arguments: Any,
        ) -> None:
            super().__init__(**arguments)
            self.lengths, self.layout, self.forms = lengths, layout, forms
            self.may_checkpoint = may_checkpoint and not self.args.gradient_checkpointing
            self.gradient_norm: Any = 0.0
            """Of the last step."""
            # A mixture's balancing loss is a mean over a micro-batch: only one of single examples has a meaning
            # that does not depend on the machine.
            layout.single = layout.single or self.aux_loss_enabled
            layout.processes, layout.rank = self.args.world_size, self.args.process_index

        def get_train_dataloader(self) -> Any:
            # Not prepared by accelerate, which would deal the examples to processes again.
            shuffled = self.args.train_sampling_strategy != "sequential"
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return Loader(
                Rows(self.train_dataset),  # type: ignore[arg-type]
                batch_sampler=Steps(
                    self.lengths,
                    self.args.per_device_train_batch_size,
                    seed,
                    self.layout,
                    shuffled,
                    self.forms,
                ),
                collate_fn=_step,
                num_workers=self.args.dataloader_num_workers,
            )

        def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
            self.gradient_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
            return self.gradient_norm

        def _issue_warnings_after_load(self, load_result: Any) -> None:
            """Not of weights that are tied to one that was there: they are stored once."""
            weights = {
                name: weight.data_ptr()
                for name, weight in self.model.named_parameters(remove_duplicate=False)
            }
            missing = set(load_result.missing_keys)
            there = {place for name, place in weights.items() if name not in missing}
            load_result.missing_keys[:] = [
                name for name in load_result.missing_keys if weights.get(name) not in there
            ]
            super()._issue_warnings_after_load(load_result)

        def get_total_train_batch_size(self, args: Any) -> int:
            return int(args.per_device_train_batch_size)

        def training_step(
            self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
        ) -> torch.Tensor:
            """The loss of a whole step, which is the sum over its micro-batches; their gradients are added up."""
            while True:
                try:
                    return self._micro_steps(model, inputs["micro"], num_items_in_batch)
                except (RuntimeError, MemoryError) as error:
                    if not ran_out(error):
                        raise
                    self._use_less(model, inputs["micro"], error)

        def _micro_steps(self, model: Any, micro: list[list[Any]], tokens: Any) -> torch.Tensor:
            batches = [part for batch in micro for part in self._parts(batch)]
            self.current_gradient_accumulation_steps = len(batches)
            total = torch.zeros((), device=self.args.device)
            for number, batch in enumerate(batches):
                last = number == len(batches) - 1
                self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed looks here
                inputs = collate(batch, self.layout, self._tokenizer.pad_token_id)
                if last or self._shared_out():
                    total += super().training_step(model, inputs, tokens)
                else:
                    with self.accelerator.no_sync(model):
                        total += super().training_step(model, inputs, tokens)
            return total

        def _shared_out(self) -> bool:
            """Whether each process has its part of the weights (FSDP). Then gradients are summed up in parts, float32,
            after each micro-batch: until the last they would be whole in every process, and in bfloat16."""
            return bool(self.accelerator.distributed_type == DistributedType.FSDP)

        def _parts(self, batch: list[Any]) -> list[list[Any]]:
            """Run a micro-batch, in smaller parts if it does not fit."""
            if self.layout.processes > 1 or len(batch) < 2:
                return [batch]
            [parts] = micro_batches([len(example["input_ids"]) for example in batch], self.layout)
            return [[batch[i] for i in part] for part in parts]

        def _use_less(self, model: Any, micro: list[list[Any]], error: Exception) -> None:
            """Keep fewer activations, or halve the tokens at once, and repeat the step. Raises StepError if neither
            can help."""
            longest = max(len(example["input_ids"]) for batch in micro for example in batch)
            largest = max(
                self.layout.cost([len(example["input_ids"]) for example in part])
                for batch in micro
                for part in self._parts(batch)
            )
            if self.may_checkpoint and self.layout.processes == 1:
                self.may_checkpoint = False
                self.args.gradient_checkpointing = True
                kwargs = self.args.gradient_checkpointing_kwargs or {"use_reentrant": False}
                self.model.gradient_checkpointing_enable(kwargs)
                self._forget(model)
                return
            if self.layout.processes > 1 or largest <= longest:
                setting = (
                    f"lower run.tokens_per_device (now {self.layout.tokens})"
                    if largest > longest
                    else "lower sft.max_length, set sft.gradient_checkpointing: true, or spread the model with "
                    "run.accelerate"
                )
                raise StepError(
                    f"out of memory on the device with {largest} tokens at once", setting
                ) from error
            self.layout.tokens = max(longest, largest // 2)
            self._forget(model)

        def _forget(self, model: Any) -> None:
            model.zero_grad()
            torch.cuda.empty_cache()

    return StudentTrainer


def _step(micro: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What Trainer is handed as one batch. It counts the trained tokens in `labels`; `micro` is trained on."""
    import torch

    examples = [example for batch in micro for example in batch]
    return {
        "input_ids": torch.tensor([token for example in examples for token in example["input_ids"]]),
        "labels": torch.tensor(
            [label for example in examples for label in [-100, *example["labels"][1:]]] or [-100]
        ),
        "micro": micro,
    }
