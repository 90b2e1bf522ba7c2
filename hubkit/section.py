"""The base class of all sections of a recipe, and small types that several of them use."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final, Union, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import CoreSchema

__all__ = [
    "NAME_PATTERN",
    "NAME_RULE",
    "AtKey",
    "ModelRef",
    "Name",
    "Sampling",
    "Section",
    "is_repo_id",
    "prompt_sha",
    "union_of",
]

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9.-]{0,38}$"
NAME_RULE: Final = "at most 39 lower case letters, digits, dots and dashes, the first a letter or digit"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Part of step names and repo ids."""

_REPO_ID: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")


class Section(BaseModel):
    """A section of a recipe: it cannot be changed once read, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    LATER: ClassVar[frozenset[str]] = frozenset()
    """Keys that are written only where they differ from their defaults, so that existing step keys, which had none of
    them, stay valid."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the text under each field as its description. pydantic would read it (use_attribute_docstrings) whenever
        a class is made, which takes a quarter of a second of every command."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in _docstrings(cls).items():
            if name in properties:
                properties[name] = {"description": text} | properties[name]
        return schema

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        for name in self.LATER & written.keys():
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True):
                del written[name]
        return written

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `seed: yes` as true, which pydantic would take for 1."""
        if isinstance(value, bool) and info.field_name:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = get_args(annotation) or (annotation,)
            if bool not in kinds and (int in kinds or float in kinds):
                raise ValueError(f"should be a number, not {str(value).lower()}")
        return value


class AtKey(ValueError):
    """An error of a check across sections, with the keys from that section on to what is wrong."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = [str(key) for key in keys]


class ModelRef(Section):
    model: str
    """A Hub id, or, starting with a dot, a folder beside the recipe. For a model behind an endpoint that is on no Hub:
    its name, without a slash; nothing of such a model is looked up, loaded or published."""
    revision: str = ""
    """Branch, tag or commit on the Hub, which is resolved to a commit once. Empty: the default branch."""


class Sampling(Section):
    """Decoding, by vLLM's names."""

    max_tokens: int = Field(gt=0)
    """Upper bound of generated tokens per response."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the most likely tokens whose probabilities sum to this are sampled; 1 keeps all."""
    top_k: int = Field(default=0, ge=0)
    """Only this number of most likely tokens is sampled; 0 keeps all."""

    def words(self) -> str:
        """For cards: temperature 0.7, top_p 1.0, top_k 0, at most 400 tokens."""
        tokens = f"at most {self.max_tokens:,} tokens"
        return f"temperature {self.temperature}, top_p {self.top_p}, top_k {self.top_k}, {tokens}"


def is_repo_id(text: str, owned: bool = False) -> bool:
    """Whether a text has the form of an id on the Hub: org/name, or a name alone unless it has to be `owned`."""
    return _REPO_ID.fullmatch(text) is not None and ("/" in text or not owned)


def prompt_sha(text: str) -> str:
    """Short name of a prompt's content; that of a compressor is published with its traces."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def union_of(table: Mapping[str, type[Section]], key: str, default: str = "") -> Any:
    """Returns the annotation of a field whose class is chosen from a table by the text under `key`.

    `default` is the name in the table if the key is left out.
    """
    if len(table) == 1:  # pydantic wants two for a union
        return next(iter(table.values()))

    def tag(value: Any) -> str:
        return str(value.get(key, default) if isinstance(value, dict) else getattr(value, key, default))

    members = tuple(Annotated[section, Tag(name)] for name, section in table.items())
    return Annotated[Union[members], Discriminator(tag)]  # noqa: UP007


def _docstrings(section: type[BaseModel]) -> dict[str, str]:
    """Returns field -> the text under it, in a class or its base classes."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not issubclass(cls, Section) or cls is Section:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in pairwise([*body.body, ast.Pass()]):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(told))),
                ):
                    found[name] = inspect.cleandoc(told)
                case ast.AnnAssign(target=ast.Name(id=name)), _:
                    found.pop(name, None)
    return found
