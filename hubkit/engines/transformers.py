"""The embedded engine: any causal model of transformers; models with full or sliding attention by continuous batching.

`model.generate` decodes a batch until its longest answer ends, and spends more time around a small
model than in it. Here a fixed number of slots decode together; a slot whose answer ended is given the
next prompt, and what was prefilled together stays together in memory (slots.py). Sampling draws its random
numbers per request, so an answer does not depend on what was decoded beside it (up to float rounding).
On a CPU, several processes use the cores (helpers.py): the operations around a small model are too short to be shared
by torch's threads. benchmarks/engine_transformers.py compares the engine with `generate`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psutil

from hubkit.engines.base import Request, Response, hidden_tokens
from hubkit.engines.batch import REFILL_SHARE, Batch, Rounds, Slot
from hubkit.engines.helpers import Helpers
from hubkit.engines.marks import opened_by
from hubkit.engines.slots import register_attention
from hubkit.engines.weights import load_adapter, load_model, text_class
from hubkit.errors import EngineError, InputError, first_line
from hubkit.precision import weight_dtype

__all__ = ["TransformersEngine"]

WORTH_A_PROCESS: Final = 32
"""Minimum requests for each process, because starting one takes some seconds."""
PROCESS_MEMORY: Final = 1 << 30
"""Bytes that a process needs besides four times its weights."""


class TransformersEngine:
    """Continuous batching over transformers' own models. `batch_size` is the number of slots of each process.

    On a CPU, `threads` is the number of cores to use: by processes, as long as memory allows and there are requests
    for them, and by torch's threads where a model is too large for so many processes.
    `precision` is `run.precision`, and once the engine is open the type of its weights. auto: as they are stored, but
    float32 on a CPU where bfloat16 is not faster (hubkit/precision.py).
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        model: Path,
        batch_size: int,
        device: str = "auto",
        threads: int = 1,
        adapter: Path | None = None,
        marks: Sequence[str] = (),
        precision: str = "auto",
    ) -> None:
        self.precision = precision
        self._folder = model
        self._marks = tuple(marks)
        self._size = batch_size
        self._device = device
        self._threads = threads
        self._adapter = adapter

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoTokenizer

        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            dtype = weight_dtype(self.precision, self._device, self._folder)
            # An adapter is merged before weights are rounded.
            loaded = torch.float32 if self._device == "cpu" and self._adapter is not None else dtype
            auto = text_class(self._folder)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
            model = load_model(
                auto,
                self._folder,
                dtype=loaded,
                attn_implementation=register_attention(),
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot load the model {self._folder.name}: {first_line(error)}", "check its folder"
            ) from error
        if not self._tokenizer.chat_template:
            raise InputError(
                f"the tokenizer of {self._folder.name} has no chat template", "add chat_template.jinja"
            )
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
        strange = kinds - {"full_attention", "sliding_attention"}
        self._rounds = bool(strange or model._is_stateful or not model._supports_attention_backend)
        if self._rounds and "past_key_values" not in inspect.signature(type(model).forward).parameters:
            raise EngineError(
                f"{self._folder.name} has {', '.join(sorted(strange)) or 'attention'} layers of its own kind",
                "serve it with vLLM: run.engines.<model>.engine=vllm",
            )
        if self._rounds:
            # Layers of its own kind, such as gated delta nets, keep no keys that slots could share.
            model.set_attn_implementation("sdpa")
        if self._adapter is not None:
            model = load_adapter(model, self._adapter).merge_and_unload()
            if loaded != dtype:
                for weight in model.parameters():  # buffers, such as rotary frequencies, stay exact
                    weight.data = weight.data.to(dtype)
        self._model: Any = model.to(self._device).eval()
        self.precision = str(self._model.dtype).removeprefix("torch.")
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        if (own := self._tokenizer.eos_token_id) is not None and own not in ends:
            ends.append(own)
        if not ends:
            raise InputError(
                f"{self._folder.name} names no end token", "set eos_token_id in generation_config.json"
            )
        self._ends = torch.tensor(ends, device=self._device)
        self._hidden = hidden_tokens(self._tokenizer, self._marks)
        self._processes = self._affordable_processes() if self._device == "cpu" else 1
        threads = self._threads // self._processes
        torch.set_num_threads(threads)
        self._helpers = Helpers(
            model=str(self._folder),
            adapter=str(self._adapter or ""),
            batch_size=self._size,
            threads=threads,
            marks=self._marks,
            precision=self.precision,
        )
        return self

    def _affordable_processes(self) -> int:
        weights = sum(weight.numel() * weight.element_size() for weight in self._model.parameters())
        affordable = int(psutil.virtual_memory().available / (PROCESS_MEMORY + 4 * weights))
        return max(1, min(self._threads, affordable))

    def __exit__(self, *_: object) -> None:
        self._helpers.end()
        del self._model

    async def stream(self, requests: Iterable[Request]) -> AsyncGenerator[Response]:
        """Answer requests as slots become free. A request that exceeds the model's context comes back as an error."""
        import torch

        source, size = iter(requests), self._size
        if self._processes > 1:
            first = list(itertools.islice(source, self._processes * max(size, WORTH_A_PROCESS)))
            source = itertools.chain(first, source)
            processes = max(1, min(self._processes, len(first) // WORTH_A_PROCESS))
            self._helpers.start(processes - 1)
            # Few requests are distributed too: none waits in one process while another has room.
            size = min(size, -(-len(first) // processes))
        room = size + size // REFILL_SHARE
        try:
            for response in self.decode(source, size):
                if response is not None:
                    yield response
                for response in self._helpers.exchange(source, room):
                    yield response
                await asyncio.sleep(0)  # let the caller's other tasks run between steps
            while self._helpers.outstanding:
                await self._helpers.wait()
                for response in self._helpers.exchange(source, room):
                    yield response
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self._folder.name}: out of memory with {self._size} sequences", "lower batch_size"
            ) from error
        finally:
            if self._helpers.outstanding:  # left early: nobody waits for the rest
                self._helpers.end()

    def decode(self, requests: Iterator[Request | None], size: int) -> Iterator[Response | None]:
        """Responses of this process as they finish, and None after each step of up to `size` sequences.

        None among the requests: there are no more for now. It returns when there are none and all are answered.
        """
        import torch

        batch = (Rounds if self._rounds else Batch)(self._model, size)
        while True:
            free = size - len(batch.slots)
            entries: list[tuple[Slot, list[int]]] = []
            if free >= batch.needs_free:
                while len(entries) < free and (request := next(requests, None)) is not None:
                    prompt, opened = self._encode(request)
                    if len(prompt) + request.sampling.max_tokens > self._limit():
                        message = f"prompt of {len(prompt)} tokens + max_tokens exceed the model's context"
                        yield Response(request.key, "", "error", prompt_tokens=len(prompt), error=message)
                    else:
                        entries.append((Slot(request, len(prompt), opened), prompt))
            if not entries and not batch.slots:
                return
            # Not around the yields: the mode would hold for the caller's code too.
            with torch.inference_mode():
                batch.fill(entries)
                finished = batch.step(self._ends)
            for slot, ids, stopped in finished:
                text = self._tokenizer.decode([number for number in ids if number not in self._hidden])
                yield Response(
                    slot.request.key,
                    slot.opened + text,
                    "stop" if stopped else "length",
                    prompt_tokens=slot.prompt,
                    completion_tokens=len(ids),
                    latency_s=time.monotonic() - slot.started,
                    token_ids=ids,
                )
            yield None

    def _encode(self, request: Request) -> tuple[list[int], str]:
        """(ids of the prompt, the thinking tag that the template opened at its end)."""
        text = self._tokenizer.apply_chat_template(
            request.messages, add_generation_prompt=True, tokenize=False, **request.template
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        # Without the tag, an answer that was cut off would look like one without thinking.
        return ids, opened_by(text, self._marks)

    def _limit(self) -> int:
        config = self._model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 1 << 30)
