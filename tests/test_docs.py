"""The documents that are made from the code, and the site that is made of the documents."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml
from support import ROOT

REFERENCE = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["TARGETS"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", REFERENCE)
def test_what_is_made_from_the_code_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == REFERENCE[name](), "run `make docs`"


def test_every_key_of_a_recipe_has_a_row() -> None:
    text = REFERENCE["keys.md"]()
    for section, row in (
        ("Recipe", "| `name` | text | required |"),
        (
            "Sampling",
            "| `max_tokens` | whole number > 0 | required | Upper bound of generated tokens per response. |",
        ),
        ("Run", '| `executor` | `local`, `ray`, `slurm`, `hf-jobs` | `"local"` |'),
        ("Run", "| `engines` | name: [EngineRuntime](#engineruntime) |"),
    ):
        assert row in text.partition(f"\n## {section}\n")[2].partition("\n## ")[0], (section, row)


def test_every_document_is_on_the_site() -> None:
    def pages(part: object) -> set[str]:
        if isinstance(part, str):
            return {part}
        return set().union(*map(pages, part.values() if isinstance(part, dict) else part))  # type: ignore[call-overload]

    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert pages(told["nav"]) == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("*.md"), *ROOT.glob("recipes/*/*.md"), *ROOT.glob("docs/*.md")]),
    ids=lambda path: path.name,
)
def test_links_lead_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
