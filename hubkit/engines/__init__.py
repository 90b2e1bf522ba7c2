"""Text generation behind one interface: `open_engine` gives the one that a recipe names."""

from __future__ import annotations

from pathlib import Path

from hubkit.engines.base import Engine, Request, Response
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError

__all__ = ["Engine", "Request", "Response", "open_engine"]


def open_engine(
    model: Path | str,
    runtime: EngineRuntime,
    device: str = "auto",
    threads: int = 1,
    adapter: Path | None = None,
) -> Engine:
    """The engine for a model folder and a PEFT adapter on it, or for a model that an endpoint serves."""
    if runtime.engine == "transformers":
        from hubkit.engines.transformers import TransformersEngine

        return TransformersEngine(Path(model), runtime.batch_size, device, threads, adapter)
    if adapter is not None:
        # It would answer with the base model, and nobody would notice.
        raise EngineError("an adapter cannot be sent to a server", "use engine: transformers for students")
    if runtime.engine == "vllm":
        from hubkit.engines.vllm import VLLMEngine

        return VLLMEngine(Path(model), runtime)
    from hubkit.engines.openai import OpenAIEngine

    name = Path(model).name if Path(model).is_dir() else str(model)
    return OpenAIEngine(runtime, runtime.served_model or name)
