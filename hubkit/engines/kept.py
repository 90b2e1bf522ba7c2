"""An engine that stays open from one step to the next of the same process, so that a model is loaded once.

    evaluation/s-raw-full/gsm8k, then evaluation/s-raw-full/math-500  ->  one load, or one start of a server

Another model, another kind of step, an error or the last benchmark closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from hubkit.engines.base import Engine

__all__ = ["Kept", "is_open", "kept_engine", "release"]


@dataclass(frozen=True)
class Kept:
    """An open engine, and what is known of it."""

    name: str
    engine: Engine
    notes: dict[str, Any] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)


_open: Kept | None = None


def is_open(name: str) -> bool:
    """Whether `kept_engine` would load nothing for this name."""
    return _open is not None and _open.name == name


@contextmanager
def kept_engine(name: str, make: Callable[[], Engine], keep: bool) -> Iterator[Kept]:
    """The open engine of this name, or else the one that `make` returns, entered. It stays open afterwards if `keep` is
    true. `name` must identify the model and all settings: two different engines never have the same name."""
    global _open
    if _open is None or _open.name != name:
        release()
        with ExitStack() as stack:
            engine = stack.enter_context(make())
            _open = Kept(name, engine, stack=stack.pop_all())
    try:
        yield _open
    except BaseException:
        release()
        raise
    if not keep:
        release()


def release() -> None:
    """Close what is open; its memory is needed for something else."""
    global _open
    if _open is not None:
        kept, _open = _open, None
        kept.stack.close()
