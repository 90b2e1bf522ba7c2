"""The embedded engine: any full-attention causal model of transformers, batched continuously.

`model.generate` decodes a batch until its longest answer ends, and spends more time around a small
model than in it. Here a fixed number of slots decode together; a slot whose answer ended is given the
next prompt, and keys and values stay in one preallocated tensor per layer. Sampling draws its random
numbers per request, so an answer does not depend on what was decoded beside it (up to float rounding).
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hubkit.engines.base import Request, Response
from hubkit.errors import EngineError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["TransformersEngine"]

REFILL_SHARE = 8
"""Slots are refilled when 1/8 of them is free: prefilling one prompt costs almost as much as a few."""
PREFILL_TOKENS = 8192
"""Padded prompt tokens prefilled at once, a bound on memory."""


@dataclass
class _Slot:
    """One sequence being decoded."""

    request: Request
    prompt: int
    """Tokens of the prompt."""
    started: float
    generated: int = 0


class TransformersEngine:
    """Continuous batching over transformers' own models. `batch_size` is the number of slots."""

    def __init__(
        self, model: Path, batch_size: int, device: str = "auto", threads: int = 1, adapter: Path | None = None
    ) -> None:
        self._folder = model
        self._size = batch_size
        self._device = device
        self._threads = threads
        self._adapter = adapter

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(self._threads)
        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # CPUs of today are slower in half precision at these sizes; GPUs get the dtype as stored.
        dtype = torch.float32 if self._device == "cpu" else "auto"
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder)
            model = AutoModelForCausalLM.from_pretrained(
                self._folder, dtype=dtype, use_safetensors=True, attn_implementation=_attention()
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot load the model {self._folder.name}: {str(error).splitlines()[0]}", "check its folder"
            ) from error
        if not self._tokenizer.chat_template:
            raise InputError(f"the tokenizer of {self._folder.name} has no chat template", "add chat_template.jinja")
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise EngineError(
                f"{self._folder.name} has {', '.join(sorted(kinds - {'full_attention'}))} layers",
                "serve it with vLLM and use engine: openai",
            )
        if self._adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self._adapter).merge_and_unload()
        self._model = model.to(self._device).eval()
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        if (own := self._tokenizer.eos_token_id) is not None and own not in ends:
            ends.append(own)
        if not ends:
            raise InputError(f"{self._folder.name} names no end token", "set eos_token_id in generation_config.json")
        self._ends = torch.tensor(ends, device=self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._model

    async def stream(self, requests: Iterable[Request]) -> AsyncIterator[Response]:
        """Answer requests as slots become free. Prompts longer than the model's context come back as errors."""
        for response in self._decode(iter(requests)):
            yield response
            await asyncio.sleep(0)  # let the caller's other tasks run between answers

    def _decode(self, requests: Iterator[Request]) -> Iterator[Response]:
        import torch

        waiting: deque[tuple[Request, list[int]]] = deque()
        batch = _Batch(self._model, self._size)
        exhausted = False
        with torch.inference_mode():
            while True:
                while not exhausted and len(waiting) < self._size:
                    request = next(requests, None)
                    if request is None:
                        exhausted = True
                        break
                    prompt = self._encode(request)
                    if len(prompt) + request.sampling.max_tokens > self._limit():
                        message = f"prompt of {len(prompt)} tokens + max_tokens exceed the model's context"
                        yield Response(request.key, "", "error", prompt_tokens=len(prompt), error=message)
                    else:
                        waiting.append((request, prompt))
                free = self._size - len(batch.slots)
                if waiting and (not batch.slots or free >= max(1, self._size // REFILL_SHARE)):
                    batch.fill([waiting.popleft() for _ in range(min(free, len(waiting)))])
                if not batch.slots:
                    return
                for slot, ids, stopped in batch.step(self._ends):
                    text = self._tokenizer.decode(ids, skip_special_tokens=True)
                    yield Response(
                        slot.request.key,
                        text,
                        "stop" if stopped else "length",
                        prompt_tokens=slot.prompt,
                        completion_tokens=len(ids),
                        latency_s=time.monotonic() - slot.started,
                        token_ids=ids,
                    )

    def _encode(self, request: Request) -> list[int]:
        text = self._tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _limit(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 1 << 30)


class _Batch:
    """The slots under way. Row i of every tensor belongs to slots[i]; ended rows are taken out."""

    def __init__(self, model: Any, size: int) -> None:
        import torch

        self.slots: list[_Slot] = []
        self._model = model
        self._device = model.device
        self._cache = _SlotCache(model.config.num_hidden_layers, size)
        self._length = torch.zeros(size, dtype=torch.long, device=self._device)
        """Tokens in the cache, per row."""
        self._last = torch.zeros(size, dtype=torch.long, device=self._device)
        """Token generated last, not in the cache yet."""
        self._out = torch.zeros(size, 0, dtype=torch.long, device=self._device)
        self._uniform = torch.zeros(size, 0, device=self._device)
        """Random numbers of every row, one per token to come."""
        self._count = torch.zeros(size, dtype=torch.long, device=self._device)
        self._limit = torch.zeros(size, dtype=torch.long, device=self._device)

    def fill(self, entries: list[tuple[Request, list[int]]]) -> None:
        """Prefill prompts into free rows, in groups of similar length."""
        entries = sorted(entries, key=lambda entry: len(entry[1]))
        while entries:
            longest = len(entries[-1][1])
            group = entries[-max(1, PREFILL_TOKENS // longest) :]
            del entries[-len(group) :]
            self._prefill(group)

    def _prefill(self, group: list[tuple[Request, list[int]]]) -> None:
        import torch

        first, rows = len(self.slots), len(group)
        lengths = torch.tensor([len(prompt) for _, prompt in group], device=self._device)
        longest = int(lengths.max())
        ids = torch.zeros(rows, longest, dtype=torch.long)
        most = max(request.sampling.max_tokens for request, _ in group)
        self._widen(most)
        now = time.monotonic()
        for i, (request, prompt) in enumerate(group):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            self.slots.append(_Slot(request, len(prompt), now))
            generator = torch.Generator().manual_seed(request.seed & 0x7FFFFFFFFFFFFFFF)
            tokens = request.sampling.max_tokens
            self._uniform[first + i, :tokens] = torch.rand(tokens, generator=generator).to(self._device)
            self._limit[first + i] = tokens
        # Left-padded, so that the last column is every row's next token; positions count from the text.
        place = torch.arange(longest, device=self._device)
        pad = (longest - lengths)[:, None]
        allowed = (place[None, :] <= place[:, None])[None] & (place[None, :] >= pad)[:, None]
        # A padded query sees itself: a row of nothing but -inf would be NaN.
        allowed |= torch.eye(longest, dtype=torch.bool, device=self._device)[None]
        self._cache.prefill(first, lengths, longest + most)
        logits = self._forward(ids.to(self._device), (place[None] - pad).clamp(min=0), allowed[:, None])
        self._length[first : first + rows] = lengths
        self._count[first : first + rows] = 0
        self._choose(slice(first, first + rows), logits)

    def step(self, ends: torch.Tensor) -> list[tuple[_Slot, list[int], bool]]:
        """Take out the rows whose last token ended them, and decode one token of the others.

        Returns (slot, generated ids, ended by an end token) of those taken out.
        """
        import torch

        active = len(self.slots)
        stopped = torch.isin(self._last[:active], ends)
        over = stopped | (self._count[:active] >= self._limit[:active])
        finished = []
        if bool(over.any()):
            flags, stops = over.tolist(), stopped.tolist()
            counts = self._count[:active].tolist()
            for i in (i for i, flag in enumerate(flags) if flag):
                finished.append((self.slots[i], self._out[i, : counts[i]].tolist(), stops[i]))
            keep = [i for i, flag in enumerate(flags) if not flag]
            self._keep(keep)
            active = len(keep)
        if active:
            lengths = self._length[:active]
            width = int(lengths.max()) + 1
            self._cache.decode(lengths, width)
            place = torch.arange(width, device=self._device)
            allowed = (place[None] <= lengths[:, None])[:, None, None]
            logits = self._forward(self._last[:active, None], lengths[:, None], allowed)
            self._length[:active] += 1
            self._choose(slice(0, active), logits)
        return finished

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """Logits of the last column, float32 [rows, vocabulary]."""
        import torch

        mask = torch.zeros(allowed.shape, dtype=self._model.dtype, device=self._device)
        mask.masked_fill_(~allowed, torch.finfo(self._model.dtype).min)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _choose(self, rows: slice, logits: torch.Tensor) -> None:
        """Greedy or sampled next tokens of some rows, by each row's own settings."""
        import torch

        slots = self.slots[rows]
        tokens = logits.argmax(-1)
        if any(slot.request.sampling.temperature > 0 for slot in slots):
            number = torch.arange(rows.start, rows.stop, device=self._device)
            uniform = self._uniform[number, self._count[rows]]
            sampled = _sample(logits, slots, uniform)
            greedy = torch.tensor([s.request.sampling.temperature == 0 for s in slots], device=self._device)
            tokens = torch.where(greedy, tokens, sampled)
        self._last[rows] = tokens
        self._out[torch.arange(rows.start, rows.stop, device=self._device), self._count[rows]] = tokens
        self._count[rows] += 1

    def _keep(self, keep: list[int]) -> None:
        """Move the last rows into the places of those that ended: few rows move, and none is scattered."""
        import torch

        count = len(keep)
        moving = [i for i in keep if i >= count]
        free = sorted(set(range(count)) - set(keep))
        if moving:
            source = torch.tensor(moving, device=self._device)
            target = torch.tensor(free, device=self._device)
            for tensor in (self._length, self._last, self._out, self._uniform, self._count, self._limit):
                tensor[target] = tensor[source]
            self._cache.move(source, target)
            for from_, to in zip(moving, free, strict=True):
                self.slots[to] = self.slots[from_]
        del self.slots[count:]

    def _widen(self, tokens: int) -> None:
        missing = tokens - self._out.shape[1]
        if missing > 0:
            import torch

            self._out = torch.nn.functional.pad(self._out, (0, missing))
            self._uniform = torch.nn.functional.pad(self._uniform, (0, missing))


def _sample(logits: torch.Tensor, slots: list[_Slot], uniform: torch.Tensor) -> torch.Tensor:
    """Temperature, top_k and top_p as vLLM applies them, then the inverse of the distribution."""
    import torch

    settings = [slot.request.sampling for slot in slots]
    device = logits.device
    temperature = torch.tensor([s.temperature or 1.0 for s in settings], device=device)
    probability = (logits / temperature[:, None]).softmax(-1)
    if all(s.top_k == 0 and s.top_p == 1.0 for s in settings):
        order = None
    else:
        probability, order = probability.sort(dim=-1, descending=True)
        rank = torch.arange(probability.shape[1], device=device)
        top_k = torch.tensor([s.top_k or probability.shape[1] for s in settings], device=device)
        probability = probability.masked_fill(rank[None] >= top_k[:, None], 0.0)
        top_p = torch.tensor([s.top_p for s in settings], device=device)
        before = probability.cumsum(-1) - probability
        probability = probability.masked_fill(before > top_p[:, None] * probability.sum(-1, keepdim=True), 0.0)
    total = probability.cumsum(-1)
    # Scaled by the sum, so that a number just below 1 cannot fall behind the last token.
    drawn = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)
    drawn = drawn.clamp(max=probability.shape[1] - 1)
    return drawn[:, 0] if order is None else order.gather(1, drawn)[:, 0]


@functools.cache
def _attention() -> str:
    """Name under which transformers finds our attention: its sdpa copies all keys and values of a model
    with fewer key-value heads than heads (GQA) at every step, and that copy costs more than the model."""
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        scaling: float | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        rows, heads, columns, dim = query.shape
        if columns > 1 or more.get("softcap") or more.get("s_aux") is not None:
            result: tuple[torch.Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **more
            )
            return result
        # One query per row: the queries of a group stand where a sequence's would, and nothing is copied.
        grouped = query.view(rows, key.shape[1], heads // key.shape[1], dim)
        scores = torch.matmul(grouped, key.transpose(2, 3)) * (dim**-0.5 if scaling is None else scaling)
        weights = (scores + attention_mask).softmax(-1, dtype=torch.float32).to(value.dtype)
        return torch.matmul(weights, value).view(rows, 1, heads, dim), None

    AttentionInterface.register("hubkit_slots", attend)
    return "hubkit_slots"


class _SlotCache:
    """Keys and values of all slots: per layer one tensor [slots, heads, capacity, dim].

    transformers' own caches put a whole batch at one position; here every row stands at its own.
    """

    def __init__(self, layers: int, size: int) -> None:
        from transformers.cache_utils import Cache, CacheLayerMixin

        plan = self

        class Layer(CacheLayerMixin):  # type: ignore[misc,unused-ignore]
            def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
                shape = (size, key_states.shape[1], plan.capacity, key_states.shape[3])
                self.keys = key_states.new_zeros(shape)
                self.values = value_states.new_zeros((*shape[:3], value_states.shape[3]))
                self.is_initialized = True

            def update(
                self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
            ) -> tuple[torch.Tensor, torch.Tensor]:
                if not self.is_initialized:
                    self.lazy_initialization(key_states, value_states)
                if self.keys.shape[2] < plan.capacity:
                    more = plan.capacity - self.keys.shape[2]
                    self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, more))
                    self.values = torch.nn.functional.pad(self.values, (0, 0, 0, more))
                return plan.store(self, key_states, value_states)

            def get_seq_length(self) -> int:
                return 0

            def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
                return query_length, 0

            def get_max_length(self) -> int:
                return -1

        import torch

        self.capacity = 0
        self._prefilling: tuple[int, list[int]] | None = None
        self._rows: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None
        self._width = 0
        self.cache = Cache(layers=[Layer() for _ in range(layers)])

    def prefill(self, first: int, lengths: torch.Tensor, longest: int) -> None:
        """The next forward pass brings whole, left-padded prompts for the rows from `first` on."""
        self._prefilling = (first, lengths.tolist())
        self.capacity = max(self.capacity, longest)

    def decode(self, positions: torch.Tensor, width: int) -> None:
        """The next forward pass brings one token per row, for these positions."""
        import torch

        self._prefilling = None
        self._rows = torch.arange(len(positions), device=positions.device)
        self._positions, self._width = positions.clone(), width

    def store(self, layer: Any, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._prefilling is not None:
            first, lengths = self._prefilling
            for i, length in enumerate(lengths):
                layer.keys[first + i, :, :length] = keys[i, :, keys.shape[2] - length :]
                layer.values[first + i, :, :length] = values[i, :, values.shape[2] - length :]
            return keys, values
        layer.keys[self._rows, :, self._positions] = keys[:, :, 0]
        layer.values[self._rows, :, self._positions] = values[:, :, 0]
        rows = len(keys)
        return layer.keys[:rows, :, : self._width], layer.values[:rows, :, : self._width]

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        for layer in self.cache.layers:
            layer.keys[target] = layer.keys[source]
            layer.values[target] = layer.values[source]
