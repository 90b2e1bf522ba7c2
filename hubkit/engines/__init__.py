"""Text generation behind one interface: `open_engine` gives the one that a recipe names."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from hubkit.engines.base import Engine, Request, Response
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError

__all__ = ["Engine", "Request", "Response", "choose", "open_engine"]


def choose(runtime: EngineRuntime, device: str = "auto", adapter: bool = False) -> EngineRuntime:
    """Returns the settings with `auto` resolved: vLLM if it is installed and a GPU may be used, else transformers.

    Only the embedded engine reads an `adapter` on a base; `evaluation.published` merges it for the others.
    """
    if runtime.engine != "auto":
        return runtime
    vllm = not adapter and device in ("auto", "cuda") and importlib.util.find_spec("vllm") is not None
    if vllm:
        import torch

        vllm = torch.cuda.is_available()
    return runtime.model_copy(update={"engine": "vllm" if vllm else "transformers"})


def open_engine(
    model: Path | str,
    runtime: EngineRuntime,
    device: str = "auto",
    threads: int = 1,
    *,
    adapter: Path | None = None,
    marks: Sequence[str] = (),
    precision: str = "auto",
) -> Engine:
    """Returns the engine for a model folder and a PEFT adapter on it, or for a model that an endpoint serves.

    `marks` are the (open, close) of thinking spans that a recipe adds: they stay in the text if they are special
    tokens.
    `precision` is a recipe's `run.precision`, for the embedded engine and vLLM.
    """
    runtime = choose(runtime, device, adapter is not None)
    if runtime.engine == "transformers":
        from hubkit.engines.transformers import TransformersEngine

        return TransformersEngine(Path(model), runtime.batch_size, device, threads, adapter, marks, precision)
    if adapter is not None:
        # The base model would answer, and nobody would notice.
        raise EngineError("an adapter cannot be sent to a server", "use engine: transformers for students")
    if runtime.engine == "vllm":
        from hubkit.engines.vllm import VLLMEngine

        return VLLMEngine(Path(model), runtime, marks, precision)
    from hubkit.engines.openai import OpenAIEngine

    name = Path(model).name if Path(model).is_dir() else str(model)
    return OpenAIEngine(runtime, runtime.served_model or name)
