"""Near-duplicates: problems that share most of their runs of five words, found by MinHash.

    "A train travels 360 miles in 3 hours. At the same rate, …" and "A plane travels 1200 miles in 3 hours. At …"
    -> similarity 0.55: that of the sets of their five-word runs, |A and B| / |A or B| (Jaccard)

The method is that of text-dedup and FineWeb: signatures of 128 permutations by datasketch, divided into bands. Only
texts that agree in a whole band are compared, by the share of their signatures that agrees (its standard error is at
most 0.04). Of pairs with just the required similarity one in twenty may be missed. A signature takes 512 bytes on disk,
its bands some 170 bytes in memory.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Near", "Sketches", "without_frame"]

PERMUTATIONS: Final = 128
WORDS: Final = 5
"""Words of a run, including punctuation; as in text-dedup and FineWeb. Shorter runs would also match problems that
only share a template."""
_ALONE: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Signs of scripts without spaces: each is a word."""
_WORD: Final = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|[^\w\s]")
_REPRESENTATIVES: Final = 64
"""Maximum texts of one band that a text is compared with, so that time stays linear."""


def shingles(text: str) -> list[bytes]:
    """Returns the runs of five words of a text in lower case; for a shorter text, the whole text."""
    words = _WORD.findall(text.lower())
    return [
        " ".join(words[i : i + WORDS]).encode("utf-8", "replace")
        for i in range(max(1, len(words) - WORDS + 1))
    ]


def without_frame(texts: Sequence[str]) -> list[str]:
    """Returns the prompts without the words with which all of them begin or end, such as instructions."""
    words = [text.split() for text in texts]
    if len(words) < 2:
        return [" ".join(w) for w in words]
    most = min(map(len, words))
    head = next((i for i in range(most) if len({w[i] for w in words}) > 1), most)
    tail = next((i for i in range(most - head) if len({w[-1 - i] for w in words}) > 1), most - head)
    return [" ".join(w[head : len(w) - tail]) for w in words]


class Near:
    """How texts are sketched and compared at one similarity."""

    def __init__(self, similarity: float) -> None:
        import xxhash
        from datasketch import MinHash, MinHashLSH

        # Candidates of a band are compared again, so a false candidate costs little; a missed pair stays missed.
        bands = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS, weights=(0.05, 0.95))
        self.similarity, self.bands, self._rows = similarity, int(bands.b), int(bands.r)
        self._hash = xxhash.xxh3_64_intdigest
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)

    def signature(self, text: str) -> np.ndarray[Any, Any]:
        import numpy as np

        sketch = self._empty.copy()
        sketch.update_batch(shingles(text))
        return np.asarray(sketch.hashvalues, dtype=np.uint32)

    def keys(self, signature: np.ndarray[Any, Any]) -> list[int]:
        """Returns a hash of each band; texts without a common hash are not compared."""
        size = self._rows
        return [self._hash(signature[i * size : (i + 1) * size].tobytes()) for i in range(self.bands)]

    def index(self, texts: Iterable[str]) -> Index:
        return Index(self, texts)


class Index:
    """Texts in memory, with which others are compared one by one: the problems of benchmarks."""

    def __init__(self, near: Near, texts: Iterable[str]) -> None:
        self._near = near
        self._signatures = [near.signature(text) for text in texts]
        self._found: list[dict[int, list[int]]] = [{} for _ in range(near.bands)]
        for number, signature in enumerate(self._signatures):
            for band, key in zip(self._found, near.keys(signature), strict=True):
                band.setdefault(key, []).append(number)

    def find(self, signature: np.ndarray[Any, Any], keys: Sequence[int]) -> Iterator[tuple[int, float]]:
        """Yield (number, similarity) of each text that is near enough, by number."""
        candidates = {n for band, key in zip(self._found, keys, strict=True) for n in band.get(key, ())}
        for number in sorted(candidates):
            alike = float((self._signatures[number] == signature).mean())
            if alike >= self._near.similarity:
                yield number, alike


class Sketches:
    """Signatures of many texts, on disk, and which of them are near-duplicates of earlier ones."""

    def __init__(self, near: Near, path: Path) -> None:
        self._near, self._path = near, path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._keys = [array("Q") for _ in range(near.bands)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, signature: np.ndarray[Any, Any], keys: Sequence[int]) -> None:
        self._file.write(signature.tobytes())
        for column, key in zip(self._keys, keys, strict=True):
            column.append(key)

    def duplicates(self) -> dict[int, tuple[int, float]]:
        """Returns number -> (an earlier text's number, similarity) of each text that is a near-duplicate.

        The first of a group is not among them. Groups grow by chains: the last may be less like the first.
        """
        import numpy as np

        self._file.flush()
        count = len(self._keys[0])
        found: dict[int, tuple[int, float]] = {}
        if not count:
            return found
        signatures = np.memmap(self._path, dtype=np.uint32, mode="r", shape=(count, PERMUTATIONS))
        for column in self._keys:
            keys = np.frombuffer(column, dtype=np.uint64)
            order = np.argsort(keys, kind="stable")
            edges = np.flatnonzero(np.diff(keys[order])) + 1
            starts, ends = np.append(0, edges), np.append(edges, count)
            for i in np.flatnonzero(ends - starts > 1):
                group = order[starts[i] : ends[i]].tolist()
                self._compare([n for n in group if n not in found], signatures, found)
        return dict(sorted(found.items()))

    def _compare(self, group: list[int], signatures: Any, found: dict[int, tuple[int, float]]) -> None:
        import numpy as np

        for _ in range(_REPRESENTATIVES):
            if len(group) < 2:
                return
            first, rest = group[0], np.asarray(group[1:])
            alike = (signatures[rest] == signatures[first]).mean(axis=1)
            near = alike >= self._near.similarity
            found |= {int(n): (first, float(a)) for n, a in zip(rest[near], alike[near], strict=True)}
            group = rest[~near].tolist()
