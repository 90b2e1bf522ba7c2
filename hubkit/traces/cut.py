"""Beginnings of texts with an exact number of tokens.

    cut_batch(tokenizer, ["We need 47 + 38 - 12. First …"], [10], [210])  ->  [("We need 47 + 38", 10)]

A cut text does not always tokenise to the number of tokens it was cut at: a byte-level tokenizer can merge differently
at the new end, or the cut can fall inside a character. The cut is then moved to the nearest text that has exactly the
budget; where none exists it is the longest below it.

The tokenizer takes nearly all of the time, so it is called in batches: once for the ends of tokens, on only as much of
each text as the budget needs, and once to count the tokens of the cuts. Further rounds are for the few texts whose cut
was not exact. Every length is that of the cut text itself, tokenised alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

from hubkit.errors import InputError
from hubkit.traces.lengths import plain_backend, token_counts

__all__ = ["Cut", "cut", "cut_batch"]

REACH: Final = 3
"""Tokens past the budget that are searched for an exact cut."""
MARGIN: Final = 12
"""Tokens left unused at the end of a trace's head. A tokenizer's choices reach about a word ahead, so
further back a head's tokens end where the whole trace's do."""

Cut = tuple[str, int]
"""A text and the number of its tokens."""


def cut(tokenizer: Any, text: str, budget: int) -> str:
    """Returns the longest beginning of `text` with `budget` tokens (or the nearest number below that exists)."""
    return cut_batch(tokenizer, [text], [budget], token_counts(tokenizer, [text]))[0][0]


def cut_batch(
    tokenizer: Any, texts: Sequence[str], budgets: Sequence[int], lengths: Sequence[int]
) -> list[Cut]:
    """`cut` for many texts at once, each with its tokens counted; `lengths` are the whole texts' tokens.

    Raises InputError for a tokenizer that does not give the positions of its tokens in the text.
    """
    if not tokenizer.is_fast:
        raise InputError("the tokenizer gives no positions in the text", "use one with a tokenizer.json")
    done: dict[int, Cut] = {i: (texts[i], lengths[i]) for i in range(len(texts)) if lengths[i] <= budgets[i]}
    wanted = [i for i in range(len(texts)) if i not in done]
    searches = {
        i: _search(texts[i], ends, budgets[i])
        for i, ends in zip(wanted, _token_ends(tokenizer, texts, budgets, lengths, wanted), strict=True)
    }
    candidates = {i: next(search) for i, search in searches.items()}
    while candidates:
        counts = token_counts(tokenizer, list(candidates.values()))
        for i, count in zip(list(candidates), counts, strict=True):
            try:
                candidates[i] = searches[i].send(count)
            except StopIteration as found:
                done[i] = found.value
                del candidates[i]
    return [done[i] for i in range(len(texts))]


def _search(text: str, ends: Sequence[int], budget: int) -> Generator[str, int, Cut]:
    """Yields beginnings of `text`, is sent how many tokens each has, and returns the best.

    It starts at the budget's own boundary and looks a little around it for one that is exact.
    """
    best: Cut = ("", 0)
    ahead = range(budget + 1, min(budget + REACH + 1, len(ends)))
    for place in [*([budget] if budget else []), *ahead, *range(budget - 1, 0, -1)]:
        candidate = text[: ends[place - 1]]
        length = yield candidate
        if length == budget:
            return candidate, length
        if length < budget:
            best = max(best, (candidate, length), key=lambda cut: len(cut[0]))
            if place < budget - REACH:
                break
    # Tokens that are bytes of one character all end where it does, or nowhere: go on by characters.
    for end in range(len(best[0]) + 1, min(len(best[0]) + 1 + 4 * REACH, len(text) + 1)):
        length = yield text[:end]
        if length > budget:
            break
        best = text[:end], length
    return best


def _token_ends(
    tokenizer: Any,
    texts: Sequence[str],
    budgets: Sequence[int],
    lengths: Sequence[int],
    wanted: Sequence[int],
) -> list[list[int]]:
    """Returns where the tokens end in each required text, at least as far as the search may go."""
    backend = plain_backend(tokenizer)

    def ends(parts: list[str]) -> list[list[int]]:
        return [
            [end for _, end in encoding.offsets]
            for encoding in backend.encode_batch(parts, add_special_tokens=False)
        ]

    heads = []
    for i in wanted:
        needed = budgets[i] + REACH + 2 * MARGIN
        heads.append(texts[i][: int(1.2 * needed * len(texts[i]) / lengths[i])])
    found = ends(heads)
    # A text whose beginning has longer tokens than the rest is tokenised whole after all.
    short = [
        place
        for place, i in enumerate(wanted)
        if len(found[place]) < budgets[i] + REACH + MARGIN and len(heads[place]) < len(texts[i])
    ]
    for place, whole in zip(short, ends([texts[wanted[place]] for place in short]), strict=True):
        found[place] = whole
    return found
