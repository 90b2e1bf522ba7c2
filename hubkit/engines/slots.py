"""Attention and keys and values of sequences that decode together, each at its own position.

What the transformers engine puts in place of transformers' own: its sdpa copies all keys and values of a
model with fewer key-value heads than heads at every step, and its caches put a whole batch at one position.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

__all__ = ["SlotCache", "register_attention"]

CACHE_STEP: Final = 256
"""Columns by which the cache is made longer when an answer outgrows it: `max_tokens` is often far above what is
used. Growing copies everything once, for 256 steps that read it all."""


@functools.cache
def register_attention() -> str:
    """Make our attention known to transformers, and say under which name."""
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
        softcap, sinks = more.get("softcap"), more.get("s_aux")
        if columns > 1 and softcap is None and sinks is None:
            result: tuple[torch.Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **more
            )
            return result
        # The queries of a group stand where a longer sequence's would, so that no key is copied.
        shared = key.shape[1]
        grouped = query.reshape(rows, shared, -1, dim)
        if softcap is None and sinks is None:
            fused = torch.nn.functional.scaled_dot_product_attention(
                grouped, key, value, attn_mask=attention_mask, scale=scaling
            )
            return fused.reshape(rows, heads, 1, -1).transpose(1, 2), None
        scores = torch.matmul(grouped, key.transpose(2, 3)) * (dim**-0.5 if scaling is None else scaling)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.view(rows, shared, -1, columns, key.shape[2]) + attention_mask[:, :, None]
        if sinks is not None:  # gpt-oss: one more logit per head, which takes weight and gives no value
            sink = sinks.view(1, shared, -1, 1, 1).expand(*scores.shape[:4], 1)
            weights = torch.cat([scores, sink], -1).softmax(-1, dtype=torch.float32)[..., :-1]
        else:
            weights = scores.softmax(-1, dtype=torch.float32)
        weights = weights.to(value.dtype).view(rows, shared, -1, key.shape[2])
        mixed = torch.matmul(weights, value).view(rows, heads, columns, -1)
        return mixed.transpose(1, 2), None

    AttentionInterface.register("hubkit_slots", attend)
    return "hubkit_slots"


class SlotCache:
    """Keys and values of all slots: per layer one tensor [slots, heads, capacity, dim]."""

    def __init__(self, layers: int, size: int) -> None:
        from transformers.cache_utils import Cache, CacheLayerMixin

        plan = self

        class Layer(CacheLayerMixin):  # type: ignore[misc,no-untyped-call,unused-ignore]
            keys: Any
            values: Any

            def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
                shape = (size, key_states.shape[1], plan.capacity, key_states.shape[3])
                self.keys = key_states.new_zeros(shape)
                self.values = value_states.new_zeros((*shape[:3], value_states.shape[3]))
                self.is_initialized = True

            def update(
                self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
            ) -> tuple[torch.Tensor, torch.Tensor]:
                import torch

                if not self.is_initialized:
                    self.lazy_initialization(key_states, value_states)
                if (more := plan.capacity - self.keys.shape[2]) > 0:
                    self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, more))
                    self.values = torch.nn.functional.pad(self.values, (0, 0, 0, more))
                return plan.store(self, key_states, value_states)

            def get_seq_length(self) -> int:
                return 0

            def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
                return query_length, 0

            def get_max_length(self) -> int:
                return -1

        self.capacity = 0
        self._prefilling: tuple[int, list[int]] | None = None
        self._rows: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None
        self._width = 0
        self._layers: list[Any] = [Layer() for _ in range(layers)]  # type: ignore[no-untyped-call,unused-ignore]
        self.cache = Cache(layers=self._layers)

    def prefill(self, first: int, lengths: torch.Tensor, longest: int) -> None:
        """The next forward pass brings whole, left-padded prompts for the rows from `first` on."""
        self._prefilling = (first, lengths.tolist())
        self._reserve(longest)

    def _reserve(self, columns: int) -> None:
        if columns > self.capacity:
            self.capacity = -(-columns // CACHE_STEP) * CACHE_STEP

    def decode(self, positions: torch.Tensor, width: int) -> None:
        """The next forward pass brings one token per row, for these positions."""
        import torch

        self._prefilling = None
        self._rows = torch.arange(len(positions), device=positions.device)
        self._positions, self._width = positions.clone(), width
        self._reserve(width)

    def store(
        self, layer: Any, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
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
        for layer in self._layers:
            layer.keys[target] = layer.keys[source]
            layer.values[target] = layer.values[source]
