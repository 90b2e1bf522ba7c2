"""The manifest of a release, `release.json` in its Space, which names everything else.

{"recipe": "nano", "version": 1, "repos": [{"id": "local/nano-traces", "type": "dataset", "sha": "9c1f…",
 "tag": "v1"}, …], "evals": "local/nano-evals", "traces": {"nano-teacher": "local/nano-traces"}, …}
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hubkit.errors import InputError
from hubkit.hub import RepoType

__all__ = ["PROVENANCE", "Manifest", "PublishedRepo"]

PROVENANCE: Final = "provenance"
"""Folder of the evaluations dataset with the recipe and the record of every step."""

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
_Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class PublishedRepo(BaseModel):
    """A repo as the release left it."""

    model_config = ConfigDict(frozen=True)
    id: _Id
    type: RepoType
    sha: _Sha
    tag: str


class Manifest(BaseModel):
    """release.json of a Space, without further keys that only the Space's app reads."""

    model_config = ConfigDict(frozen=True)
    recipe: str
    version: int
    evals: _Id
    problems: _Id | None
    """None where the recipe has no sets of problems."""
    traces: dict[str, _Id]
    """Teacher -> dataset."""
    models: dict[str, _Id]
    """Student, base, teacher or compressor -> model."""
    pinned: dict[str, dict[str, str]]
    """What came from the Hub: name -> {"model": id, "revision": commit}."""
    collection: str = ""
    """Its slug."""
    made: dict[str, Any]
    """Versions of what published it, as in a record."""
    repos: list[PublishedRepo]
    """In the order in which they were pushed; the Space itself comes last and is not among them."""

    @classmethod
    def read(cls, text: str) -> Manifest:
        """Returns the manifest. Raises InputError for a release.json of another form, such as an older hubkit's."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise InputError(
                f"release.json is not one that can be checked: {where}: {first['msg']}",
                "publish the release again with this hubkit",
            ) from None
