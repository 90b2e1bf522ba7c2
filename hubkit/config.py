"""The recipe: one YAML file, read into frozen pydantic models.

Everything outside `run` says what is made and is part of the steps' identity; `run` says how (device,
workers, engines, endpoints) and never is. Unknown keys are errors that name file, line and key.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from hubkit.errors import RecipeError

__all__ = [
    "Base",
    "Benchmark",
    "Compressor",
    "EngineRuntime",
    "FileSource",
    "Hub",
    "HubSource",
    "Jobs",
    "Judge",
    "Lora",
    "Method",
    "ModelRef",
    "ProblemSource",
    "ReasoningGymSource",
    "Recipe",
    "Resources",
    "Run",
    "Sampling",
    "Sft",
    "Students",
    "Teacher",
    "load_recipe",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,38}$")]
"""Part of step names and repo ids: lower case letters, digits, dots and dashes."""

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


class ModelRef(Frozen):
    model: str
    """A Hub id, or a folder beside the recipe when it starts with a dot."""
    revision: str = ""
    """Branch, tag or commit on the Hub; it is resolved to a commit once. Empty: the default branch."""


class Sampling(Frozen):
    """Decoding, by vLLM's names."""

    max_tokens: int = Field(gt=0)
    """Upper bound of generated tokens per response."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""


class ReasoningGymSource(Frozen):
    source: Literal["reasoning-gym"]
    task: str
    """A dataset of reasoning-gym, such as chain_sum."""
    options: dict[str, Any] = {}
    """Passed to it unchanged."""
    size: int = Field(gt=0)
    seed: int = 0
    split: Literal["train", "dev", "test"]
    """Which side of hubkit's hash split (`split_of`) to draw from; the sides never share a problem."""


class RowSource(Frozen):
    """What sources of rows share: where the problem stands in a row, and how answers to it are judged."""

    problem: str = "problem"
    """Column of the prompt."""
    answer: str = "answer"
    """Column of the known answer; for code any text, such as a known solution; for judge any that it can
    compare with."""
    verifier: Literal["math", "exact", "choice", "numeric", "code", "judge"] = "math"
    """How answers are compared: docs/verifiers.md."""
    options: str = ""
    """choice: column with the list of the options' texts, if answers may be those."""
    tolerance: float = Field(default=1e-6, ge=0)
    """numeric: accepted difference, relative to the answer (absolute where that is 0)."""
    tests: str = "tests"
    """code: column with the list of tests."""
    limit: int | None = Field(default=None, gt=0)
    """Problems taken at most."""


class FileSource(RowSource):
    source: Literal["file"]
    path: str
    """JSON lines or Parquet beside the recipe."""


class HubSource(RowSource):
    source: Literal["hub"]
    dataset: str
    revision: str = ""
    config: str | None = None
    split: str = "train"


ProblemSource = Annotated[ReasoningGymSource | FileSource | HubSource, Field(discriminator="source")]


class Teacher(ModelRef):
    name: Name
    samples: int = Field(default=1, gt=0)
    """Responses per problem."""
    sampling: Sampling
    system: str = ""
    """System message; empty for none."""
    shards: int = Field(default=1, gt=0)
    """Parts that can be generated at the same time."""


class Compressor(ModelRef):
    name: Name
    prompt: str
    """File beside the recipe with {problem} and {reasoning} in it."""
    sampling: Sampling
    attempts: int = Field(default=1, gt=0)
    """Tries per trace until the compressed one still reaches the right answer."""
    shards: int = Field(default=1, gt=0)

    @field_validator("prompt")
    @classmethod
    def _has_placeholders(cls, text: str) -> str:
        # By the time this runs the loader has put the file's text in place of its name.
        if "{reasoning}" not in text:
            raise ValueError("the prompt has no {reasoning} placeholder: put it where the trace belongs")
        return text


class Judge(ModelRef):
    """The model that decides for problems with `verifier: judge`. It sees no reasoning, only what follows it."""

    name: Name
    prompt: str
    """File beside the recipe with {problem}, {answer} (the known one) and {response} in it; it asks for a last
    line `Verdict: correct` or `Verdict: incorrect`."""
    sampling: Sampling = Sampling(max_tokens=1024)

    @field_validator("prompt")
    @classmethod
    def _asks_for_a_verdict(cls, text: str) -> str:
        for part in ("{problem}", "{answer}", "{response}"):
            if part not in text:
                raise ValueError(f"the prompt has no {part} placeholder: put it where that text belongs")
        for line in ("Verdict: correct", "Verdict: incorrect"):
            if line not in text:
                raise ValueError(
                    f"the prompt does not ask for `{line}`: the judge has to know that last line"
                )
        return text


class Sft(Frozen):
    """Arguments of TRL's SFTConfig, by their own names."""

    learning_rate: float = Field(gt=0)
    num_train_epochs: float = Field(default=1, gt=0)
    per_device_train_batch_size: int = Field(default=16, gt=0)
    gradient_accumulation_steps: int = Field(default=1, gt=0)
    max_length: int = Field(gt=0)
    """Tokens of prompt and response; rows are cut beyond it (see max_cut_share)."""
    lr_scheduler_type: str = "cosine"
    warmup_steps: int | float = Field(default=0.03, ge=0)
    """Steps, or a share of them when below 1."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optim: str = "adamw_torch"
    gradient_checkpointing: bool = False
    bf16: bool = False


class Lora(Frozen):
    """Arguments of PEFT's LoraConfig, by their own names."""

    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    use_rslora: bool = False


class Method(Frozen):
    sft: Sft
    lora: Lora | None = None
    """Present: train an adapter. Absent: train all weights."""


class Base(ModelRef):
    name: Name


class Students(Frozen):
    bases: list[Base] = Field(min_length=1)
    variants: list[str] = Field(min_length=1)
    """raw, compressed-<compressor>, truncated-<compressor>."""
    methods: dict[Name, Method] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    max_cut_share: float = Field(default=0.02, ge=0, le=1)
    """Refuse to train when max_length cuts a larger share of the rows."""
    system: str = ""


class Benchmark(Frozen):
    """What students are evaluated on: the recipe's own held-out problems, or a task that lighteval knows."""

    name: Name
    problems: Name | None = None
    """A set under `problems`."""
    task: str | None = None
    """A lighteval task such as gsm8k|0."""
    sampling: Sampling

    @model_validator(mode="after")
    def _one_source(self) -> Benchmark:
        if (self.problems is None) == (self.task is None):
            raise ValueError("give either `problems` (a set of this recipe) or `task` (a lighteval task)")
        return self


class Hub(Frozen):
    endpoint: str = "local"
    """local, or the address of a Hub such as https://huggingface.co."""
    namespace: str = Field(default="local", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,41}$")
    private: bool = False


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
    threads: int = Field(default=1, gt=0)
    """torch threads per worker."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    engines: dict[str, EngineRuntime] = {}
    """Model name -> engine; `default` for all others."""

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

    def engine(self, name: str) -> EngineRuntime:
        return self.engines.get(name, self.engines.get("default", EngineRuntime()))


class Recipe(Frozen):
    name: Name
    version: int = Field(default=1, gt=0)
    description: str
    license: str = "apache-2.0"
    language: list[str] = ["en"]
    seed: int = 0
    problems: dict[Name, ProblemSource] = Field(min_length=1)
    train_on: Name = "train"
    """The problem set that teachers answer."""
    teachers: list[Teacher] = Field(min_length=1)
    judge: Judge | None = None
    """Wanted when the problems of `train_on` have `verifier: judge`."""
    compressors: list[Compressor] = []
    students: Students
    benchmarks: list[Benchmark] = Field(min_length=1)
    hub: Hub = Hub()
    run: Run = Run()

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        sets = set(self.problems)
        for name in [self.train_on, *(b.problems for b in self.benchmarks if b.problems)]:
            if name not in sets:
                raise ValueError(f"problem set {name!r} is not under `problems` ({', '.join(sorted(sets))})")
        self._judge_fits()
        compressors = [c.name for c in self.compressors]
        known = ["raw", *(f"{kind}-{name}" for name in compressors for kind in ("compressed", "truncated"))]
        for variant in self.students.variants:
            if variant not in known:
                raise ValueError(
                    f"variant {variant!r} cannot be made; this recipe can make {', '.join(known)}"
                )
        groups = {
            "teachers": [t.name for t in self.teachers],
            "compressors": compressors,
            "bases": [b.name for b in self.students.bases],
            "variants": self.students.variants,
            "benchmarks": [b.name for b in self.benchmarks],
            "seeds": [str(seed) for seed in self.students.seeds],
        }
        for group, names in groups.items():
            if len(set(names)) != len(names):
                raise ValueError(f"two {group} have the same name")
        return self

    def _judge_fits(self) -> None:
        if self._is_judged(self.train_on) and self.judge is None:
            raise ValueError(
                f"problems.{self.train_on} has `verifier: judge`, and there is no `judge:` section"
            )
        if self.judge is not None and not self._is_judged(self.train_on):
            raise ValueError(
                f"the `judge:` section has no use: problems.{self.train_on} has another verifier"
            )
        for benchmark in self.benchmarks:
            if benchmark.problems and self._is_judged(benchmark.problems):
                raise ValueError(
                    f"the benchmark {benchmark.name!r} cannot be judged: lighteval scores students without a "
                    f"judge; give problems.{benchmark.problems} another verifier, or use a lighteval task"
                )

    def _is_judged(self, problems: str) -> bool:
        source = self.problems[problems]
        return isinstance(source, RowSource) and source.verifier == "judge"

    @model_serializer(mode="wrap")
    def _without_absent_judge(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe without a judge is written, and so identified, as it was before there were any."""
        written: dict[str, Any] = dump(self)
        if self.judge is None:
            written.pop("judge", None)
        return written


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `a.b=c` overrides (lists by index: students.bases.0.name=x).

    Raises RecipeError that names file, line, key and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give the path of a recipe.yaml; `hubkit recipe list` shows those here"
        raise RecipeError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}", remedy
        ) from error
    try:
        raw = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise RecipeError(
            f"{path}{line}: not YAML: {getattr(error, 'problem', error)}", "mend the syntax"
        ) from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: not a recipe", "a recipe is a mapping that starts with `name:`")
    for override in overrides or []:
        _override(raw, override)
    _inline_prompts(raw, path)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(_explain(error, path, tree), "see docs/recipes.md for the keys") from error


def _override(raw: dict[str, Any], text: str) -> None:
    name, equals, value = text.partition("=")
    parts = name.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {text!r} is not a.b=c", "write for example --set run.workers=2")
    node: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            if last:
                node[int(part)] = yaml.safe_load(value)
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = yaml.safe_load(value)
            else:
                node = node.setdefault(part, {})
        else:
            raise RecipeError(f"--set {name}: nothing at {'.'.join(parts[: depth + 1])}", "check the path")


def _inline_prompts(raw: dict[str, Any], path: Path) -> None:
    """Put the text of prompt files in place of their names: prompts count by content."""
    compressors = raw.get("compressors")
    sections = {"judge": raw.get("judge")}
    sections |= {
        f"compressors.{i}": c for i, c in enumerate(compressors if isinstance(compressors, list) else [])
    }
    for key, section in sections.items():
        if isinstance(section, dict) and isinstance(name := section.get("prompt"), str):
            try:
                section["prompt"] = (path.parent / name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(
                    f"{path}: {key}.prompt: cannot read {name!r}",
                    "give the name of a text file beside the recipe",
                ) from error


def _explain(error: ValidationError, path: Path, tree: yaml.Node | None) -> str:
    """The first problem in one line, and how many more there are."""
    first = error.errors()[0]
    # pydantic puts the chosen kind of source among the keys: problems.train.reasoning-gym.size
    tags = {"reasoning-gym", "file", "hub"}
    keys = [str(part) for place, part in enumerate(first["loc"]) if part not in tags or place == 0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key {keys[-1]!r}"
        known = _fields_at([str(part) for part in first["loc"][:-1]])
        if near := difflib.get_close_matches(keys[-1], known, n=1):
            message += f", did you mean {near[0]!r}?"
        elif known:
            message += f"; known here: {', '.join(known)}"
    elif first["type"] == "missing":
        message = f"key {keys[-1]!r} is missing"
    line = _line_of(tree, keys)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    name = ".".join(keys)
    return f"{path}:{line}: {name + ': ' if name else ''}{message}{more}"


def _line_of(node: yaml.Node | None, keys: list[str]) -> int:
    """Line (from 1) of the deepest node on the way to a key."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == key), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _fields_at(keys: list[str]) -> list[str]:
    """Names that a key at this place of the recipe can have; [] where the place takes free names.

    `keys` as pydantic gives them: the chosen kind of source stands among them.
    """
    places: list[Any] = [Recipe]
    for key in keys:
        if kinds := [place for place in places if _kind_of_source(place) == key]:
            places = kinds
            continue
        found: list[Any] = []
        for place in places:
            if isinstance(place, type) and issubclass(place, BaseModel):
                field = place.model_fields.get(key)
                found += _alternatives(field.annotation) if field else []
            elif get_origin(place) in (list, dict):
                found += _alternatives(get_args(place)[-1])
        places = found
    models = [place for place in places if isinstance(place, type) and issubclass(place, BaseModel)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _kind_of_source(place: Any) -> str | None:
    """file of FileSource, and so on."""
    field = (
        place.model_fields.get("source") if isinstance(place, type) and issubclass(place, BaseModel) else None
    )
    return get_args(field.annotation)[0] if field else None


def _alternatives(annotation: Any) -> list[Any]:
    """X | None, Annotated[X | Y, …] -> [X, Y]."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for argument in get_args(annotation) for part in _alternatives(argument)]
    return [annotation]


def prompt_sha(text: str) -> str:
    """Short name of a prompt's content; that of a compressor is published with its traces."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


VLLM_OWN = {"model", "served_model_name", "host", "port", "uds", "api_key", "config", "root_path"}
SAFE_REPO_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")
