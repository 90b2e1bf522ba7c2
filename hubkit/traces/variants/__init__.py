"""Variants: the forms in which the same traces are published and trained on, and the one table of their kinds.

    Variant("raw")  Variant("compressed", "nano-compressor")  Variant("truncated", "nano-compressor")
    Variant("mix", "nano-compressor", (Part("raw", "high"), Part("compressed-nano-compressor", "low")))

A kind is a row of VARIANTS. Plan, estimate, results, figure, cards, report and Space read the table and do not depend
on names of kinds. To add a kind: a module beside this file with `VERSION` and `run(context)`, and a row here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import pyarrow as pa

from hubkit.records import VARIANT_COLUMNS

__all__ = [
    "BASE_COLOUR",
    "BASE_LABEL",
    "VARIANTS",
    "Kind",
    "Part",
    "Variant",
    "mixture",
    "possible_variants",
    "sort_key",
]


@dataclass(frozen=True)
class Kind:
    """The properties of one kind of variant."""

    step: str
    """module:function of the step that writes its data.parquet; empty for a mixture, which has no data of its own."""
    order: int
    """Its place in tables, legends and lists."""
    colour: str
    """In figures: Okabe and Ito's colours, distinguishable with any colour vision, and an additional violet."""
    mark: str
    """In figures without colour and in tables: one character."""
    sentence: str
    """Its description in cards, with {compressor} and {teacher} in it."""
    matched: bool = False
    """Whether it is a control: raw traces shortened to the lengths of a compressor's."""
    compressed: bool = False
    """Whether a compressor makes it, shard by shard, before its step joins the shards."""
    mixture: bool = False
    """Whether it is several variants of the same traces, each asked for by a level of effort."""
    seeded: bool = False
    """Whether it is random what stays: the recipe's seed is then part of its step's key."""
    leaves: str = ""
    """The part of a trace that a control keeps."""
    columns: tuple[tuple[str, pa.DataType], ...] = ()
    """Columns besides those that all variants have."""
    file: str = field(default="data.parquet", init=False)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*VARIANT_COLUMNS, *self.columns])

    @property
    def of_compressor(self) -> bool:
        """Whether there is one such variant for each compressor."""
        return self.matched or self.compressed


_CONTROL: Final = (("budget_tokens", pa.int32()), ("matched_to", pa.string()))

VARIANTS: Final[dict[str, Kind]] = {
    "raw": Kind(
        step="hubkit.traces.variants.raw:run",
        order=0,
        colour="#0072B2",
        mark="●",
        sentence="the traces of {teacher} as they were written",
    ),
    "compressed": Kind(
        step="hubkit.traces.variants.compressed:run",
        order=1,
        colour="#D55E00",
        mark="◆",
        sentence="the same traces, shortened by {compressor}",
        compressed=True,
        columns=(("compressor", pa.string()), ("prompt_sha", pa.string())),
    ),
    "truncated": Kind(
        step="hubkit.traces.variants.truncated:run",
        leaves="its beginning",
        order=2,
        colour="#009E73",
        mark="▲",
        sentence="the control: raw traces cut off at the length of {compressor}'s, problem by problem",
        matched=True,
        columns=_CONTROL,
    ),
    "last": Kind(
        step="hubkit.traces.variants.last:run",
        leaves="its end",
        order=3,
        colour="#CC79A7",
        mark="▼",
        sentence="a null: the end of each raw trace, as long as {compressor}'s",
        matched=True,
        columns=_CONTROL,
    ),
    "random-steps": Kind(
        step="hubkit.traces.variants.random_steps:run",
        leaves="sentences and lines drawn at random, in their order",
        order=4,
        colour="#E69F00",
        mark="■",
        sentence="a null: raw traces with random steps left out, down to the length of {compressor}'s",
        matched=True,
        seeded=True,
        columns=_CONTROL,
    ),
    "random-tokens": Kind(
        step="hubkit.traces.variants.random_tokens:run",
        leaves="tokens drawn at random, in their order",
        order=5,
        colour="#56B4E9",
        mark="✚",
        sentence="a null: raw traces with random tokens left out, down to the length of {compressor}'s",
        matched=True,
        seeded=True,
        columns=_CONTROL,
    ),
    "mix": Kind(
        step="",
        order=6,
        colour="#7B4FD0",
        mark="◐",
        sentence="the same traces in several forms, each under the level of effort that the chat template is given",
        mixture=True,
    ),
}

BASE_COLOUR: Final = "#777777"
"""Of bases that were not trained."""
BASE_LABEL: Final = "untrained"


@dataclass(frozen=True)
class Part:
    """One variant of a mixture, with its level of effort."""

    variant: str
    """Name of the variant that is trained on at this level."""
    level: str
    """Value of the chat template's variable, such as high."""


@dataclass(frozen=True)
class Variant:
    """One form of a teacher's traces. Raises KeyError for a kind that is not in VARIANTS."""

    kind: str
    compressor: str = ""
    """The compressor that made it or whose lengths it has; empty if the kind has none, or for a mixture with several
    compressors."""
    parts: tuple[Part, ...] = ()
    """Of a mixture, in the table's order, whatever the recipe's."""
    variable: str = ""
    """Of a mixture: the template variable that is given the level, such as reasoning_effort."""

    @property
    def name(self) -> str:
        """Of its config on the Hub: raw, compressed-<compressor>; of a mixture mix-raw-compressed-<compressor>."""
        if self.parts:
            return "-".join([self.kind, *(part.variant for part in self.parts)])
        return f"{self.kind}-{self.compressor}" if self.compressor else self.kind

    @property
    def row(self) -> Kind:
        return VARIANTS[self.kind]

    def step(self, teacher: str) -> str:
        """Name of the step that makes it from one teacher's traces: compressed/<teacher>/<compressor>."""
        return "/".join(filter(None, (self.kind, teacher, self.compressor)))

    def sentence(self, teacher: str) -> str:
        return self.row.sentence.format(teacher=teacher, compressor=self.compressor)

    def published(self, teacher: str) -> dict[str, Any]:
        """Returns what readers without hubkit, such as the Space, need to show it; it is in release.json."""
        row = self.row
        mixed = {"variable": self.variable, "levels": [asdict(part) for part in self.parts]}
        return {
            "kind": self.kind,
            "compressor": self.compressor,
            "name": self.name,
            "label": self.name,
            "colour": row.colour,
            "mark": row.mark,
            "order": row.order,
            "matched": row.matched,
            "sentence": self.sentence(teacher),
            **(mixed if self.parts else {}),
        }


def mixture(levels: Mapping[str, str], variable: str, known: Mapping[str, Variant]) -> Variant:
    """The mixture of these variants: name -> level, in the table's order. Raises KeyError for a name that is not among
    the `known`."""
    order = sorted(levels, key=lambda name: sort_key(known[name]))
    compressors = {known[name].compressor for name in levels} - {""}
    parts = tuple(Part(name, levels[name]) for name in order)
    return Variant("mix", compressors.pop() if len(compressors) == 1 else "", parts, variable)


def possible_variants(compressors: Iterable[str]) -> dict[str, Variant]:
    """Returns name -> variant, for all variants that these compressors allow, in the table's order, without mixtures.

    Raises ValueError if two variants would have the same name.
    """
    names = list(compressors)
    found: dict[str, Variant] = {}
    for kind, row in VARIANTS.items():
        if row.mixture:
            continue
        for variant in [Variant(kind, name) for name in names] if row.of_compressor else [Variant(kind)]:
            if variant.name in found:
                raise ValueError(f"two variants are called {variant.name!r}: rename a compressor")
            found[variant.name] = variant
    return found


def sort_key(variant: Variant) -> tuple[int, str]:
    return (variant.row.order, variant.compressor)
