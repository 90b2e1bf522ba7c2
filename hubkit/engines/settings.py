"""How one model generates: a recipe's `run.engines.<model>`. Never part of a step's identity."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from hubkit.section import Section

__all__ = ["EngineRuntime"]

PARALLEL: Final = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
"""vLLM's arguments whose product is the number of its GPUs."""
VLLM_OWN: Final = {"model", "served_model_name", "host", "port", "uds", "api_key", "config", "root_path"}
"""vLLM's arguments that hubkit sets itself."""


class EngineRuntime(Section):
    """How one model generates. Never part of an identity."""

    engine: Literal["auto", "transformers", "vllm", "openai"] = "auto"
    """auto: vllm where it is installed and there is a GPU, else transformers; the record says which it was."""
    batch_size: int = Field(default=64, gt=0)
    """transformers: sequences decoded together."""
    vllm: dict[str, Any] = Field(default={})
    """vllm: arguments of its server by their own names, such as tensor_parallel_size or max_model_len."""
    in_process: bool = True
    """vllm: true: its engine without its API server, which is faster; false: its API server, with all arguments."""
    endpoint: str | list[str] = ""
    """openai: base address ending in /v1, or a list of addresses that share the load."""
    served_model: str = ""
    """openai: the model's name at the endpoint; empty: the recipe's."""
    api_key_env: str = "OPENAI_API_KEY"
    """openai: environment variable that holds the key."""
    window: int = Field(default=256, gt=0)
    """openai: requests in flight at each server; vllm: sequences decoded together (as many again wait in its queue)."""
    timeout_s: float | None = Field(default=None, gt=0)
    """vllm, openai: seconds that one request may take, all retries included; unset: 300, and max_tokens at 5/s."""
    tries: int = Field(default=5, gt=0)
    """vllm, openai: failures after which a request is recorded as an error."""
    max_spent_tokens: int | None = Field(default=None, gt=0)
    """Tokens of prompts and answers that a step may spend, including all its shards and resumed runs."""
    max_cost: float | None = Field(default=None, gt=0)
    """What a step may cost, in the currency of the prices."""
    prompt_price: float = Field(default=0.0, ge=0)
    """Per million tokens of prompts."""
    completion_price: float = Field(default=0.0, ge=0)
    """Per million tokens of answers."""

    @field_validator("vllm")
    @classmethod
    def _hubkits_own_are_not_given(cls, vllm: dict[str, Any]) -> dict[str, Any]:
        for name in vllm:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"{name!r} is not an argument of vLLM: write it with underscores, without --"
                )
            if name in VLLM_OWN:
                raise ValueError(f"hubkit sets vLLM's {name} itself")
        return vllm

    @model_validator(mode="after")
    def _parsers_are_the_servers(self) -> EngineRuntime:
        if self.in_process and "reasoning_parser" in self.vllm:
            raise ValueError(
                "vLLM's reasoning_parser needs in_process: false; hubkit finds <think> without it"
            )
        return self

    @model_validator(mode="after")
    def _cost_is_known(self) -> EngineRuntime:
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            raise ValueError("max_cost needs prompt_price and completion_price, per million tokens")
        return self

    @property
    def vllm_gpus(self) -> int:
        """The number of GPUs that vLLM takes with these arguments."""
        return math.prod(int(self.vllm.get(name) or 1) for name in PARALLEL)
