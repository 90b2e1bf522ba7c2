"""The recipe: frozen pydantic models of what is made. `recipe_file.load_recipe` reads them from YAML.

Everything here is part of the steps' identity; `run` (runtime.py) says how, and never is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from hubkit.problems import SOURCES, Source
from hubkit.recipe.runtime import Run
from hubkit.section import ModelRef, Name, Sampling, Section

__all__ = [
    "Base",
    "Benchmark",
    "Compressor",
    "Hub",
    "Judge",
    "Lora",
    "Method",
    "ProblemSource",
    "Recipe",
    "Sft",
    "Students",
    "Teacher",
    "Thinking",
]


if TYPE_CHECKING:
    ProblemSource = Source
else:  # the union of all classes in the table, by their key `source`
    ProblemSource = Annotated[Union[tuple(SOURCES.values())], Field(discriminator="source")]  # noqa: UP007


class Thinking(Section):
    """The marks around a teacher's reasoning, where they are none of those in `engines/marks.py`."""

    open: str = Field(min_length=1)
    close: str = Field(min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> Thinking:
        if self.open == self.close or not self.open.strip() or not self.close.strip():
            raise ValueError("`open` and `close` are two different marks, such as <r> and </r>")
        return self


class Teacher(ModelRef):
    name: Name
    samples: int = Field(default=1, gt=0)
    """Responses per problem."""
    sampling: Sampling
    system: str = ""
    """System message; empty for none."""
    shards: int = Field(default=1, gt=0)
    """Parts that can be generated at the same time."""
    thinking: Thinking | None = None
    """Only for marks that hubkit does not know: docs/engines.md."""

    @model_serializer(mode="wrap")
    def _without_absent_thinking(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without marks a teacher is written as before there were any, so that existing step keys stay valid."""
        written: dict[str, Any] = dump(self)
        if self.thinking is None:
            written.pop("thinking", None)
        return written


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


class Sft(Section):
    """Arguments of TRL's SFTConfig, by their own names."""

    learning_rate: float = Field(gt=0)
    num_train_epochs: float = Field(default=1, gt=0)
    per_device_train_batch_size: int = Field(default=16, gt=0)
    gradient_accumulation_steps: int = Field(default=1, gt=0)
    """Times per_device_train_batch_size: the examples of one optimizer step, on whatever and however many devices."""
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


class Lora(Section):
    """Arguments of PEFT's LoraConfig, by their own names."""

    r: int = Field(default=16, gt=0)
    lora_alpha: int = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    use_rslora: bool = False


class Method(Section):
    sft: Sft
    lora: Lora | None = None
    """Present: train an adapter. Absent: train all weights."""


class Base(ModelRef):
    name: Name
    chat_template: str = ""
    """File beside the recipe: a Jinja template for chats with this base and its students, which are published with it.
    Empty: the model's own."""

    @model_serializer(mode="wrap")
    def _without_absent_template(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A base with its own template is written, and so identified, as it was before there was a choice."""
        written: dict[str, Any] = dump(self)
        if not self.chat_template:
            written.pop("chat_template", None)
        return written


class Students(Section):
    bases: list[Base] = Field(min_length=1)
    variants: list[str] = Field(min_length=1)
    """raw, compressed-<compressor>, truncated-<compressor>."""
    methods: dict[Name, Method] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    max_cut_share: float = Field(default=0.02, ge=0, le=1)
    """Refuse to train when max_length cuts a larger share of the rows."""
    system: str = ""


class Benchmark(Section):
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


class Hub(Section):
    endpoint: str = "local"
    """local, or the address of a Hub such as https://huggingface.co."""
    namespace: str = Field(default="local", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,41}$")
    private: bool = False


class Recipe(Section):
    name: Name
    version: int = Field(default=1, gt=0)
    description: str
    license: str = "apache-2.0"
    language: list[str] = Field(default=["en"])
    seed: int = 0
    problems: dict[Name, ProblemSource] = Field(min_length=1)
    train_on: Name = "train"
    """The problem set that teachers answer."""
    teachers: list[Teacher] = Field(min_length=1)
    judge: Judge | None = None
    """Wanted when the problems of `train_on` have `verifier: judge`."""
    compressors: list[Compressor] = Field(default=[])
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
        return self.problems[problems].judged_by() == "judge"

    @model_serializer(mode="wrap")
    def _without_absent_judge(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A recipe without a judge is written, and so identified, as it was before there were any."""
        written: dict[str, Any] = dump(self)
        if self.judge is None:
            written.pop("judge", None)
        return written
