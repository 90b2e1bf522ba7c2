"""The embedded engine: any causal model of transformers with full or sliding attention, batched continuously.

`model.generate` decodes a batch until its longest answer ends, and spends more time around a small
model than in it. Here a fixed number of slots decode together; a slot whose answer ended is given the
next prompt, and what was prefilled together stays together in memory (slots.py). Sampling draws its random
numbers per request, so an answer does not depend on what was decoded beside it (up to float rounding).
On a CPU, cores are used by processes (helpers.py): the operations around a small model are too short for torch's
threads to share. benchmarks/engine_transformers.py compares all this with `generate`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import psutil

from hubkit.engines.base import Request, Response, hidden_tokens
from hubkit.engines.helpers import Helpers
from hubkit.engines.marks import opened_by
from hubkit.engines.slots import SlotCache, fastest_products, products, register_attention
from hubkit.errors import EngineError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["TransformersEngine"]

REFILL_SHARE: Final = 4
"""Slots are refilled when 1/4 of them is free: prefilling one prompt costs almost as much as a few, and what
is prefilled together stays together (SlotCache)."""
PREFILL_TOKENS: Final = 8192
"""Padded prompt tokens prefilled at once, a bound on memory."""
PREFIX_TOKENS: Final = 128
"""Tokens to save, from which on the beginning that prompts share is prefilled once, in a pass of its own."""
ONEDNN_TOKENS: Final = 128
WORTH_A_PROCESS: Final = 32
"""Requests, for each process: to start one takes some seconds."""
PROCESS_MEMORY: Final = 1 << 30
"""Bytes that a process needs besides four times its weights."""


@dataclass
class _Slot:
    """One sequence being decoded."""

    request: Request
    prompt: int
    """Tokens of the prompt."""
    opened: str
    """The mark, such as `<think>`, with which the template opened the span in the prompt: text begins with it."""
    started: float = 0.0


class TransformersEngine:
    """Continuous batching over transformers' own models. `batch_size` is the number of slots of each process.

    On a CPU, `threads` is the number of cores to use: by processes, as long as memory allows and there are requests
    for them, and by torch's threads where a model is too large for so many processes.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        model: Path,
        batch_size: int,
        device: str = "auto",
        threads: int = 1,
        adapter: Path | None = None,
    ) -> None:
        self._folder = model
        self._size = batch_size
        self._device = device
        self._threads = threads
        self._adapter = adapter

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # CPUs of today are slower in half precision at these sizes; GPUs get the dtype as stored.
        dtype = torch.float32 if self._device == "cpu" else "auto"
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
            model: Any = AutoModelForCausalLM.from_pretrained(
                self._folder, dtype=dtype, use_safetensors=True, attn_implementation=register_attention()
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot load the model {self._folder.name}: {str(error).splitlines()[0]}", "check its folder"
            ) from error
        if not self._tokenizer.chat_template:
            raise InputError(
                f"the tokenizer of {self._folder.name} has no chat template", "add chat_template.jinja"
            )
        kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
        strange = kinds - {"full_attention", "sliding_attention"}
        if strange or model._is_stateful or not model._supports_attention_backend:
            raise EngineError(
                f"{self._folder.name} has {', '.join(sorted(strange)) or 'attention'} layers of its own kind",
                "serve it with vLLM and use engine: openai",
            )
        if self._adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self._adapter).merge_and_unload()
        self._model: Any = model.to(self._device).eval()
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        if (own := self._tokenizer.eos_token_id) is not None and own not in ends:
            ends.append(own)
        if not ends:
            raise InputError(
                f"{self._folder.name} names no end token", "set eos_token_id in generation_config.json"
            )
        self._ends = torch.tensor(ends, device=self._device)
        self._hidden = hidden_tokens(self._tokenizer)
        self._processes = self._affordable_processes() if self._device == "cpu" else 1
        threads = self._threads // self._processes
        torch.set_num_threads(threads)
        self._helpers = Helpers(
            model=str(self._folder),
            adapter=str(self._adapter or ""),
            batch_size=self._size,
            threads=threads,
        )
        return self

    def _affordable_processes(self) -> int:
        weights = sum(weight.numel() * weight.element_size() for weight in self._model.parameters())
        affordable = int(psutil.virtual_memory().available / (PROCESS_MEMORY + 4 * weights))
        return max(1, min(self._threads, affordable))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._helpers.end()
        del self._model

    async def stream(self, requests: Iterable[Request]) -> AsyncGenerator[Response]:
        """Answer requests as slots become free. What exceeds the model's context comes back as an error."""
        import torch

        source, size = iter(requests), self._size
        if self._processes > 1:
            first = list(itertools.islice(source, self._processes * max(size, WORTH_A_PROCESS)))
            source = itertools.chain(first, source)
            processes = max(1, min(self._processes, len(first) // WORTH_A_PROCESS))
            self._helpers.start(processes - 1)
            # Few requests are shared out too: none waits in one process while there is room in another.
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

        batch = _Batch(self._model, size)
        while True:
            free = size - len(batch.slots)
            entries: list[tuple[_Slot, list[int]]] = []
            if free >= max(1, size // REFILL_SHARE):
                while len(entries) < free and (request := next(requests, None)) is not None:
                    prompt, opened = self._encode(request)
                    if len(prompt) + request.sampling.max_tokens > self._limit():
                        message = f"prompt of {len(prompt)} tokens + max_tokens exceed the model's context"
                        yield Response(request.key, "", "error", prompt_tokens=len(prompt), error=message)
                    else:
                        entries.append((_Slot(request, len(prompt), opened), prompt))
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
            request.messages, add_generation_prompt=True, tokenize=False
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        # Without the tag, an answer that was cut off could not be told from one that never thought.
        return ids, opened_by(text)

    def _limit(self) -> int:
        config = self._model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


class _Batch:
    """The slots under way. Row i of every tensor belongs to slot i."""

    def __init__(self, model: Any, size: int) -> None:
        import torch

        self.slots: dict[int, _Slot] = {}
        """Those in use."""
        self._model = model
        self._device = model.device
        config = model.config.get_text_config()
        self._cache = SlotCache(config.num_hidden_layers)
        window: int | None = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        # Without a list, a window is that of all layers (Mistral, Phi-3).
        self._kinds = set(types or ["sliding_attention" if window else "full_attention"])
        self._window = window if "sliding_attention" in self._kinds else None
        self._named_masks = bool(types) and self._kinds != {"full_attention"}
        self._free = list(range(size))
        self._last = torch.zeros(size, dtype=torch.long, device=self._device)
        """Token generated last, not in the cache yet."""
        self._out = torch.zeros(size, 0, dtype=torch.long, device=self._device)
        self._uniform = torch.zeros(size, 0, device=self._device)
        """Random numbers of every slot, one per token to come."""
        self._count = torch.zeros(size, dtype=torch.long, device=self._device)
        self._limit = torch.zeros(size, dtype=torch.long, device=self._device)
        self._sampling = torch.zeros(size, 3, device=self._device)
        """Temperature, top_p and top_k of every slot."""

    def fill(self, entries: list[tuple[_Slot, list[int]]]) -> None:
        """Prefill prompts into free slots, in groups of similar length."""
        entries = sorted(entries, key=lambda entry: len(entry[1]))
        while entries:
            longest = len(entries[-1][1])
            group = entries[-max(1, PREFILL_TOKENS // longest) :]
            del entries[-len(group) :]
            self._prefill(group)

    def _prefill(self, group: list[tuple[_Slot, list[int]]]) -> None:
        import torch

        rows = [self._free.pop() for _ in group]
        prompts = [prompt for _, prompt in group]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        longest = int(lengths.max())
        shared = self._prefill_prefix(prompts)
        ids = torch.zeros(len(group), longest - shared, dtype=torch.long)
        self._widen(max(slot.request.sampling.max_tokens for slot, _ in group))
        for i, (row, (slot, prompt)) in enumerate(zip(rows, group, strict=True)):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt[shared:])
            slot.started = time.monotonic()
            self.slots[row] = slot
            sampling = slot.request.sampling
            tokens = sampling.max_tokens
            if sampling.temperature > 0:
                generator = torch.Generator().manual_seed(slot.request.seed & 0x7FFFFFFFFFFFFFFF)
                self._uniform[row, :tokens] = torch.rand(tokens, generator=generator).to(self._device)
            self._limit[row] = tokens
            self._count[row] = 0
            # 2 is above every sum of probabilities, rounded or not: it keeps all tokens.
            settings = (sampling.temperature, 2.0 if sampling.top_p == 1 else sampling.top_p, sampling.top_k)
            self._sampling[row] = torch.tensor(settings)
        # Left-padded, so that the last column is every row's next token; positions count from the text.
        place = torch.arange(longest, device=self._device)
        own = place[shared:]
        pad = (longest - lengths)[:, None]
        allowed = (place <= own[:, None])[None] & (place >= pad)[:, None]
        # A padded query sees itself: a row of nothing but the lowest number can become NaN in half precision.
        allowed |= (place == own[:, None])[None]
        self._cache.prefill(rows, lengths)
        near = None
        if self._window is not None:
            near = (allowed & (own[:, None] - place < self._window))[:, None]
        logits = self._forward(ids.to(self._device), (own - pad).clamp(min=0), allowed[:, None], near)
        self._choose(rows, logits)

    def _prefill_prefix(self, prompts: list[list[int]]) -> int:
        """Prefill once what all prompts begin with. Returns its tokens, 0 where it would save next to nothing."""
        import torch

        # Every prompt keeps a token of its own, whose logits give the first of the answer.
        most = min(map(len, prompts)) - 1
        columns = enumerate(zip(*prompts, strict=False))
        shared = next((i for i, tokens in columns if i == most or len(set(tokens)) > 1), most)
        if shared * (len(prompts) - 1) < PREFIX_TOKENS:
            return 0
        place = torch.arange(shared, device=self._device)
        allowed = (place <= place[:, None])[None, None]
        near = None if self._window is None else allowed & (place[:, None] - place < self._window)
        self._cache.prefill_prefix()
        self._forward(torch.tensor([prompts[0][:shared]], device=self._device), place[None], allowed, near)
        return shared

    def step(self, ends: torch.Tensor) -> list[tuple[_Slot, list[int], bool]]:
        """Take out the slots whose last token ended them, and decode one token of the others.

        Returns (slot, generated ids, ended by an end token) of those taken out.
        """
        import torch

        stopped = torch.isin(self._last, ends)
        over = stopped | (self._count >= self._limit)
        ended = [slot for slot in over.nonzero()[:, 0].tolist() if slot in self.slots]
        finished = []
        for slot in ended:
            ids = self._out[slot, : self._count[slot]].tolist()
            finished.append((self.slots.pop(slot), ids, bool(stopped[slot])))
            self._free.append(slot)
        if ended:
            self._cache.drop(ended)
        if self.slots:
            slots, positions, seen, near = self._cache.decode(self._window)
            # Masks in one row: our attention knows which cells are whose.
            logits = self._forward(
                self._last[slots, None],
                positions[:, None],
                seen[None, None, None],
                None if near is None else near[None, None, None],
            )
            self._choose(slots, logits)
        return finished

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, allowed: torch.Tensor, near: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits of the last column, float32 [rows, vocabulary].

        `allowed` and `near` (allowed by a sliding window) are [rows, 1, queries, keys] or broadcast to it.
        """
        import torch

        def additive(seen: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=self._device)
            return mask.masked_fill_(~seen, torch.finfo(self._model.dtype).min)

        masks: Any = {kind: additive(allowed) for kind in self._kinds if kind == "full_attention"}
        if near is not None:
            masks["sliding_attention"] = additive(near)
        # oneDNN prepares for every number of tokens anew, which few are not worth.
        with products(fastest_products() if ids.numel() >= ONEDNN_TOKENS else "none"):
            output = self._model(
                input_ids=ids,
                # Models with layers of two kinds take a mask for each by name, all others one tensor.
                attention_mask=masks if self._named_masks else next(iter(masks.values())),
                position_ids=positions,
                past_key_values=self._cache.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _choose(self, slots: list[int], logits: torch.Tensor) -> None:
        """Greedy or sampled next tokens of some slots, by each one's own settings."""
        import torch

        rows = torch.tensor(slots, device=self._device)
        count, settings = self._count[rows], self._sampling[rows]
        tokens = logits.max(-1).indices  # in half the time of argmax
        if bool((settings[:, 0] > 0).any()):
            filtered = bool(((settings[:, 1] < 1) | (settings[:, 2] > 0)).any())
            sampled = _sample(logits, settings, self._uniform[rows, count], filtered)
            tokens = torch.where(settings[:, 0] == 0, tokens, sampled)
        self._last[rows] = tokens
        self._out[rows, count] = tokens
        self._count[rows] = count + 1

    def _widen(self, tokens: int) -> None:
        missing = tokens - self._out.shape[1]
        if missing > 0:
            import torch

            self._out = torch.nn.functional.pad(self._out, (0, missing))
            self._uniform = torch.nn.functional.pad(self._uniform, (0, missing))


def _sample(
    logits: torch.Tensor, settings: torch.Tensor, uniform: torch.Tensor, filtered: bool
) -> torch.Tensor:
    """Temperature, top_k and top_p as vLLM applies them, then the inverse of the distribution.

    `settings` is [rows, 3] (temperature, top_p, top_k); `filtered` says whether any row has the last two.
    """
    import torch

    temperature, top_p, top_k = settings[:, :1], settings[:, 1:2], settings[:, 2:]
    probability = (logits / temperature.where(temperature > 0, 1.0)).softmax(-1)
    order = None
    if filtered:
        probability, order = probability.sort(dim=-1, descending=True, stable=True)
        rank = torch.arange(probability.shape[1], device=logits.device)
        probability = probability.masked_fill((top_k > 0) & (rank >= top_k), 0.0)
        before = probability.cumsum(-1) - probability
        probability = probability.masked_fill(before >= top_p * probability.sum(-1, keepdim=True), 0.0)
    total = probability.cumsum(-1)
    # Scaled by the sum, so that a number just below 1 cannot fall behind the last token.
    drawn = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)
    drawn = drawn.clamp(max=probability.shape[1] - 1)
    return drawn[:, 0] if order is None else order.gather(1, drawn)[:, 0]
