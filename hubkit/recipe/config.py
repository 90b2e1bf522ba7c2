"""The recipe: frozen pydantic models. `recipe.file.load_recipe` reads them from YAML.

Everything here is part of the steps' identity; `run` (runtime.py) says how steps run, and is not.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from hubkit.evaluation.benchmark import Benchmark
from hubkit.licenses import LICENSES, license_named, nearest_license
from hubkit.problems import SOURCES, Source
from hubkit.problems.contamination import Decontamination
from hubkit.recipe.runtime import Run
from hubkit.section import AtKey, ModelRef, Name, Sampling, Section, union_of
from hubkit.students.settings import METHODS, Method
from hubkit.traces.compressors import COMPRESSORS, Compressor
from hubkit.traces.origins import EXISTING, Origin, Teacher
from hubkit.traces.select import Selection
from hubkit.traces.variants import Variant, mixture, possible_variants

__all__ = [
    "Base",
    "Hub",
    "Judge",
    "Mixture",
    "ProblemSource",
    "Recipe",
    "Student",
    "Students",
]


if TYPE_CHECKING:
    ProblemSource = Source
    ExistingTraces = Origin
    AnyCompressor = Compressor
    AnyMethod = Method
else:
    ProblemSource = union_of(SOURCES, "source")
    ExistingTraces = union_of(EXISTING, "source")
    AnyCompressor = union_of(COMPRESSORS, "kind", "rewrite")
    AnyMethod = union_of(METHODS, "kind", "sft")


class Judge(ModelRef):
    """The model that verifies problems with `verifier: judge`. It sees only the text after the reasoning."""

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


class Base(ModelRef):
    LATER: ClassVar[frozenset[str]] = frozenset({"chat_template"})

    name: Name
    chat_template: str = ""
    """File beside the recipe: a Jinja template for chats with this base and its students, which are published with it.
    Empty: the model's own."""


RESERVED: Final = {
    *("messages", "conversation", "tools", "documents", "chat_template", "tokenizer_kwargs"),
    *("add_generation_prompt", "continue_final_message", "tokenize", "padding", "truncation"),
    *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    *("bos_token", "eos_token", "pad_token", "unk_token"),
}
"""Names that chat templates, or the function that renders them, already use."""


class Mixture(Section):
    """An effort switch: one student that learns each of these variants at its own level of effort, and is evaluated at
    every level. Its chat template is given the level. It sees the same problems in the same steps as any other student:
    in an epoch each trace in one of its forms, drawn with the student's seed, equally many in each form, and in the
    next epoch each in its next form."""

    mix: dict[str, Name] = Field(min_length=2)
    """Variant -> its level: {raw: high, compressed-<compressor>: low}."""
    variable: str = Field(default="reasoning_effort", pattern=r"^[a-z][a-z0-9_]{0,38}$")
    """Name of the level's variable in the chat template."""

    @model_validator(mode="after")
    def _levels_differ(self) -> Mixture:
        levels = list(self.mix.values())
        if len(set(levels)) < len(levels):
            twice = next(level for level in levels if levels.count(level) > 1)
            raise ValueError(f"two variants have the level {twice!r}: a level asks for one of them")
        if self.variable in RESERVED:
            raise ValueError(f"a chat template is given {self.variable!r} already: choose another variable")
        return self


AnyVariant = Annotated[
    Annotated[str, Tag("name")] | Annotated[Mixture, Tag("mixture")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "mixture"),
]


class Students(Section):
    bases: list[Base] = Field(min_length=1)
    """Models that students are fine-tuned from."""
    variants: list[AnyVariant] = Field(min_length=1)
    """raw, compressed-<compressor>, and controls of the same length: truncated-, last-, random-steps- and
    random-tokens-<compressor>; or a mixture of them."""
    methods: dict[Name, AnyMethod] = Field(min_length=1)
    """Name -> how students are trained."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Seeds of training; one student of each kind for each seed."""
    max_cut_share: float = Field(default=0.02, ge=0, le=1)
    """Refuse to train if max_length cuts a larger share of the rows."""
    max_dropped_share: float = Field(default=0.02, ge=0, le=1)
    """Rows that fail a check of training data in any variant, such as one that contains a control token, are dropped
    from all variants; refuse to train if that is a larger share of the rows. 0: stop at the first."""
    system: str = ""
    """System message in training and evaluation; empty for none."""


@dataclass(frozen=True)
class Student:
    """One student of the grid: base x variant x method x seed, of one teacher."""

    name: str
    teacher: str
    base: Base
    variant: Variant
    method: str
    """Its name under `students.methods`."""
    seed: int

    @property
    def parts(self) -> tuple[str, str, str, str, int]:
        return (self.teacher, self.base.name, self.variant.name, self.method, self.seed)


class Hub(Section):
    endpoint: str = "local"
    """local, or the address of a Hub such as https://huggingface.co."""
    namespace: str = Field(default="local", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,41}$")
    private: bool = False
    """Whether all repos and the collection are private."""

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_an_address(cls, endpoint: str) -> str:
        if "@" in endpoint or "?" in endpoint:  # it is published with the recipe
            raise ValueError(
                "it may hold a password or key: the token is read from HF_TOKEN or `hf auth login`"
            )
        if not re.fullmatch(r"local|https?://[^\s/]+(/\S*)?", endpoint):
            raise ValueError(f"{endpoint!r} is neither local nor an address such as https://huggingface.co")
        return endpoint


class Recipe(Section):
    LATER: ClassVar[frozenset[str]] = frozenset(
        {"judge", "traces", "select", "decontamination", "license_name", "license_link"}
    )

    name: Name
    version: int = Field(default=1, gt=0)
    """Version of the release, which names its tag: v1."""
    description: str
    """One or two sentences, for cards and the collection."""
    license: str = "apache-2.0"
    """Licence of all repos of the release, by the Hub's name. `other` for one that the Hub does not know."""
    license_name: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9.-]*)?$")
    """Short name of a licence that is `other`, in lower case and without spaces: coqui-public-model-license."""
    license_link: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """Address of the text of a licence that is `other`."""
    language: list[str] = Field(default=["en"])
    """Languages of the traces, for the cards."""
    seed: int = 0
    """Seed of sampling and of random controls; students have their own `seeds`."""
    problems: dict[Name, ProblemSource] = Field(default={})
    """Name -> a set of problems."""
    train_on: Name = "train"
    """The problem set that teachers answer."""
    teachers: list[Teacher] = Field(default=[])
    """Models that answer the problems."""
    traces: list[ExistingTraces] = Field(default=[])
    """Traces that exist, in place of teachers or beside them."""
    decontamination: Decontamination = Decontamination()
    """What happens to training problems that are test problems, or near-duplicates of them or of each other."""
    select: Selection | None = None
    """Which correct traces all variants are made from; unset: all."""
    judge: Judge | None = None
    """Required if the problems of `train_on`, or an entry of `traces`, have `verifier: judge`."""
    compressors: list[AnyCompressor] = Field(default=[])
    """What shortens the traces."""
    students: Students
    benchmarks: list[Benchmark] = Field(min_length=1)
    """What students are evaluated on."""
    hub: Hub = Hub()
    """Where the release is published."""
    run: Run = Run()
    """How steps run. Never part of an identity."""

    @field_validator("license")
    @classmethod
    def _hub_knows_the_license(cls, name: str) -> str:
        if name not in LICENSES:
            near = license_named(name) or nearest_license(name)
            meant = f" (did you mean {near!r}?)" if near else ""
            raise ValueError(
                f"the Hub has no licence {name!r}{meant}; take one of https://huggingface.co/docs/hub/"
                "repositories-licenses, or `other` with license_name and license_link"
            )
        return name

    @model_validator(mode="after")
    def _only_another_license_has_a_name(self) -> Recipe:
        for key in ("license_name", "license_link"):
            if getattr(self, key) and self.license != "other":
                raise AtKey(
                    f"the Hub knows {self.license} by itself: write `license: other`, or leave this out", key
                )
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Recipe:
        if not self.origins():
            raise ValueError("there are no traces: give `teachers` that write them, or `traces` that exist")
        sets = set(self.problems)
        asked: list[tuple[str, list[str | int]]] = [(self.train_on, ["train_on"])] if self.teachers else []
        asked += [
            (b.problems, ["benchmarks", i, "problems"]) for i, b in enumerate(self.benchmarks) if b.problems
        ]
        for name, keys in asked:
            if name not in sets:
                raise AtKey(
                    f"problem set {name!r} is not under `problems` ({', '.join(sorted(sets))})", *keys
                )
        self._judge_fits()
        self._engines_are_of_models()
        unverified = next((origin.name for origin in self.origins() if not origin.is_verified), None)
        if unverified and self.select and self.select.pass_rate:
            raise AtKey(
                f"the traces {unverified!r} are not verified: they have no pass rate", "select", "pass_rate"
            )
        known = possible_variants(c.name for c in self.compressors)
        for index, variant in enumerate(self.students.variants):
            place: tuple[str | int, ...] = ("students", "variants", index)
            mixed = isinstance(variant, Mixture)
            for name in variant.mix if isinstance(variant, Mixture) else [variant]:
                if name not in known:
                    raise AtKey(
                        f"variant {name!r} cannot be made; this recipe can make {', '.join(known)}",
                        *place,
                        *(("mix", name) if mixed else ()),
                    )
        groups = {
            "teachers or traces": [origin.name for origin in self.origins()],
            "compressors": [c.name for c in self.compressors],
            "bases": [b.name for b in self.students.bases],
            "variants": [variant.name for variant in self.variants()],
            "benchmarks": [b.name for b in self.benchmarks],
            "seeds": [str(seed) for seed in self.students.seeds],
        }
        for group, names in groups.items():
            if len(set(names)) != len(names):
                raise AtKey(
                    f"two {group} have the same name",
                    *(("students",) if group in ("bases", "variants", "seeds") else ()),
                    *(group, next(i for i, name in enumerate(names) if name in names[:i])),
                )
        self._student_names_differ()
        return self

    def _engines_are_of_models(self) -> None:
        """An engine under a name that nothing has would be ignored."""
        known = [origin.name for origin in self.origins() if origin.generator()]
        known += [compressor.name for compressor in self.compressors if compressor.generator()]
        known += ["students", "default", *([self.judge.name] if self.judge else [])]
        for name in self.run.engines:
            if name in known:
                continue
            near = difflib.get_close_matches(name, known, 1)
            why = "is a base, whose evaluations have the engine of `students`"
            if name not in [base.name for base in self.students.bases]:
                why = "asks an engine for nothing" + (f" (did you mean {near[0]!r}?)" if near else "")
            raise AtKey(
                f"{name!r} {why}; engines here are for {', '.join(dict.fromkeys(known))}",
                *("run", "engines", name),
            )

    def _student_names_differ(self) -> None:
        """Names are parts joined by dashes, and parts may contain dashes: two students could have the same name."""
        owners = {base.name: f"the base {base.name}" for base in self.students.bases}
        for student in self.grid():
            parts = ", ".join(map(str, student.parts))
            if other := owners.get(student.name):
                raise ValueError(
                    f"the student of ({parts}) would be called {student.name!r}, as {other} is: rename one of them"
                )
            owners[student.name] = f"that of ({parts})"

    def card_license(self) -> dict[str, Any]:
        """Returns what the head of every card says about the licence."""
        told = {"license_name": self.license_name, "license_link": self.license_link}
        return {"license": self.license} | {key: text for key, text in told.items() if text}

    def origins(self) -> list[Origin]:
        """Returns the origins of traces: teachers, then existing traces."""
        return [*self.teachers, *self.traces]

    def references(self) -> list[tuple[str, ModelRef]]:
        """(name, model) of every model that the recipe names."""
        used = [(origin.name, origin.generator()) for origin in self.origins()]
        used += [(compressor.name, compressor.model_ref()) for compressor in self.compressors]
        named: list[tuple[str, ModelRef]] = [(name, model) for name, model in used if model is not None]
        if self.judge:
            named.append((self.judge.name, self.judge))
        return [*named, *((base.name, base) for base in self.students.bases)]

    def variants(self) -> list[Variant]:
        """Variants that students are trained on, in the recipe's order."""
        known = possible_variants(c.name for c in self.compressors)
        return [
            known[variant] if isinstance(variant, str) else mixture(variant.mix, variant.variable, known)
            for variant in self.students.variants
        ]

    def known_variants(self) -> dict[str, Variant]:
        """Name -> variant, of all that this recipe can make, and its mixtures."""
        known = possible_variants(c.name for c in self.compressors)
        return known | {variant.name: variant for variant in self.variants() if variant.row.mixture}

    def grid(self) -> list[Student]:
        """Returns every student of the recipe, in the order in which the plan makes them.

        A name is <base>-<variant>-<method>; teachers and seeds after the first are named too, so that adding one
        to a recipe renames, and reruns, nothing.
        """
        first_teacher, first_seed = self.origins()[0].name, self.students.seeds[0]
        return [
            Student(
                name=("" if teacher.name == first_teacher else f"{teacher.name}-")
                + f"{base.name}-{variant.name}-{method}"
                + ("" if seed == first_seed else f"-seed{seed}"),
                teacher=teacher.name,
                base=base,
                variant=variant,
                method=method,
                seed=seed,
            )
            for teacher in self.origins()
            for seed in self.students.seeds
            for base in self.students.bases
            for variant in self.variants()
            for method in self.students.methods
        ]

    def _judge_fits(self) -> None:
        judged = [f"problems.{self.train_on}"] if self.teachers and self._is_judged(self.train_on) else []
        judged += [f"traces.{origin.name}" for origin in self.traces if origin.judged_by() == "judge"]
        if judged and self.judge is None:
            raise ValueError(f"{judged[0]} has `verifier: judge`, and there is no `judge:` section")
        if self.judge is not None and not judged:
            raise ValueError("the `judge:` section has no use: no traces are verified by `verifier: judge`")
        changing = next((i for i, c in enumerate(self.compressors) if c.solution != "keep"), None)
        if self.judge is not None and changing is not None:
            raise AtKey(
                "a solution that is shortened is verified again, and no judge is asked to: keep it",
                *("compressors", changing, "solution"),
            )
        for benchmark in self.benchmarks:
            if benchmark.problems and self._is_judged(benchmark.problems):
                raise ValueError(
                    f"the benchmark {benchmark.name!r} cannot be judged: lighteval scores students without a "
                    f"judge; give problems.{benchmark.problems} another verifier, or use a lighteval task"
                )

    def _is_judged(self, problems: str) -> bool:
        return self.problems[problems].judged_by() == "judge"
