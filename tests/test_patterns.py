"""What comes from a recipe, a command or a stranger's repo is matched whole: `$` would let a line break through."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT

from hubkit.errors import InputError
from hubkit.hub import Access
from hubkit.release.check.published import fetch
from hubkit.release.details import details_repo
from hubkit.release.leaderboard import parse_board
from hubkit.release.manifest import PublishedRepo
from hubkit.release.submit import Wish, plan
from hubkit.section import is_repo_id
from hubkit.stages.source import open_source, tokenizer_folder

NOWHERE = Access("http://127.0.0.1:9")


def test_ids_of_repos() -> None:
    for name in ("gpt2", "org/name", "Qwen/Qwen2.5-0.5B"):
        assert is_repo_id(name)
    for name in (
        "",
        "org/name\n",
        "gpt2\n",
        "\norg/name",
        "org\n/name",
        "org/",
        "/name",
        "a/b/c",
        "../a",
        "-o/n",
    ):
        assert not is_repo_id(name), name
    assert is_repo_id("org/name", owned=True)
    assert not is_repo_id("gpt2", owned=True)


def test_a_line_break_after_an_id_is_refused_everywhere(tmp_path: Path) -> None:
    calls = {
        "tokenizer": lambda: tokenizer_folder("org/name\n"),
        "source": lambda: open_source("org/name\n"),
        "submit": lambda: plan(Wish(model="org/name\n", tasks=["gsm8k|0"]), tmp_path, NOWHERE),
        "check": lambda: fetch(NOWHERE, "org/name\n", tmp_path),
        "board": lambda: parse_board("org/name\n#task"),
        "details": lambda: details_repo("org", "me/model\n"),
    }
    for name, call in calls.items():
        with pytest.raises(InputError):
            call()
            raise AssertionError(name)
    commit = "0" * 40
    PublishedRepo(id="org/name", type="model", sha=commit, tag="v1")
    for wrong in ({"id": "org/name\n"}, {"sha": f"{commit}\n"}):
        with pytest.raises(ValueError, match="should match pattern"):
            PublishedRepo.model_validate(
                {"id": "org/name", "type": "model", "sha": commit, "tag": "v1"} | wrong
            )


def compiled(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls of functions of `re`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"))):
                yield node


@pytest.mark.parametrize(
    "folder", ["release", "stages", "recipe", "executors", "evaluation", "cli", "localhub"]
)
def test_no_pattern_that_checks_a_text_ends_with_a_dollar(folder: str) -> None:
    """Of the packages that check names, addresses and files; elsewhere patterns look for parts of a text. pydantic is
    given patterns as text: its `$` is the end of the text, and that of a compiled one is not."""
    for path in sorted((ROOT / "hubkit" / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in compiled(tree):
            text = ast.unparse(call.args[0]) if call.args else ""
            flags = ast.unparse(call)
            assert not text.rstrip("'\"").endswith("$") or "MULTILINE" in flags, f"{path.name}:{call.lineno}"
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "pattern":
                assert not list(compiled(node.value)), f"{path.name}:{node.value.lineno}"
