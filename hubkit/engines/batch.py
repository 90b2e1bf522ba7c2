"""Sequences that the embedded engine decodes together, and how their next tokens are chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hubkit.engines.base import Request
from hubkit.engines.slots import SlotCache, fastest_matmul_precision, matmul_precision

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Rounds", "Slot"]

REFILL_SHARE: Final = 4
"""Slots are refilled when 1/REFILL_SHARE of them is free."""
PREFILL_TOKENS: Final = 8192
"""Maximum padded prompt tokens prefilled at once, to bound memory."""
PREFIX_TOKENS: Final = 128
"""Minimum tokens saved before a prefix that prompts share is prefilled separately."""
ONEDNN_TOKENS: Final = 128


@dataclass
class Slot:
    """One sequence being decoded."""

    request: Request
    prompt: int
    """Tokens of the prompt."""
    opened: str
    """The mark, such as `<think>`, with which the template opened the span in the prompt; put before the text."""
    started: float = 0.0


class Batch:
    """The slots under way. Row i of every tensor belongs to slot i."""

    needs_free: int
    """Free slots required before prompts are taken in: prefilling one prompt costs almost as much as prefilling a few,
    and prompts that are prefilled together stay together (SlotCache)."""

    def __init__(self, model: Any, size: int) -> None:
        import torch

        self.slots: dict[int, Slot] = {}
        """Those in use."""
        self._model = model
        self._device = model.device
        self.needs_free = max(1, size // REFILL_SHARE)
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

    def fill(self, entries: list[tuple[Slot, list[int]]]) -> None:
        """Prefill prompts into free slots, in groups of similar length."""
        entries = sorted(entries, key=lambda entry: len(entry[1]))
        while entries:
            longest = len(entries[-1][1])
            group = entries[-max(1, PREFILL_TOKENS // longest) :]
            del entries[-len(group) :]
            self._prefill(group)

    def _prefill(self, group: list[tuple[Slot, list[int]]]) -> None:
        import torch

        prompts = [prompt for _, prompt in group]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        longest = int(lengths.max())
        shared = self._prefill_prefix(prompts)
        ids = torch.zeros(len(group), longest - shared, dtype=torch.long)
        rows = [self._start(slot) for slot, _ in group]
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt[shared:])
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

    def _start(self, slot: Slot) -> int:
        """Give a sequence a free row, with its sampling and its random numbers; returns the row."""
        import torch

        row, sampling = self._free.pop(), slot.request.sampling
        tokens = sampling.max_tokens
        self._widen(tokens)
        slot.started = time.monotonic()
        self.slots[row] = slot
        if sampling.temperature > 0:
            generator = torch.Generator().manual_seed(slot.request.seed & 0x7FFFFFFFFFFFFFFF)
            self._uniform[row, :tokens] = torch.rand(tokens, generator=generator).to(self._device)
        self._limit[row] = tokens
        self._count[row] = 0
        # 2 is above every sum of probabilities, rounded or not: it keeps all tokens.
        settings = (sampling.temperature, 2.0 if sampling.top_p == 1 else sampling.top_p, sampling.top_k)
        self._sampling[row] = torch.tensor(settings)
        return row

    def _prefill_prefix(self, prompts: list[list[int]]) -> int:
        """Prefill the prompts' common prefix once. Returns its tokens; 0 if it would save too little."""
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

    def step(self, ends: torch.Tensor) -> list[tuple[Slot, list[int], bool]]:
        """Take out the slots whose last token ended them, and decode one token of the others.

        Returns (slot, generated ids, ended by an end token) of those taken out.
        """
        finished = self._finished(ends)
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

    def _finished(self, ends: torch.Tensor) -> list[tuple[Slot, list[int], bool]]:
        """Take out the slots whose last token ended them."""
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
            self._drop(ended)
        return finished

    def _drop(self, ended: list[int]) -> None:
        self._cache.drop(ended)

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
        # oneDNN prepares anew for every number of tokens, which does not pay for few tokens.
        with matmul_precision(fastest_matmul_precision() if ids.numel() >= ONEDNN_TOKENS else "none"):
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
            sampled = sample(logits, settings, self._uniform[rows, count], filtered)
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


class Rounds(Batch):
    """For models whose layers keep a state other than keys and values, such as gated delta nets: prompts are taken in
    when all slots are free, and decoded together with the model's own cache until the last of them ends."""

    def __init__(self, model: Any, size: int) -> None:
        super().__init__(model, size)
        self.needs_free = size
        self._past: Any = None
        self._rows: list[int] = []
        """Slots of the round, by their row in the model's cache."""
        self._mask: Any = None

    def fill(self, entries: list[tuple[Slot, list[int]]]) -> None:
        """Prefill prompts, all at once: they share a cache."""
        if entries:
            self._prefill(entries)

    def _prefill(self, group: list[tuple[Slot, list[int]]]) -> None:
        import torch

        self._rows = [self._start(slot) for slot, _ in group]
        longest = max(len(prompt) for _, prompt in group)
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        self._mask = torch.zeros_like(ids)
        for row, (_, prompt) in enumerate(group):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            self._mask[row, longest - len(prompt) :] = 1
        self._mask = self._mask.to(self._device)
        self._past = None
        self._choose(self._rows, self._pass(ids.to(self._device)))

    def step(self, ends: torch.Tensor) -> list[tuple[Slot, list[int], bool]]:
        import torch

        finished = self._finished(ends)
        if self.slots:
            ones = torch.ones(len(self._rows), 1, dtype=torch.long, device=self._device)
            self._mask = torch.cat([self._mask, ones], 1)
            logits = self._pass(self._last[self._rows, None])
            going = [row for row, slot in enumerate(self._rows) if slot in self.slots]
            self._choose([self._rows[row] for row in going], logits[going])
        return finished

    def _drop(self, ended: list[int]) -> None:
        """The model's cache keeps them until the round ends."""

    def _pass(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the last column, float32 [rows, vocabulary]."""
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with matmul_precision(fastest_matmul_precision() if ids.numel() >= ONEDNN_TOKENS else "none"):
            output = self._model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._past,
                use_cache=True,
                logits_to_keep=1,
            )
        self._past = output.past_key_values
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def sample(
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
