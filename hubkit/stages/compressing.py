"""What `hubkit traces compress` is told, as the compressor and engine that the step takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.section import Sampling, Section
from hubkit.stages.source import slug
from hubkit.traces.compressors.rewrite import Rewrite

__all__ = ["PROMPT", "engine_of", "prompt_of", "rewriter"]

S = TypeVar("S", bound=Section)

PROMPT: Final = (
    "Rewrite the reasoning below as briefly as you can. Keep every number and every step that the answer rests on, "
    "and leave out repetition, doubt and detours. Finish with the answer in \\boxed{}.\n\n"
    "Problem:\n{problem}\n\nReasoning:\n{reasoning}"
)
"""What a compressor is asked where no prompt is given."""


def prompt_of(path: Path | None) -> str:
    """A prompt file's text; the built-in prompt without one. Raises InputError if it cannot be read."""
    if path is None:
        return PROMPT
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}", "give a text file") from error


def rewriter(model: str, prompt: str, max_tokens: int, temperature: float, attempts: int) -> Rewrite:
    """A compressor, named after its model. Raises InputError for what it does not take."""
    sampling = {"max_tokens": max_tokens, "temperature": temperature}
    name = slug(Path(model).name)
    return _made(
        Rewrite, name=name, model=model, prompt=prompt, attempts=attempts, sampling=Sampling(**sampling)
    )


def engine_of(model: str, endpoint: str, served_model: str, engine: str, batch_size: int) -> EngineRuntime:
    """How the model generates: here, or at an endpoint. Raises InputError unless it is one of both."""
    if bool(model) == bool(endpoint):
        raise InputError("say which model shortens", "give --model, or --endpoint with --served-model")
    if bool(endpoint) != bool(served_model):
        raise InputError("an endpoint and its model go together", "give both --endpoint and --served-model")
    if endpoint:
        return _made(EngineRuntime, engine="openai", endpoint=endpoint, served_model=served_model)
    return _made(EngineRuntime, engine=engine, batch_size=batch_size)


def _made(kind: type[S], **values: Any) -> S:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "see docs/keys.md") from None
