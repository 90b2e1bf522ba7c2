"""The table of problem sources: what a new one needs, and what each says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import warm
import yaml
from support import NANO

from hubkit.errors import InputError, RecipeError
from hubkit.problems.base import Pin
from hubkit.problems.file import FileSource
from hubkit.recipe.estimate import estimate_all
from hubkit.recipe.file import load_recipe
from hubkit.recipe.graph import Plan
from hubkit.recipe.pipeline import status
from hubkit.recipe.plan import make_plan
from hubkit.store import Store

# A module with a class, and a row in the table: this file is all that a new source is.
TOY = """
import sys
from pathlib import Path
from typing import Literal

from hubkit import problems
from hubkit.problems.base import Description, Source, problem_id


class Toy(Source):
    source: Literal["toy"]
    up_to: int

    def rows(self, pin):
        for number in range(self.up_to):
            text = f"{number} + 1 ="
            yield {"id": problem_id("toy", text), "source": "toy", "problem": text, "answer": str(number + 1),
                   "verifier": "math", "metadata": ""}

    def judged_by(self):
        return "math"

    def describe(self):
        return Description("sums made up on the spot")

    def count(self, pin):
        return self.up_to


problems.SOURCES["toy"] = Toy

from hubkit.recipe import pipeline
from hubkit.recipe.estimate import estimate_all
from hubkit.recipe.file import load_recipe
from hubkit.recipe.plan import make_plan
from hubkit.recipe.preflight import check
from hubkit.records import read_rows
from hubkit.store import Store

recipe, root = Path(sys.argv[1]), Path(sys.argv[2])
try:
    load_recipe(recipe, ["problems.train={source: toy, upto: 3}"])
except Exception as error:
    print(error)
plan, store = make_plan(load_recipe(recipe, ["problems.train={source: toy, up_to: 7}"]), recipe, root), Store(root)
print(estimate_all(plan, store, pipeline.status(plan, store))["traces/nano-teacher/0"].tokens)
steps = pipeline.select(plan, only=["problems/train"])
check(plan, store, steps)
if __name__ == "__main__":
    problems_step = plan.steps[0]
    from hubkit.problems.problems import run
    from hubkit.store import StepContext
    out = root / "out"
    out.mkdir()
    run(StepContext(problems_step.name, problems_step.config, {}, {}, {}, out, out))
    print([row["answer"] for row in read_rows(out / "problems.parquet")])
"""


def test_a_new_source_is_one_module_and_one_row(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "runs").mkdir()
    done = warm.run("toy.py", str(NANO), "runs", cwd=tmp_path, cold=True)
    assert done.returncode == 0, done.stderr
    typo, tokens, answers = done.stdout.splitlines()
    assert "problems.train.upto: unknown key 'upto', did you mean 'up_to'?" in typo
    assert int(tokens) == 7 * 2 // 2 * 400  # 7 problems, two samples in two shards of at most 400 tokens
    assert json.loads(answers.replace("'", '"')) == [str(n) for n in range(1, 8)]


def plan_with(tmp_path: Path, source: dict[str, object]) -> Plan:
    raw = yaml.safe_load(NANO.read_text(encoding="utf-8"))
    for model in [*raw["teachers"], *raw["compressors"], *raw["students"]["bases"]]:
        model["model"] = "./models"
    raw["problems"]["train"] = source
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    for name in ("prompts", "models"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "prompts" / "compress.md").write_text("{problem} {reasoning}")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "models" / name).write_text("{}")
    return make_plan(load_recipe(path), path, tmp_path)


@pytest.mark.parametrize(("limit", "expected"), [(None, 12), (5, 5), (50, 12)])
def test_estimates_count_the_rows_of_a_file(tmp_path: Path, limit: int | None, expected: int) -> None:
    lines = [json.dumps({"problem": f"{n} + 1", "answer": str(n + 1)}) for n in range(12)]
    (tmp_path / "mine.jsonl").write_text("\n".join([*lines, "", ""]))
    plan = plan_with(tmp_path, {"source": "file", "path": "mine.jsonl", "limit": limit})
    store = Store(tmp_path)
    guess = estimate_all(plan, store, status(plan, store))
    assert guess["problems/train"].bytes == expected * 500
    assert guess["traces/nano-teacher/0"].tokens == expected * 400


def test_a_folder_or_a_pattern_names_many_files(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "README.md").write_text("# Not read")
    (shards / "b-1.jsonl").write_text(
        '{"problem": "1 + 1", "answer": "2"}\n{"problem": "1 + 2", "answer": "3"}\n'
    )
    (shards / "a-0.csv").write_text("problem,answer\n2 + 2,4\n")
    for path, wanted in (("shards", ["4", "2", "3"]), ("shards/b-*.jsonl", ["2", "3"]), ("sh*/*-0.*", ["4"])):
        source = FileSource(source="file", path=path)
        pin = source.pin(tmp_path, "problems.train", lambda dataset, revision: "")
        assert [row["answer"] for row in source.rows(pin)] == wanted
        assert source.count(pin) == len(wanted)
    before = pin.digest
    (shards / "a-0.csv").write_text("problem,answer\n2 + 2,5\n")
    assert source.pin(tmp_path, "problems.train", lambda dataset, revision: "").digest != before
    (shards / "b-1.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n{torn')
    with pytest.raises(InputError, match=r"^b-1\.jsonl:2: row 1: not JSON"):
        list(FileSource(source="file", path="shards").rows(Pin(path=shards)))
    for path in ("shards/*.parquet", "none-*.jsonl", str(tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(RecipeError, match="no file is called"):
            FileSource(source="file", path=path).pin(tmp_path, "problems.train", lambda dataset, revision: "")


def test_a_file_counts_by_content_and_its_place_stays_out_of_the_identity(tmp_path: Path) -> None:
    source = {"source": "file", "path": "mine.jsonl"}
    (tmp_path / "mine.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}')
    first = plan_with(tmp_path, source)
    (tmp_path / "mine.jsonl").write_text('{"problem": "1 + 1", "answer": "3"}')
    second = plan_with(tmp_path, source)
    step = next(step for step in first.steps if step.name == "problems/train")
    assert step.paths == {"source": tmp_path / "mine.jsonl"}
    assert str(tmp_path) not in json.dumps(step.config)
    assert first.models["problems/train"].digest != second.models["problems/train"].digest
