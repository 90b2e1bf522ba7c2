"""Attention, keys and values of sequences that decode together, each at its own position.

They replace transformers' own in the transformers engine: transformers' sdpa copies, at every step, all keys and
values of a model with fewer key-value heads than heads, and its caches hold a whole batch at one position.
Around a small model, reading keys and values is most of a step. So sequences that began together are kept
together, and none is read to the length of the longest of all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import torch

__all__ = ["SlotCache", "fastest_matmul_precision", "matmul_precision", "register_attention"]

CACHE_STEP: Final = 32
"""Columns by which a cohort grows when an answer outgrows it. All columns are read at every step, the unused ones
too: reading memory from end to end takes half the time of reading it with gaps."""
MOST_COHORTS: Final = 4
"""Each costs a few calls per layer and step; when there are more, the cohorts of the most similar length are joined."""


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Compute float32 matrix products on the CPU under torch's setting of that name."""
    import torch

    backends: Any = torch.backends
    settings = backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = precision
    try:
        yield
    finally:
        settings.fp32_precision = before


@functools.cache
def fastest_matmul_precision() -> str:
    """The setting under which torch multiplies float32 matrices fastest without losing precision.

    torch uses MKL, which takes twice oneDNN's time on AMD processors, unless bfloat16 is allowed; then it uses oneDNN.
    oneDNN should use bf16 only with AMX and full float32 elsewhere; undocumented, so measured here.
    """
    import torch

    factor = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    exact = factor.double() @ factor.double()
    with matmul_precision("bf16"):
        errors = [factor @ factor - exact, factor.expand(8, -1, -1)[:, :2] @ factor - exact[:2]]
    return "bf16" if all(error.abs().max() < 1e-4 for error in errors) else "none"


@functools.cache
def register_attention() -> str:
    """Register hubkit's attention with transformers. Returns its name."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(
        module: Any,
        query: torch.Tensor,
        key: Any,
        value: Any,
        attention_mask: torch.Tensor,
        scaling: float | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """`key` and `value` are tensors for prompts, tuples with one per cohort for single tokens."""
        import torch

        softcap, sinks = more.get("softcap"), more.get("s_aux")
        if isinstance(key, tuple):
            sizes = [(len(part), part.shape[3]) for part in key]
            queries = torch.split(query, [rows for rows, _ in sizes])
            masks = torch.split(attention_mask.view(-1), [rows * columns for rows, columns in sizes])
            parts = [
                _attend(one, k, v, mask.view(len(one), 1, 1, -1), scaling, softcap, sinks)
                for one, k, v, mask in zip(queries, key, value, masks, strict=True)
            ]
            return (torch.cat(parts) if len(parts) > 1 else parts[0]).transpose(1, 2), None
        if softcap is None and sinks is None:
            with matmul_precision("none"):  # the kernel for prompts is slower under the other setting
                result: tuple[torch.Tensor, None] = sdpa_attention_forward(
                    module, query, key, value, attention_mask, scaling=scaling, **more
                )
            return result
        key = key.transpose(2, 3)
        return _attend(query, key, value, attention_mask, scaling, softcap, sinks).transpose(1, 2), None

    AttentionInterface.register("hubkit_slots", attend)
    return "hubkit_slots"


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of [rows, heads, columns, dim] to fewer key-value heads, without copying these.

    Keys are [rows, heads, dim, columns], values [rows, heads, columns, dim].
    """
    import torch

    rows, heads, columns, dim = query.shape
    # The queries of a group stand where a longer sequence's would, so that no key is copied.
    shared = key.shape[1]
    grouped = (query * (dim**-0.5 if scaling is None else scaling)).reshape(rows, shared, -1, dim)
    scores = torch.matmul(grouped, key)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.view(rows, shared, -1, columns, key.shape[3]).add_(mask[:, :, None])
    if sinks is not None:  # gpt-oss: one more logit per head, which takes weight and gives no value
        sink = sinks.view(1, shared, -1, 1, 1).expand(*scores.shape[:4], 1)
        weights = torch.cat([scores, sink], -1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores.softmax(-1, dtype=torch.float32)
    weights = weights.to(value.dtype).reshape(rows, shared, -1, key.shape[3])
    return torch.matmul(weights, value).view(rows, heads, columns, -1)


class _Cohort:
    """Sequences whose prompts were prefilled together, left-padded: the next token of all is in one column."""

    def __init__(self, slots: list[int], lengths: torch.Tensor) -> None:
        self.slots = list(slots)
        self.width = int(lengths.max())
        """Columns in use."""
        self.start = self.width - lengths
        """First column of each sequence that is not padding."""
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Of each layer, keys [sequences or more, heads, dim, columns or more], which is how they are multiplied
        fastest, and values [sequences or more, heads, columns or more, dim]."""

    @property
    def columns(self) -> int:
        """Those in use and those to grow into, which hold zeros."""
        return self.layers[0][0].shape[3]

    def preceded(self, prefix: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Keys or values of the prompts, left-padded, [sequences, heads, columns, dim], with the prefix before each."""
        import torch

        whole = torch.cat([prefix.new_zeros(len(states), *prefix.shape[1:]), states], 2)
        rows = torch.arange(len(states), device=states.device)
        places = self.start[:, None] + torch.arange(prefix.shape[2], device=states.device)
        whole[rows[:, None], :, places] = prefix[0].transpose(0, 1)
        return whole

    def add(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """The prompts' keys and values of the next layer, without room for more."""
        self.layers.append((keys.transpose(2, 3), values))

    def store(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put one token's keys and values of a layer into the last column in use; return all columns."""
        rows, last = len(keys), self.width - 1
        known = self.layers[layer]
        known[0][:rows, :, :, last] = keys[:, :, 0]
        known[1][:rows, :, last] = values[:, :, 0]
        return known[0][:rows], known[1][:rows]

    def keep(self, kept: list[int]) -> None:
        """Keep only these sequences: the last ones move into free rows, so that few move."""
        import torch

        count, room = len(kept), len(self.layers[0][0])
        source = [i for i in kept if i >= count]
        target = sorted(set(range(count)) - set(kept))
        for i, j in zip(source, target, strict=True):
            self.slots[j] = self.slots[i]
        del self.slots[count:]
        device = self.start.device
        from_, to = torch.tensor(source, device=device), torch.tensor(target, device=device)
        if source:
            self.start[to] = self.start[from_]
            for tensor in itertools.chain.from_iterable(self.layers):
                tensor[to] = tensor[from_]
        self.start = self.start[:count]
        if 0 < count <= room // 2:  # give memory back
            self.repack()

    def repack(self, *others: _Cohort) -> None:
        """Copy what is in use, take in other cohorts, and make room for the next tokens.

        All end in the same column. Unused columns hold zeros: a NaN would get through a mask.
        """
        import torch

        cohorts = [self, *others]
        firsts = [int(cohort.start.min()) for cohort in cohorts]
        width = max(cohort.width - first for cohort, first in zip(cohorts, firsts, strict=True))
        rows = sum(len(cohort.slots) for cohort in cohorts)
        for layer, parts in enumerate(zip(*(cohort.layers for cohort in cohorts), strict=True)):
            _, heads, dim, _ = parts[0][0].shape
            keys = parts[0][0].new_empty(rows, heads, dim, width + CACHE_STEP)
            values = parts[0][1].new_empty(rows, heads, width + CACHE_STEP, parts[0][1].shape[3])
            keys[..., width:], values[:, :, width:] = 0, 0
            row = 0
            for cohort, first, (old_keys, old_values) in zip(cohorts, firsts, parts, strict=True):
                count = len(cohort.slots)
                used, padding = slice(first, cohort.width), width - (cohort.width - first)
                new_keys, new_values = keys[row : row + count], values[row : row + count]
                new_keys[..., :padding], new_values[:, :, :padding] = 0, 0
                new_keys[..., padding:width] = old_keys[:count, :, :, used]
                new_values[:, :, padding:width] = old_values[:count, :, used]
                row += count
            self.layers[layer] = (keys, values)
        self.start = torch.cat([cohort.start + width - cohort.width for cohort in cohorts])
        self.slots = [slot for cohort in cohorts for slot in cohort.slots]
        self.width = width


class SlotCache:
    """Keys and values of all slots, as transformers' cache. Slots are numbers of the caller's choice."""

    def __init__(self, layers: int) -> None:
        from transformers.cache_utils import Cache, CacheLayerMixin

        plan = self

        class Layer(CacheLayerMixin):  # type: ignore[misc,no-untyped-call,unused-ignore]
            number: int

            def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
                pass

            def update(
                self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
            ) -> tuple[Any, Any]:
                return plan._update(self.number, key_states, value_states)

            def get_seq_length(self) -> int:
                return 0

            def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
                return query_length, 0

            def get_max_length(self) -> int:
                return -1

        self._cohorts: list[_Cohort] = []
        self._brought: Literal["prefix", "prompts", "tokens"] = "tokens"
        """What the current forward pass contains."""
        self._prefix: list[tuple[torch.Tensor, torch.Tensor]] = []
        """Keys and values of each layer, [1, heads, columns, dim]."""
        numbered: list[Any] = [Layer() for _ in range(layers)]  # type: ignore[no-untyped-call,unused-ignore]
        for number, layer in enumerate(numbered):
            layer.number = number
        self.cache = Cache(layers=numbered)

    def prefill_prefix(self) -> None:
        """The next forward pass contains the common prefix of the prompts in the pass after it, in one row."""
        self._brought, self._prefix = "prefix", []

    def prefill(self, slots: list[int], lengths: torch.Tensor) -> None:
        """The next forward pass contains left-padded prompts of these lengths for these slots.

        Without their prefix, if the pass before brought one; the lengths count it.
        """
        if self._brought != "prefix":
            self._prefix = []
        self._brought = "prompts"
        self._cohorts.append(_Cohort(slots, lengths))

    def decode(self, window: int | None) -> tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The next forward pass contains one token for every slot.

        Returns the slots in the order of its rows and the positions of their tokens, [rows]; then for every
        column of every row, one after the other, whether it is visible, and whether it is inside the sliding window.
        """
        import torch

        self._brought = "tokens"
        self._join()
        positions, seen, near = [], [], []
        for cohort in self._cohorts:
            if cohort.width == cohort.columns:
                cohort.repack()
            place = torch.arange(cohort.columns, device=cohort.start.device)
            positions.append(cohort.width - cohort.start)
            columns = (place >= cohort.start[:, None]) & (place <= cohort.width)
            seen.append(columns.view(-1))
            if window is not None:
                near.append((columns & (place > cohort.width - window)).view(-1))
            cohort.width += 1
        slots = [slot for cohort in self._cohorts for slot in cohort.slots]
        return slots, torch.cat(positions), torch.cat(seen), torch.cat(near) if near else None

    def drop(self, slots: list[int]) -> None:
        """Forget these slots."""
        for cohort in self._cohorts:
            kept = [i for i, slot in enumerate(cohort.slots) if slot not in slots]
            if len(kept) < len(cohort.slots):
                cohort.keep(kept)
        self._cohorts = [cohort for cohort in self._cohorts if len(cohort.slots)]

    def _join(self) -> None:
        """Join cohorts of neighbouring lengths: at once if that adds little padding."""
        joined = [[cohort] for cohort in sorted(self._cohorts, key=lambda cohort: cohort.width)]

        def padding(place: int) -> int:
            longest = joined[place + 1][-1].width
            return sum(len(cohort.slots) * (longest - cohort.width) for cohort in joined[place])

        while len(joined) > 1:
            place = min(range(len(joined) - 1), key=padding)
            longer, shorter = joined[place + 1][-1], joined[place][0]
            if len(joined) <= MOST_COHORTS and longer.width - shorter.width > CACHE_STEP // 2:
                break
            joined[place : place + 2] = [joined[place] + joined[place + 1]]
        for first, *others in joined:
            if others:
                first.repack(*others)
        self._cohorts = [first for first, *_ in joined]

    def _update(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[Any, Any]:
        """What attention is given for a layer: the prompts themselves, or all columns of each cohort."""
        import torch

        if self._brought == "prefix":
            self._prefix.append((keys, values))
            return keys, values
        if self._brought == "prompts":
            cohort = self._cohorts[-1]
            if self._prefix:
                prefix = self._prefix[layer]
                keys, values = cohort.preceded(prefix[0], keys), cohort.preceded(prefix[1], values)
            cohort.add(keys, values)
            return keys, values
        sizes = [len(cohort.slots) for cohort in self._cohorts]
        parts = zip(self._cohorts, torch.split(keys, sizes), torch.split(values, sizes), strict=True)
        stored = [cohort.store(layer, k, v) for cohort, k, v in parts]
        return tuple(k for k, _ in stored), tuple(v for _, v in stored)
