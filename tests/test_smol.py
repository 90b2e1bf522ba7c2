"""The smol recipe: what prepares it, on small inputs, and the rule that its compressor learns from."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from hubkit.errors import InputError
from hubkit.recipe.file import load_recipe
from hubkit.traces.faithful import invented

SMOL = ROOT / "recipes" / "smol"
ALGEBRA = (
    "To find the original weight, denote it as \\( W \\). This can be expressed with the following equation:\n"
    "\\[ W - 126 = 66 \\]\n\nWe add 126 to both sides of the equation:\n"
    "\\[ W - 126 + 126 = 66 + 126 \\]\n\\[ W = 192 \\]\n\nThus, Jessie weighed 192 kilograms before."
)
PROBLEMS = (
    "Paul got a box of 110 crayons for his birthday. He lost 412 crayons. How many are left?",
    "Paul got a box of 7 crayons for his birthday. He lost 3 crayons. How many are left?",
    "A school has 485 pupils and 232 of them are girls. How many boys are there in that school?",
    "Dave had 17 apps on his phone and added some, then he had 18 apps. How many did he add?",
    "Dave had 11 apps on his phone and added some, then he had 92 apps. How many did he add?",
    "Randy has 97 blocks. He uses some to build a tower and 72 are left. How tall can it be?",
)


@pytest.fixture(scope="module")
def modules() -> Any:
    sys.path.insert(0, str(SMOL))
    yield importlib.import_module("prepare"), importlib.import_module("rule")
    sys.path.remove(str(SMOL))
    for name in ("prepare", "rule"):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("trace", "short"),
    [
        (
            "Substituting:\n   \\[\n   \\text{left} = 412 - 90 = 412 - 90 = 322\n   \\]\n\nThus, 322 crayons are left.",
            "412 - 90 = 322\nThus, 322 crayons are left.\n\\boxed{322}",
        ),
        (
            ALGEBRA,
            "W - 126 = 66\nW - 126 + 126 = 66 + 126\nW = 192\n"
            "Thus, Jessie weighed 192 kilograms before.\n\\boxed{192}",
        ),
        ("1. \\( \\frac{24 \\text{ berries}}{2 \\text{ trips}} = 12 \\text{ berries} \\).", "24 / 2 = 12\n\\boxed{12}"),
        ("- 3 × 1,200 = \\$3,600, so\n= 3,600 dollars in all.", "3 * 1200 = $3600\n\\boxed{3600}"),
        ("It is 2.5 * 30 = 75 dollars. So he has \\$75 a month.", "2.5 * 30 = 75\nSo he has $75 a month.\n\\boxed{75}"),
        ("There is nothing to work out: he has 5 apples.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_rule_keeps_equations_and_the_conclusion(modules: Any, trace: str, short: str) -> None:
    made = modules[1].shorten(trace)
    assert made == short
    assert not invented(made, trace)


def test_variations_of_a_problem_stay_on_one_side_of_a_split(modules: Any) -> None:
    prepare = modules[0]
    assert sorted(map(sorted, prepare.families(PROBLEMS))) == [[0, 1], [2], [3, 4], [5]]
    parts = prepare.split(PROBLEMS, [2, 1])
    assert sorted(index for part in parts for index in part) == list(range(6))
    assert parts == prepare.split(PROBLEMS, [2, 1])
    for family in ([0, 1], [3, 4]):
        assert any(set(family) <= set(part) for part in parts)
    assert prepare.unlike(PROBLEMS, [PROBLEMS[1]]) == [2, 3, 4, 5]


def test_pairs_have_the_right_answer_and_are_short(modules: Any) -> None:
    def row(answer: str, reasoning: str) -> dict[str, Any]:
        return {"question": "?", "gt": answer, "code": [f"<think>{reasoning}</think>\n<answer> \\boxed{{1}}"]}

    right = row("192", ALGEBRA)
    rows = [right, row("191", ALGEBRA), row("3", "1 + 2 = 3"), row("192", ALGEBRA * 9)]
    assert [pair["problem"] for pair in modules[0].pairs(rows)] == ["?"]
    assert modules[0].pairs([right])[0]["short"].endswith("\\boxed{192}")


def test_files_are_what_was_meant(modules: Any, tmp_path: Path) -> None:
    prepare = modules[0]
    given, downloads = tmp_path / "given", tmp_path / "downloads"
    given.mkdir()
    content = b'{"question": "1 + 1?"}\n'
    (given / "rows.jsonl.gz").write_bytes(gzip.compress(content))
    file = prepare.File("rows.jsonl", prepare._sha256(content), "https://127.0.0.1:9/rows.jsonl")
    path = prepare.fetch(file, downloads, given)
    assert prepare.lines(path) == [{"question": "1 + 1?"}]
    path.write_bytes(b"something else")
    assert prepare.fetch(file, downloads, given).read_bytes() == content
    (given / "rows.jsonl").write_bytes(b"something else")
    path.unlink()
    with pytest.raises(InputError, match=r"rows\.jsonl is not the file that was meant"):
        prepare.fetch(file, downloads, given)
    with pytest.raises(InputError, match=r"cannot be fetched.*--from FOLDER"):
        prepare.fetch(file, downloads, None)
    assert not path.exists()


def test_both_profiles_make_the_same(tmp_path: Path) -> None:
    cpu, gpu = (yaml.safe_load((SMOL / name).read_text("utf-8")) for name in ("recipe.yaml", "gpu.yaml"))
    assert cpu.pop("run") != gpu.pop("run")
    assert json.dumps(cpu) == json.dumps(gpu)
    assert load_recipe(SMOL / "gpu.yaml").students.seeds == [0, 1, 2]
