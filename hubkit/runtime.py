"""The recipe's `run` section: how steps run, and where. None of it is part of a step's identity."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["EngineRuntime", "Frozen", "Jobs", "Resources", "Run"]

VLLM_OWN = {"model", "served_model_name", "host", "port", "uds", "api_key", "config", "root_path"}

StepKind = Literal[
    "default",
    "problems",
    "contamination",
    "traces",
    "judge",
    "raw",
    "compress",
    "compressed",
    "truncated",
    "pairs",
    "student",
    "evaluation",
    "report",
    "publish",
]
# Both stand in lines of a script, so they must not end them.
SbatchWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:+-]*$")]
SbatchOption = Annotated[str, Field(pattern=r"^--[a-z][^\r\n]*$")]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineRuntime(Frozen):
    """How one model generates. Never part of an identity."""

    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    batch_size: int = Field(default=64, gt=0)
    """transformers: sequences decoded together."""
    vllm: dict[str, Any] = {}
    """vllm: arguments of its server by their own names, such as tensor_parallel_size or max_model_len."""
    in_process: bool = True
    """vllm: its engine without its API server, which is faster; false: the server, with all of its arguments."""
    endpoint: str | list[str] = ""
    """openai: base address ending in /v1, or several that share the load."""
    served_model: str = ""
    """openai: the model's name there; empty: the recipe's."""
    api_key_env: str = "OPENAI_API_KEY"
    """openai: environment variable that holds the key."""
    window: int = Field(default=256, gt=0)
    """openai: requests in flight, at each server; vllm: sequences decoded together, and as many again wait."""
    timeout_s: float | None = Field(default=None, gt=0)
    """vllm, openai: seconds one request may take, all retries included; unset: from its max_tokens."""
    tries: int = Field(default=5, gt=0)
    """vllm, openai: failures after which a request is set aside as an error."""
    max_spent_tokens: int | None = Field(default=None, gt=0)
    """Tokens, of prompts and answers, that a step may spend, its shards and resumed runs together."""
    max_cost: float | None = Field(default=None, gt=0)
    """What a step may cost, in the currency of the prices."""
    prompt_price: float = Field(default=0.0, ge=0)
    completion_price: float = Field(default=0.0, ge=0)
    """Per million tokens."""

    @field_validator("vllm")
    @classmethod
    def _hubkits_own_are_not_given(cls, vllm: dict[str, Any]) -> dict[str, Any]:
        for name in vllm:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{name!r} is no argument of vLLM: write it with underscores, without --")
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


class Resources(Frozen):
    """What one step asks of where it runs.

    ray: cpus, gpus, memory_gb; hf-jobs: flavor, timeout; slurm: all others.
    """

    cpus: int = Field(default=1, gt=0)
    gpus: int = Field(default=0, ge=0)
    memory_gb: int | None = Field(default=None, gt=0)
    """Unset: what the cluster gives."""
    partition: SbatchWord = ""
    account: SbatchWord = ""
    time: SbatchWord = ""
    """Limit, as Slurm writes it: 12:00:00 or 2-00:00:00."""
    sbatch: list[SbatchOption] = []
    """Further options of sbatch, such as --constraint=h100."""
    flavor: str = Field(default="cpu-basic", pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Hardware of a job on the Hub, by its name there: `hf jobs hardware`."""
    timeout: str = Field(default="12h", pattern=r"^[0-9]+(\.[0-9]+)?[smhd]?$")
    """Limit of a job on the Hub; one that reaches it goes on in another."""


class Jobs(Frozen):
    """What jobs on the Hub need besides hardware."""

    dependencies: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\r\n]*$")]] | None = None
    """What uv installs for a job; unset: this version of hubkit."""
    python: str = Field(default="", pattern=r"^([A-Za-z0-9/.][^\r\n]*)?$")
    """Python that uv runs a job with, such as 3.12; unset: the image's."""
    secrets: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = []
    """Names of environment variables that jobs are given as secrets; an engine's api_key_env and HF_TOKEN are."""


class Run(Frozen):
    executor: Literal["local", "ray", "slurm", "hf-jobs"] = "local"
    """Where steps run: docs/scaling.md."""
    ray_address: str = "auto"
    """ray: host:port of the cluster's head; auto: the cluster that this machine is in, or RAY_ADDRESS."""
    resources: dict[StepKind, Resources] = {}
    """ray, slurm, hf-jobs: kind of step -> what it asks for; `default` for all others."""
    jobs: Jobs = Jobs()
    """hf-jobs: what every job is given."""
    workers: int = Field(default=1, gt=0)
    """local: steps at work at the same time, one process each."""
    threads: int | None = Field(default=None, gt=0)
    """Cores for one step: torch's threads in training, the transformers engine's processes on a CPU. Unset: with
    ray and slurm its cpus; with hf-jobs the job's; else this machine's, shared by the workers."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    engines: dict[str, EngineRuntime] = {}
    """Model name -> engine; `default` for all others."""
    accelerate: dict[str, Any] = {}
    """Students are trained in several processes: what a file of `accelerate config` holds, by its own names, such as
    num_processes, distributed_type (MULTI_GPU, FSDP, DEEPSPEED) or fsdp_config. Empty: in one process."""

    @field_validator("accelerate")
    @classmethod
    def _processes_of_one_machine(cls, accelerate: dict[str, Any]) -> dict[str, Any]:
        processes = accelerate.get("num_processes")
        if accelerate and (type(processes) is not int or processes < 1):
            raise ValueError("it needs num_processes, a whole number from 1 on")
        if accelerate.get("num_machines", 1) != 1:
            raise ValueError("a student is trained on one machine: leave num_machines out")
        return accelerate

    @field_validator("engines")
    @classmethod
    def _addresses_hold_no_secrets(cls, engines: dict[str, EngineRuntime]) -> dict[str, EngineRuntime]:
        # How a step ran stands in its record, and records are published.
        for name, engine in engines.items():
            for address in [engine.endpoint] if isinstance(engine.endpoint, str) else engine.endpoint:
                if "@" in address or "?" in address:
                    raise ValueError(
                        f"the endpoint of {name!r} may hold a password or key: name the key's variable in api_key_env"
                    )
        return engines

    def resources_of(self, kind: str) -> Resources:
        asked: dict[Any, Resources] = self.resources
        return asked.get(kind, asked.get("default", Resources()))

    def threads_of(self, kind: str) -> int | None:
        """Cores for a step of this kind; None: all that there are where it will run."""
        if self.threads or self.executor == "hf-jobs":
            return self.threads
        if self.executor in ("ray", "slurm"):
            return self.resources_of(kind).cpus
        import joblib

        return max(1, int(joblib.cpu_count()) // self.workers)

    def engine(self, name: str) -> EngineRuntime:
        return self.engines.get(name, self.engines.get("default", EngineRuntime()))
