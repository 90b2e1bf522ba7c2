"""Claims of a release, and the results of computing them again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Claim", "Claims"]

_SHOWN = 120
"""Maximum characters of a value that a claim shows, since published values may have any length."""


@dataclass(frozen=True)
class Claim:
    """One statement of a release, and the value that was found."""

    repo: str
    what: str
    published: str
    recomputed: str
    status: Literal["same", "differs", "not checked"]


@dataclass
class Claims:
    """All checked claims, in order."""

    found: list[Claim] = field(default_factory=list)

    def compare(self, repo: str, what: str, published: Any, recomputed: Any) -> bool:
        """Record whether two values agree; numbers agree if they differ only by rounding of the last digits."""
        same = _equal(published, recomputed)
        shown = _difference(published, recomputed)
        self._add(repo, what, *shown, "same" if same else "differs")
        return same

    def compare_rows(self, repo: str, what: str, wrong: Iterable[str], n: int) -> bool:
        """Record a claim about n rows, given those that contradict it ("id x: 12 for 13")."""
        listed = list(wrong)
        first = f"{n - len(listed):,} of {n:,} rows; first: {listed[0]}" if listed else f"{n:,} rows"
        self._add(repo, what, f"{n:,} rows", first, "differs" if listed else "same")
        return not listed

    def wrong(self, repo: str, what: str, published: Any, why: str) -> None:
        """Record a claim that cannot be true."""
        self._add(repo, what, published, why, "differs")

    def skip(self, repo: str, what: str, why: str) -> None:
        """Record a claim that could not be checked, with the reason."""
        self._add(repo, what, "", why, "not checked")

    def _add(
        self,
        repo: str,
        what: str,
        published: Any,
        recomputed: Any,
        status: Literal["same", "differs", "not checked"],
    ) -> None:
        self.found.append(Claim(repo, _line(what), _text(published), _text(recomputed), status))

    def differing(self) -> list[Claim]:
        return [claim for claim in self.found if claim.status == "differs"]

    def counts(self) -> dict[str, int]:
        """Status -> number of claims."""
        statuses = [claim.status for claim in self.found]
        return {status: statuses.count(status) for status in ("same", "differs", "not checked")}

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.found)

    def as_dicts(self) -> list[dict[str, str]]:
        return [asdict(claim) for claim in self.found]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return bool(a == b)


def _difference(a: Any, b: Any) -> tuple[Any, Any]:
    """Two values as they are shown: of mappings and lists, what differs, or how much is the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        differ = [key for key in a.keys() | b.keys() if not _equal(a.get(key), b.get(key))]
        if not differ:
            return f"{len(a)} values", f"{len(b)} values"
        return {k: a.get(k) for k in sorted(differ)}, {k: b.get(k) for k in sorted(differ)}
    if isinstance(a, list) and isinstance(b, list):
        for number, (x, y) in enumerate(zip(a, b, strict=False)):
            if not _equal(x, y):
                first, second = _difference(x, y)
                return f"row {number}: {first}", f"row {number}: {second}"
        return f"{len(a)} rows", f"{len(b)} rows"
    return a, b


def _text(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    else:
        text = _line(str(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _line(text: str) -> str:
    """A published text in one line, without characters by which it could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
