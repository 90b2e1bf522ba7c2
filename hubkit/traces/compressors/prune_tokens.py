"""Pruning of words by LLMLingua-2, a token classifier that gives each word a probability to stay.

    raw {"reasoning": "Okay, so I add 47 and 38.\\nThat is 85.", …}, ratio 0.5
    -> {"reasoning": "add 47 38.\\n85.", "ratio": 0.48, …}

LLMLingua-2 (arXiv 2403.12968) is an encoder that was trained to classify which tokens of a text can be left out;
TokenSkip (arXiv 2502.12067) shortened chains of thought with it. As there, a word's probability is the mean of its
tokens' probabilities, words with a digit and words of `reserve` always stay, and texts are read in windows of the
encoder's length that end with a sentence if possible. A word is the text between white space; line breaks stay. Unlike
there, words stay by falling probability until the length is reached in tokens of the recipe's tokenizer, and not above
a quantile of probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field

from hubkit.errors import InputError
from hubkit.store import StepContext
from hubkit.traces.compressors.scored import Pieces, Scored, run_scored
from hubkit.traces.compressors.scorers import open_scorer
from hubkit.traces.compressors.writing import Row
from hubkit.traces.steps import groups, owners, tokens_in

__all__ = ["VERSION", "PruneTokens", "join_words", "run", "words_of"]

VERSION: Final = 1
WINDOWS: Final = 16
"""Windows in one batch of the encoder."""
KEEP: Final = 1
"""The class of tokens that stay."""
_WORD: Final = re.compile(r"\s*\S+|\s+\Z")
_DIGIT: Final = re.compile(r"\d")


class PruneTokens(Scored):
    """Leaves out the words that a token classifier, LLMLingua-2, finds least needed, down to `ratio`."""

    step = "hubkit.traces.compressors.prune_tokens:run"

    task = "token-classification"

    kind: Literal["prune-tokens"]
    model: str = "microsoft/llmlingua-2-xlm-roberta-large-meetingbank"
    """A Hub id, or a folder beside the recipe when it starts with a dot: a token classifier with two classes, of which
    the second is "stays"."""
    digits: bool = True
    """Whether words with a digit always stay."""
    reserve: list[str] = Field(default=[])
    """Texts; a word that holds one of them always stays, such as "=" or "\\\\boxed"."""

    def describe(self) -> str:
        kept = ["words with a digit"] * self.digits + [f'words with "{text}"' for text in self.reserve]
        return (
            f"{self.name} ({self.model}, as LLMLingua-2) left out the words of {self.what} that it found least needed, "
            f"down to {self.ratio:.0%} of {self.whole}{'; ' + ', '.join(kept) + ' stayed' if kept else ''}; whether "
            "what is left still reaches the answer was not looked at"
        )


def run(context: StepContext) -> None:
    """Write data.parquet with this shard's pruned traces, and rejected.parquet, in raw's order."""
    config, runtime = context.config, context.runtime

    def forced(word: str) -> bool:
        return bool(config["digits"] and _DIGIT.search(word)) or any(
            text in word for text in config["reserve"]
        )

    run_scored(
        context,
        Pieces(words_of, join_words, forced),
        lambda: _Classifier(
            context.model("compressor"),
            runtime["device"],
            runtime["threads"],
            runtime.get("precision", "auto"),
        ),
    )


def words_of(text: str) -> list[str]:
    """Returns the words, each with the white space before it: joined they are the text."""
    return _WORD.findall(text)


def join_words(words: Sequence[str], stay: Sequence[bool]) -> str:
    """Returns the words that stay. A line break before a word that is left out moves to the next word that stays."""
    parts, broken = [], ""
    for word, kept in zip(words, stay, strict=True):
        bare = word.lstrip()
        space = word[: len(word) - len(bare)]
        if kept:
            parts.append((space if "\n" in space or not broken else broken) + bare)
            broken = ""
        elif "\n" in space:
            broken = space
    return "".join(parts)


class _Classifier:
    """Gives each word a probability to stay, by a token classifier; `precision` as for a causal scorer."""

    def __init__(self, folder: Path, device: str, threads: int, precision: str = "auto") -> None:
        self._folder, self._device, self._threads = folder, device, threads
        self.precision = precision

    def __enter__(self) -> Self:
        import torch
        from transformers import AutoModelForTokenClassification

        self._tokenizer, model = open_scorer(
            AutoModelForTokenClassification, self._folder, "token classifier", self._device, self.precision
        )
        if model.config.num_labels != 2 or not self._tokenizer.is_fast:
            raise InputError(
                f"{self._folder.name} is no LLMLingua-2: {model.config.num_labels} classes, or no tokenizer.json",
                "use microsoft/llmlingua-2-xlm-roberta-large-meetingbank or one like it",
            )
        if model.device.type == "cpu":
            torch.set_num_threads(self._threads)
        self._model = model
        self.precision = str(self._model.dtype).removeprefix("torch.")
        # XLM-RoBERTa counts positions from its padding token's number on.
        special = self._tokenizer.num_special_tokens_to_add()
        longest = model.config.max_position_embeddings - (model.config.pad_token_id or 0) - 1
        self._room = min(512, longest, self._tokenizer.model_max_length) - special
        return self

    def __exit__(self, *_: object) -> None:
        del self._model

    def scores(self, traces: Sequence[tuple[Row, list[str]]]) -> list[list[float] | None]:
        """A probability for each word of each trace."""
        windows: list[tuple[int, slice]] = []
        for number, (_, words) in enumerate(traces):
            # A sentence or line ends where the next word begins another line, or after its full stop.
            ends = [
                a.endswith((".", "!", "?")) or "\n" in b for a, b in zip(words, [*words[1:], ""], strict=True)
            ]
            windows += [
                (number, part) for part in groups(tokens_in(self._tokenizer, words), ends, self._room)
            ]
        found: list[list[float] | None] = [[0.0] * len(words) for _, words in traces]
        for start in range(0, len(windows), WINDOWS):
            batch = windows[start : start + WINDOWS]
            made = self._classify([traces[number][1][part] for number, part in batch])
            for (number, part), values in zip(batch, made, strict=True):
                of = found[number]
                assert of is not None
                of[part] = values
        return found

    def _classify(self, windows: list[list[str]]) -> list[list[float]]:
        import torch

        texts = ["".join(words) for words in windows]
        encoded = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._room + self._tokenizer.num_special_tokens_to_add(),
            padding=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        inputs = {name: encoded[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            kept = self._model(**inputs).logits.float().softmax(-1)[..., KEEP].cpu()
        result = []
        for line, words in enumerate(windows):
            real = encoded["special_tokens_mask"][line] == 0
            spans = [(int(a), int(b)) for a, b in encoded["offset_mapping"][line][real]]
            sums, counts = [0.0] * len(words), [0] * len(words)
            for word, value in zip(owners(words, spans), kept[line][real].tolist(), strict=True):
                sums[word] += value
                counts[word] += 1
            result.append([s / max(1, n) for s, n in zip(sums, counts, strict=True)])
        return result
