"""The recipe's `run` section: how steps run, and where. None of it is part of a step's identity."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import Field, field_validator, model_validator

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import first_line
from hubkit.recipe.steps import STEPS
from hubkit.section import AtKey, Section

__all__ = ["Jobs", "Resources", "Run"]

# Both stand in lines of a script, so they must not end them.
SbatchWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:+-]*$")]
SbatchOption = Annotated[str, Field(pattern=r"^--[a-z][^\r\n]*$")]


class Resources(Section):
    """What one step requests from the place where it runs.

    ray: cpus, gpus, memory_gb; slurm: these, and partition, account, time, sbatch; hf-jobs: flavor, timeout.
    gpu_memory_gb is for checks alone.
    """

    cpus: int = Field(default=1, gt=0)
    """Cores of one step."""
    gpus: int = Field(default=0, ge=0)
    """GPUs of one step."""
    memory_gb: int | None = Field(default=None, gt=0)
    """Unset: the cluster's default."""
    gpu_memory_gb: int | None = Field(default=None, gt=0)
    """Memory of one GPU of the cluster, which hubkit cannot see; with it, students that do not fit are refused."""
    partition: SbatchWord = ""
    account: SbatchWord = ""
    time: SbatchWord = ""
    """Time limit, as Slurm writes it: 12:00:00 or 2-00:00:00."""
    sbatch: list[SbatchOption] = Field(default=[])
    """Further options of sbatch, such as --constraint=h100."""
    flavor: str = Field(default="cpu-basic", pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Hardware of a job on the Hub, by its name there: `hf jobs hardware`."""
    timeout: str = Field(default="12h", pattern=r"^[0-9]+(\.[0-9]+)?[smhd]?$")
    """Time limit of a job on the Hub; a step whose job reaches it goes on in another job."""


class Jobs(Section):
    """What jobs on the Hub need besides hardware."""

    dependencies: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\r\n]*$")]] = Field(default=["hubkit"])
    """What uv installs for a job. `hubkit`, or `hubkit[vllm]`, stands for the hubkit that is installed here. It may
    have an address, but no version: on PyPI the name is another project's."""
    python: str = Field(default="", pattern=r"^([A-Za-z0-9/.][^\r\n]*)?$")
    """Python that uv runs a job with, such as 3.12; unset: the image's."""
    secrets: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = Field(default=[])
    """Names of environment variables that jobs are given as secrets, besides HF_TOKEN and an engine's api_key_env."""

    @property
    def installs_this_hubkit(self) -> bool:
        """Whether a dependency is hubkit without an address, so that jobs are given what is installed here."""
        asked = map(Requirement, self.dependencies)
        return any(canonicalize_name(one.name) == "hubkit" and one.url is None for one in asked)

    @field_validator("dependencies")
    @classmethod
    def _hubkit_is_not_from_pypi(cls, dependencies: list[str]) -> list[str]:
        for line in dependencies:
            try:
                asked = Requirement(line)
            except InvalidRequirement as error:
                raise ValueError(f"{line!r} is not a dependency: {first_line(error)}") from None
            if canonicalize_name(asked.name) == "hubkit" and asked.specifier:
                raise ValueError(
                    f"{line!r} is another project on PyPI: leave the version out, or give an address"
                )
        return dependencies


class Run(Section):
    executor: Literal["local", "ray", "slurm", "hf-jobs"] = "local"
    """Where steps run: docs/scaling.md."""
    ray_address: str = "auto"
    """ray: host:port of the cluster's head; auto: the cluster that this machine is in, or RAY_ADDRESS."""
    resources: dict[str, Resources] = Field(default={})
    """ray, slurm, hf-jobs: kind of step -> what it requests; `default` for all others."""
    jobs: Jobs = Jobs()
    """hf-jobs: what every job is given."""
    workers: int = Field(default=1, gt=0)
    """local: steps that run at the same time, one process each. Each has an equal share of the GPUs; if there are fewer
    GPUs than workers, they share them."""
    threads: int | None = Field(default=None, gt=0)
    """Cores of one step: torch's threads in training, the transformers engine's processes on a CPU. Unset: with
    ray and slurm the step's `cpus`; with hf-jobs the job's cores; else this machine's cores, divided by `workers`."""
    device: str = "auto"
    """Device of training and of the transformers engine: auto, cpu, cuda, cuda:1, mps. Students train on a CPU or on
    the first visible GPU: auto, cpu or cuda."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products when students train and the engines transformers and vllm generate. auto: bfloat16
    on GPUs that have it, and on CPUs with AMX for models of 10M parameters or more that are stored in it; else float32;
    with vllm its own choice. Weights that train are float32 either way. `sft.bf16`, a part of a student's identity, and
    `dtype` among vllm's arguments override this."""
    engines: dict[str, EngineRuntime] = Field(default={})
    """Model name -> engine; `students` for evaluations, `default` for all others."""
    accelerate: dict[str, Any] = Field(default={})
    """Trains each student in several processes: keys of a file of `accelerate config`, such as num_processes,
    distributed_type (MULTI_GPU, FSDP, DEEPSPEED) or fsdp_config. Empty: one process."""

    tokens_per_device: int | None = Field(default=None, gt=0)
    """Training: tokens on one device at once, padding included; more is faster and needs more memory. It does not
    change which examples make an optimizer step: the method's `sft` says that. Unset: as many as fit, 8,192 at most."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """Training: packed: examples one after the other in one row; padded: each in its own row, padded to the longest.
    auto: the faster one, which is packed with flash attention, on GPUs, and padded without."""

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", device):
            raise ValueError(f"no device is called {device!r}: use auto, cpu, cuda, cuda:1 or mps")
        return device

    @field_validator("resources")
    @classmethod
    def _kinds_exist(cls, resources: dict[str, Resources]) -> dict[str, Resources]:
        for kind in resources:
            if kind not in ("default", *STEPS):
                raise ValueError(f"there are no steps {kind!r}; known here: default, {', '.join(STEPS)}")
        return resources

    attention: str = Field(default="auto", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@-]*$")
    """Training: attention by transformers' names, such as sdpa, flash_attention_2, flex_attention or a kernel of the
    Hub. auto: the fastest installed one with which examples in one batch get the same logits as each alone."""

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

    @model_validator(mode="after")
    def _each_process_has_a_gpu(self) -> Run:
        processes, gpus = self.accelerate.get("num_processes", 1), self.resources_of("student").gpus
        if self.executor in ("ray", "slurm") and self.device != "cpu" and 0 < gpus < processes:
            asked = "one GPU" if gpus == 1 else f"{gpus} GPUs"
            raise AtKey(
                f"{processes} processes train a student, and resources.student asks for {asked}",
                *("accelerate", "num_processes"),
            )
        return self

    def resources_of(self, kind: str) -> Resources:
        return self.resources.get(kind, self.resources.get("default", Resources()))

    def threads_of(self, kind: str) -> int | None:
        """Returns the cores for a step of this kind; None if it takes all cores of the machine that it runs on."""
        if self.threads or self.executor == "hf-jobs":
            return self.threads
        if self.executor in ("ray", "slurm"):
            return self.resources_of(kind).cpus
        import joblib

        return max(1, int(joblib.cpu_count()) // self.workers)

    def engine(self, name: str) -> EngineRuntime:
        return self.engines.get(name, self.engines.get("default", EngineRuntime()))
