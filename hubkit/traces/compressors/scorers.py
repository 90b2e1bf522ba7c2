"""Scores of the steps of a trace by a causal model, with several measures behind one interface.

    with CausalScorer(folder, "entropy") as scorer:
        scorer.scores([({"problem": "47 + 38 = ?", "answer": "85", …}, ["First 47 + 38. ", "Let me see. ", "So 85."])])
    -> [[7.1, 2.3, 1.9]]

The model reads its chat template's prompt with the problem, then the reasoning. Logits are computed for a few
positions at a time: those of a whole trace of 30,000 tokens would be 30 GB with a vocabulary of 250,000.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from hubkit.engines.slots import fastest_matmul_precision, matmul_precision
from hubkit.engines.weights import load_model, read_config
from hubkit.errors import EngineError, InputError, first_line
from hubkit.precision import weight_dtype
from hubkit.traces.compressors.writing import Row
from hubkit.traces.lengths import plain_backend
from hubkit.traces.steps import owners
from hubkit.verifiers.extract import boxed

if TYPE_CHECKING:
    import torch

__all__ = ["SCORES", "CausalScorer", "open_scorer"]

LOGITS: Final = 1 << 25
"""Maximum logits in memory at once."""
TOKENS: Final = 16_384
"""Tokens in one batch of the model, padding included; a longer trace is alone."""
_CLOSING: Final = "\n\nThe final answer is \\boxed{"


@dataclass(frozen=True)
class _Trace:
    """One trace in tokens of the scorer."""

    prompt: list[int]
    tokens: list[int]
    step: list[int]
    """Step that each token belongs to."""
    steps: int
    closing: list[int]
    """The text that leads to the answer, and the answer."""
    answer: int
    """Tokens of the answer, the last of `closing`."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tokens) + len(self.closing)


@dataclass(frozen=True)
class Score:
    words: str
    """For cards: what a step is worth."""
    score: Callable[[CausalScorer, list[_Trace]], list[list[float]]]


def open_scorer(auto: Any, folder: Path, what: str, device: str, precision: str) -> tuple[Any, Any]:
    """Returns the tokenizer and the model in a folder, on its device, by one of transformers' Auto classes.

    `precision` is `run.precision`. Raises InputError, which calls it `what`, for a folder that cannot be loaded.
    """
    import torch
    from transformers import AutoTokenizer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        read_config(folder)  # which says what is wrong in one line
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model = load_model(auto, folder, dtype=weight_dtype(precision, device, folder))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot load the {what} {folder.name}: {first_line(error)}", "check its folder"
        ) from error
    return tokenizer, model.to(device).eval()


class CausalScorer:
    """Scores steps by a causal model, whose weights are loaded as the embedded engine loads them.

    `precision` is `run.precision`, and once the scorer is open the type of its weights.
    """

    def __init__(
        self, folder: Path, by: str, device: str = "auto", threads: int = 1, precision: str = "auto"
    ) -> None:
        self._folder, self._by, self._device, self._threads = folder, by, device, threads
        self.precision = precision
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoModelForCausalLM

        self._tokenizer, model = open_scorer(
            AutoModelForCausalLM, self._folder, "scorer", self._device, self.precision
        )
        if not self._tokenizer.is_fast:
            raise InputError(
                f"the tokenizer of {self._folder.name} gives no positions in the text",
                "use one with a tokenizer.json",
            )
        self._model = model
        self.precision = str(self._model.dtype).removeprefix("torch.")
        self._head = model.get_output_embeddings()
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._limit = int(limit or 1 << 30)
        if model.device.type == "cpu":
            torch.set_num_threads(self._threads)
            self._stack.enter_context(matmul_precision(fastest_matmul_precision()))
        self._check_head()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        del self._model, self._head

    def scores(self, traces: Sequence[tuple[Row, list[str]]]) -> list[list[float] | None]:
        """Returns a score for each step of each trace; None for a trace that exceeds the model's context.

        Raises EngineError if memory runs out.
        """
        import torch

        encoded = [self._encode(row, steps) for row, steps in traces]
        fitting = [i for i, trace in enumerate(encoded) if len(trace) <= self._limit]
        try:
            with torch.inference_mode():
                made = SCORES[self._by].score(self, [encoded[i] for i in fitting])
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self._folder.name}: out of memory while it scores", "use a larger GPU, or a smaller scorer"
            ) from error
        found: list[list[float] | None] = [None] * len(traces)
        for i, scores in zip(fitting, made, strict=True):
            if not all(map(math.isfinite, scores)):
                raise EngineError(
                    f"{self._folder.name} gives scores that are not numbers",
                    "use another model as the scorer",
                )
            found[i] = scores
        return found

    def _encode(self, row: Row, steps: list[str]) -> _Trace:
        chat = bool(self._tokenizer.chat_template)
        prompt = f"{row['problem']}\n\n"
        if chat:
            messages = [{"role": "user", "content": row["problem"]}]
            prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        encoding = plain_backend(self._tokenizer).encode("".join(steps), add_special_tokens=False)
        answer = row["answer"] or boxed(row["solution"]) or row["solution"].strip()
        leading, told = self._ids(_CLOSING), self._ids(f"{answer}}}")
        return _Trace(
            self._tokenizer(prompt, add_special_tokens=not chat)["input_ids"],
            list(encoding.ids),
            owners(steps, encoding.offsets),
            len(steps),
            leading + told,
            len(told),
        )

    def _ids(self, text: str) -> list[int]:
        return list(plain_backend(self._tokenizer).encode(text, add_special_tokens=False).ids)

    def _check_head(self) -> None:
        """Check that the head alone makes the model's logits: a few models scale or cap them afterwards."""
        import torch

        ids = torch.tensor([self._ids("First 47 + 38. So 85.")], device=self._model.device)
        with torch.inference_mode():
            whole = self._model(ids).logits.float()
            alone = self._head(self._hidden(ids, torch.ones_like(ids))).float()
        if not torch.allclose(whole, alone, rtol=0, atol=0.02 * float(whole.abs().max())):
            raise InputError(
                f"{self._folder.name} changes its logits after its output layer",
                "use another model as the scorer",
            )

    def _hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self._model.base_model(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return hidden

    def _read(self, sequences: Sequence[list[int]], parts: Sequence[slice]) -> Iterator[tuple[int, Any, Any]]:
        """(index, hidden states before the tokens of a part, those tokens) of each sequence, in any order."""
        import torch

        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        while order:
            width = len(sequences[order[-1]])
            batch = [order.pop() for _ in range(min(len(order), max(1, TOKENS // width)))]
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for line, i in enumerate(batch):
                ids[line, : len(sequences[i])] = torch.tensor(sequences[i])
                mask[line, : len(sequences[i])] = 1
            ids, mask = ids.to(self._model.device), mask.to(self._model.device)
            hidden = self._hidden(ids, mask)
            for line, i in enumerate(batch):
                start, stop = parts[i].start, parts[i].stop
                yield i, hidden[line, start - 1 : stop - 1], ids[line, start:stop]

    def _measure(self, hidden: Any, targets: Any, entropy: bool) -> Any:
        """Returns for each position the entropy of the next token, or its surprisal; in nats, float32."""
        import torch

        room = max(1, LOGITS // self._head.weight.shape[0])
        found = []
        for start in range(0, len(targets), room):
            logs = torch.log_softmax(self._head(hidden[start : start + room]).float(), dim=-1)
            if entropy:
                found.append(torch.special.entr(logs.exp_()).sum(-1))
            else:
                found.append(-logs.gather(-1, targets[start : start + room, None])[:, 0])
        return torch.cat(found) if found else torch.zeros(0)

    def by_tokens(self, traces: list[_Trace], entropy: bool) -> list[list[float]]:
        """Returns the sums of the entropies of each step's tokens, or the means of their surprisals."""
        sequences = [trace.prompt + trace.tokens for trace in traces]
        parts = [slice(len(t.prompt), len(t.prompt) + len(t.tokens)) for t in traces]
        found: list[list[float]] = [[] for _ in traces]
        for i, hidden, targets in self._read(sequences, parts):
            sums, counts = [0.0] * traces[i].steps, [0] * traces[i].steps
            values = self._measure(hidden, targets, entropy).tolist()
            for step, value in zip(traces[i].step, values, strict=True):
                sums[step] += value
                counts[step] += 1
            found[i] = sums if entropy else [s / max(1, n) for s, n in zip(sums, counts, strict=True)]
        return found

    def by_answer(self, traces: list[_Trace]) -> list[list[float]]:
        """Returns how much the mean surprisal of the answer's tokens rises without each step."""
        found = []
        for trace in traces:
            bodies = [trace.tokens]
            for step in range(trace.steps):
                bodies.append([t for t, of in zip(trace.tokens, trace.step, strict=True) if of != step])
            sequences = [trace.prompt + body + trace.closing for body in bodies]
            parts = [slice(len(s) - trace.answer, len(s)) for s in sequences]
            values = [0.0] * len(sequences)
            for i, hidden, targets in self._read(sequences, parts):
                values[i] = float(self._measure(hidden, targets, entropy=False).mean())
            found.append([value - values[0] for value in values[1:]])
        return found


SCORES: Final[dict[str, Score]] = {
    "answer": Score("how much less likely the answer is without it", CausalScorer.by_answer),
    "entropy": Score(
        "the sum of its tokens' entropies", lambda scorer, traces: scorer.by_tokens(traces, entropy=True)
    ),
    "surprisal": Score(
        "the mean surprisal of its tokens", lambda scorer, traces: scorer.by_tokens(traces, entropy=False)
    ),
}
