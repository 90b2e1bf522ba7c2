"""A toy of each kind, each in one file with one row in its table, through the real plan and steps to the report's data.

Problem sources and verifiers have the like in tests/problems/test_sources.py and tests/verifiers/.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import warm
from huggingface_hub import HfApi
from support import NANO

from hubkit.localhub import LocalHub

KINDS = '''
"""An origin that makes traces up, a compressor that keeps the first half, and a control that keeps the end."""
import sys
from pathlib import Path
from typing import Literal

import pyarrow as pa

from hubkit.records import TRACE_SCHEMA, REJECTED_SCHEMA, messages_of, read_rows, write_rows
from hubkit.traces import compressors, origins, variants
from hubkit.traces.compressors import Compressor
from hubkit.traces.origins import Origin

VERSION = 1


class Invented(Origin):
    step = "toy:invent"
    source: Literal["invented"]
    words: int

    def count(self, problems): return problems
    def longest(self): return self.words
    def describe(self): return f"{self.name} made them up"


class FirstHalf(Compressor):
    step = "toy:first_half"
    kind: Literal["first-half"]

    def longest(self): return None
    def describe(self): return f"{self.name} kept the first half"


def invent(context):
    config, (index, shards) = context.config, context.config["shard"]
    problems = list(read_rows(context.inputs["problems"] / "problems.parquet"))[index::shards]
    rows = [{"id": p["id"], "sample": 0, "teacher": config["teacher"], "reasoning": "so " * config["words"],
             "solution": "\\\\boxed{" + p["answer"] + "}", "thinking": "closed", "finish_reason": "stop",
             "prompt_tokens": 0, "completion_tokens": 0, "error": ""} for p in problems]
    context.count("traces", write_rows(context.out / "traces.parquet", rows, TRACE_SCHEMA))


def first_half(context):
    index, shards = context.config["shard"]
    raw = list(read_rows(context.inputs["raw"] / "data.parquet"))[index::shards]
    def short(row):
        text = row["reasoning"][: len(row["reasoning"]) // 2]
        tokens = row["reasoning_tokens"] // 2
        return row | {"reasoning": text, "messages": messages_of(row["problem"], text, row["solution"]),
                      "reasoning_tokens": tokens, "ratio": 0.5, "compressor": context.config["compressor"]}
    schema = variants.VARIANTS["compressed"].schema
    context.count("kept", write_rows(context.out / "data.parquet", map(short, raw), schema))
    write_rows(context.out / "rejected.parquet", [], REJECTED_SCHEMA)


def end(context):
    ends = {(r["id"], r["sample"]): r for r in read_rows(context.inputs["compressed"] / "data.parquet")}
    def cut(row):
        text = row["reasoning"][-len(ends[row["id"], row["sample"]]["reasoning"]):]
        return row | {"reasoning": text, "matched_to": context.config["compressor"]}
    rows = map(cut, read_rows(context.inputs["raw"] / "data.parquet"))
    context.count("kept", write_rows(context.out / "data.parquet", rows, variants.VARIANTS["end"].schema))


origins.EXISTING["invented"] = Invented
compressors.COMPRESSORS["first-half"] = FirstHalf
variants.VARIANTS["end"] = variants.Kind(
    step="toy:end", order=3, colour="#CC79A7", mark="x", matched=True, columns=(("matched_to", pa.string()),),
    sentence="the end of {teacher}'s, as long as {compressor}'s")

if __name__ == "__main__":
    sys.modules["toy"] = sys.modules["__main__"]
    import hubkit
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.plan import make_plan
    from hubkit.release.columns import variant_fields

    overrides = ["problems.train.size=6", "teachers=[]",
                 "traces=[{source: invented, name: bard, words: 40, shards: 2}]",
                 "compressors=[{kind: first-half, name: half}]", "students.variants=[raw, compressed-half, end-half]"]
    recipe = Path(sys.argv[1])
    records = hubkit.run(recipe, overrides=overrides, out="runs", until=["matched"])
    plan = make_plan(load_recipe(recipe, overrides), recipe, Path("runs").resolve())
    for variant in plan.recipe.variants():
        record = records[variant.step("bard")]
        rows = list(read_rows(Path("runs") / "steps" / record.step / record.key[:16] / "data.parquet"))
        print(variant.name, len(rows), len(rows[0]["reasoning"]), variant.sentence("bard"))
    print([step.name for step in plan.steps if step.kind == "student"][2])
    print([field["configs"] for field in variant_fields(plan.recipe.variants()) if field["name"] == "matched_to"])
'''


def test_an_origin_a_compressor_and_a_control_need_their_module_and_a_row(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(KINDS)
    done = warm.run("toy.py", str(NANO), cwd=tmp_path, cold=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "raw 6 120 the traces of bard as they were written",
        "compressed-half 6 60 the same traces, shortened by half",
        "end-half 6 60 the end of bard's, as long as half's",
        "student/s-compressed-half-full",
        "['end']",
    ]


METHOD = '''
"""A method that trains nothing: the student is its base, once for each row of which it counts the tokens."""
import json
import shutil
import sys
from pathlib import Path
from typing import Literal

from hubkit.students.rows import TokenRows
from hubkit.students.settings import METHODS, Method, MethodCard

VERSION = 1


class Copy(Method):
    step = "copying:run"
    kind: Literal["copy"]
    longest: int

    def tokens(self, rows): return rows * self.longest

    @classmethod
    def card(cls, config): return MethodCard(adapter=False, tags=("copied",))


def run(context):
    rows = TokenRows(context.inputs["tokens"], context.inputs["rows"], context.config["longest"], 1.0)
    shutil.copytree(context.model("base"), context.out / "model")
    (context.out / "training.json").write_text("[]")
    context.metrics |= {"train_rows": len(rows), "train_tokens": int(sum(rows.lengths)), "train_seconds": 1.0,
                        "trainable_parameters": 0}


METHODS["copy"] = Copy

if __name__ == "__main__":
    sys.modules["copying"] = sys.modules["__main__"]
    import hubkit
    from hubkit.recipe.estimate import estimate_all
    from hubkit.recipe.file import load_recipe
    from hubkit.recipe.pipeline import status
    from hubkit.recipe.plan import make_plan
    from hubkit.store import Store

    recipe, out = Path(sys.argv[1]), Path("runs").resolve()
    overrides = sys.argv[2:]
    plan = make_plan(load_recipe(recipe, overrides), recipe, out)
    store = Store(out)
    print(estimate_all(plan, store, status(plan, store))["student/s-raw-copied"].tokens)
    records = hubkit.run(recipe, overrides=overrides, out="runs")
    results = hubkit.results(recipe, overrides=overrides, out="runs").set_index("student")
    row = results.loc["s-raw-copied"]
    print(row.method, row.adapter, row.train_rows == records["student/s-raw-copied"].metrics["train_rows"] > 0)
    print(row.accuracy == results.loc["s"].accuracy, records["publish"].counts["pushed"] > 0)
'''
SMALLEST = [
    "problems.train.size=6",
    "problems.test.size=4",
    "benchmarks.0.sampling.max_tokens=60",
    "students.bases=[{name: s, model: ./models/student-s}]",
    "students.variants=[raw]",
    "students.methods={copied: {kind: copy, longest: 200}}",
    "compressors=[]",
    "run.workers=1",
]


@pytest.mark.slow
def test_a_method_needs_its_module_and_a_row(tmp_path: Path) -> None:
    """From the plan's estimate to the published release, whose card has its own keys and tags."""
    (tmp_path / "copying.py").write_text(METHOD)
    done = warm.run("copying.py", str(NANO), *SMALLEST, cwd=tmp_path, cold=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2400", "copied False True", "True True"]
    with LocalHub(tmp_path / "runs" / "hub") as hub:
        card = HfApi(hub.endpoint, hub.token).hf_hub_download(
            "local/nano-s-raw-copied", "README.md", cache_dir=tmp_path / "cache"
        )
    text = Path(card).read_text(encoding="utf-8")
    assert "- copied\n" in text and "longest: 200" in text


def test_two_students_of_one_name_are_refused_when_the_recipe_is_read() -> None:
    from hubkit.errors import RecipeError
    from hubkit.recipe.file import load_recipe

    twice = "{sft: {learning_rate: 0.1, max_length: 8}}"
    with pytest.raises(RecipeError, match="would be called 's-raw-full'"):
        load_recipe(
            NANO,
            [
                f"students.methods={{full: {twice}, raw-full: {twice}}}",
                "students.variants=[raw]",
                "students.bases.0.name=s",
                "compressors=[]",
                "students.bases.1.name=s-raw-full",
            ],
        )
