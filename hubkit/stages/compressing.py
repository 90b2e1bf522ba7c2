"""Turns the options of `hubkit traces compress` into the compressor and the engine of the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.section import Sampling, Section
from hubkit.stages.source import slug
from hubkit.traces.compressors import COMPRESSORS, Compressor
from hubkit.traces.compressors.asked import Asked

__all__ = ["compressor_of", "engine_of", "prompt_of"]

S = TypeVar("S", bound=Section)

_TEXTS: Final = "Problem:\n{problem}\n\nReasoning:\n{reasoning}"
_PROMPTS: Final = {
    "rewrite": "Rewrite the reasoning below as briefly as you can. Keep every number and every step that the answer "
    "rests on, and leave out repetition, doubt and detours.",
    "prune": "Copy the reasoning below and leave out all words that the answer does not rest on. Change no word, add "
    "none, and keep their order.",
}
"""Built-in prompts of compressors that ask a model, without their end."""


def prompt_of(path: Path | None, kind: str = "rewrite", ratio: float | None = None) -> str:
    """Returns a prompt file's text, or the built-in prompt. Raises InputError if the file cannot be read."""
    if path is None:
        aim = " Use about {words} words." if ratio is not None else ""
        return f"{_PROMPTS.get(kind, '')}{aim} Finish with the answer in \\boxed{{}}.\n\n{_TEXTS}"
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}", "give a text file") from error


def compressor_of(
    kind: str,
    model: str,
    *,
    prompt: Path | str | None,
    max_tokens: int,
    temperature: float,
    attempts: int,
    name: str = "",
    **more: Any,
) -> Compressor:
    """Returns a compressor of a kind, named after its model by default. `prompt` is a file, or the text itself.
    `more` are further keys of the kind; None values are left out. Without a `model` the kind's default is used, if any.

    Raises InputError for an unknown kind, and for keys that the kind does not take.
    """
    if kind not in COMPRESSORS:
        raise InputError(f"there is no kind {kind!r} of compressor", f"give one of {', '.join(COMPRESSORS)}")
    values: dict[str, Any] = {"kind": kind, "name": name or slug(Path(model).name)}
    values |= {"model": model} if model else {}
    values |= {key: value for key, value in more.items() if value is not None}
    if issubclass(COMPRESSORS[kind], Asked):
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
        text = prompt if isinstance(prompt, str) else prompt_of(prompt, kind, values.get("ratio"))
        values |= {"prompt": text, "attempts": attempts, "sampling": sampling}
    elif prompt is not None:
        raise InputError(f"a compressor of kind {kind} has no prompt", "leave the prompt out")
    return _made(COMPRESSORS[kind], **values)


def engine_of(model: str, endpoint: str, served_model: str, engine: str, batch_size: int) -> EngineRuntime:
    """Returns the engine of a model: here, or at an endpoint. Raises InputError unless exactly one is given."""
    if bool(model) == bool(endpoint):
        raise InputError("say which model shortens", "give --model, or --endpoint with --served-model")
    if bool(endpoint) != bool(served_model):
        raise InputError("an endpoint and its model go together", "give both --endpoint and --served-model")
    if endpoint:
        return _made(EngineRuntime, engine="openai", endpoint=endpoint, served_model=served_model)
    return _made(EngineRuntime, engine=engine, batch_size=batch_size)


def _made(section: type[S], /, **values: Any) -> S:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {first['msg']}" if where else first["msg"], "see docs/keys.md") from None
