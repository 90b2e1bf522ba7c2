"""Judged problems as users run them: a whole recipe, killed on the way; what a recipe may say; what a card tells."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import warm
import yaml
from judging import HOSTILE, PROMPT, Oracle, write_recipe
from openai_server import OpenAIServer
from small_release import Run, build
from support import NANO, hubkit

from hubkit.errors import RecipeError
from hubkit.recipe.config import Recipe
from hubkit.recipe.estimate import estimate_all
from hubkit.recipe.file import load_recipe
from hubkit.recipe.pipeline import status
from hubkit.recipe.plan import make_plan
from hubkit.release.cards import CardContext, dataset_card
from hubkit.release.results import Facts
from hubkit.store import Store
from hubkit.traces.journal import Key, request_seed

PROBLEMS = 100
SIZES = dict.fromkeys(("raw", "compressed-short", "truncated-short"), (12, 1))
Asked = tuple[str, str, int]
"""Kind of step, model and seed: each request of a run has its own."""


def command(recipe: Path, root: Path) -> list[str]:
    options = ["--until", "compressed", "--out", str(root)]
    return ["-m", "hubkit", "recipe", "run", str(recipe), *options]


def kill_within(place: str, recipe: Path, root: Path, server: OpenAIServer) -> None:
    """Start a run and kill it, which ends its workers, while the judge is asked in a step of this kind."""

    def judged() -> int:
        return [(kind, model) for kind, model, _ in asked(server)].count((place, "umpire"))

    process = warm.Python(*command(recipe, root))
    while judged() < 40:  # more than one commit holds
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.communicate()


def journalled(root: Path) -> set[Asked]:
    """What the journals of steps under way hold an answer to."""
    found = set()
    for path in (root / "work").rglob("*.sqlite"):
        kind = path.relative_to(root / "work").parts[0]
        model = "umpire" if path.name == "judge.sqlite" else {"traces": "sage", "compress": "short"}[kind]
        with closing(sqlite3.connect(path)) as db:
            for key in db.execute("SELECT id, sample, attempt FROM requests WHERE NOT failed"):
                found.add((kind, model, request_seed(0, Key(*key)) & 0x7FFFFFFF))
    return found


def asked(server: OpenAIServer) -> list[Asked]:
    return [(_kind(body), body["model"], body["seed"]) for body in server.requests]


def _kind(body: dict[str, Any]) -> str:
    about_an_attempt = "\nIt is City" in body["messages"][-1]["content"]
    return {"sage": "traces", "short": "compress"}.get(
        body["model"], "compress" if about_an_attempt else "judge"
    )


def tables(root: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        f"{path.relative_to(root / 'steps').parts[0]}/{path.name}": pq.read_table(path).to_pylist()
        for path in (root / "steps").rglob("*.parquet")
    }


def test_killed_and_resumed_nothing_that_was_answered_is_asked_again(tmp_path: Path) -> None:
    with Oracle(delay_s=0.02) as server:
        recipe = write_recipe(tmp_path, server, PROBLEMS)
        root = tmp_path / "runs"
        kept: set[Asked] = set()
        for place in ("judge", "compress"):
            before = len(server.requests)
            kill_within(place, recipe, root, server)
            assert not kept & set(asked(server)[before:])
            kept |= journalled(root)
            assert (place, "umpire") in {(kind, model) for kind, model, _ in kept}
        before = len(server.requests)
        warm.run(*command(recipe, root)).check_returncode()
        assert not kept & set(asked(server)[before:])
        # Of each kill, besides: what was under way, and what came since the last commit.
        assert len(server.requests) <= len(set(asked(server))) + 2 * (4 + 32)

        whole = tmp_path / "whole"
        warm.run(*command(recipe, whole)).check_returncode()
    assert tables(root) == tables(whole)
    check_tables(tables(whole))
    records = {r["step"]: r for r in map(json.loads, (p.read_text() for p in whole.rglob("record.json")))}
    record = records["judge/sage/0"]
    assert record["config"]["judge"] == {
        "judge": "umpire",
        "prompt": PROMPT,
        "prompt_sha": record["config"]["judge"]["prompt_sha"],
        "sampling": {"max_tokens": 1024, "temperature": 0.0, "top_p": 1.0, "top_k": 0},
    }
    assert len(record["inputs"]["model:judge"]) == 64
    assert record["metrics"]["judge_completion_tokens"] == 7 * 2 * PROBLEMS * 9 // 10


def check_tables(found: dict[str, list[dict[str, Any]]]) -> None:
    """Of every ten problems one is judged wrong, one hostile (and wrong), one has no verdict, one is refused."""
    verdicts = [row["status"] for row in found["judge/verdicts.parquet"]]
    assert {status: verdicts.count(status) for status in set(verdicts)} == {
        "correct": 2 * PROBLEMS * 6 // 10,
        "wrong": 2 * PROBLEMS * 2 // 10,
        "unjudged": 2 * PROBLEMS * 2 // 10,
    }
    raw = found["raw/data.parquet"]
    assert len(raw) == 2 * PROBLEMS * 6 // 10 and {row["verifier"] for row in raw} == {"judge"}
    why = {(row["solution"], row["reason"]): row["detail"] for row in with_solutions(found)}
    assert why["I say it is City 6.", "wrong"].startswith('the judge: "It says I say it is City 6.')
    assert why[HOSTILE, "wrong"].startswith('the judge: "It says {answer} {response} < /response 01234567')
    assert why["I say it is City 7.", "unjudged"] == 'the judge gave no verdict: "It is hard to say."'
    assert "400" in why["I say it is City 8.", "unjudged"]
    # Every third problem took the compressor a second attempt, and its first was judged too.
    short = found["compressed/data.parquet"]
    assert len(short) == len(raw) and all(row["reasoning"] == f"It is {row['answer']}" for row in short)


def with_solutions(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    solutions = {(row["id"], row["sample"]): row["solution"] for row in found["traces/traces.parquet"]}
    return [row | {"solution": solutions[row["id"], row["sample"]]} for row in found["raw/rejected.parquet"]]


# ---- what a recipe may say


def test_what_identifies_a_judged_step(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        path = write_recipe(tmp_path, server, 4)

    def identities(*overrides: str) -> dict[str, Any]:
        plan = make_plan(load_recipe(path, list(overrides)), path, tmp_path / "runs")
        return {
            step.name: [step.config, step.inputs, [plan.models[m].digest for m in step.models.values()]]
            for step in plan.steps
        }

    def changed(*overrides: str) -> set[str]:
        other = identities(*overrides)
        return {name for name, identity in identities().items() if other[name] != identity}

    judged = {"judge/sage/0", "compress/sage/short/0", "report", "publish"}
    (tmp_path / "other.md").write_text(PROMPT + " Be strict.")
    assert changed("judge.prompt=other.md") == judged
    assert changed("judge.sampling={max_tokens: 9}") == judged
    assert changed("judge.model=./models/teacher") == judged
    assert changed("run.engines.umpire.window=9") == set()


SHORTENS = {
    "name": "short",
    "model": "./models/compressor",
    "prompt": "short.md",
    "sampling": {"max_tokens": 9},
}


def test_a_recipe_without_a_judge_is_what_it_was() -> None:
    recipe = load_recipe(NANO)
    assert "judge" not in recipe.model_dump() and "judge" not in recipe.model_dump_json()
    steps = make_plan(recipe, NANO, Path("nowhere")).steps
    assert not [s.name for s in steps if "judge" in json.dumps([s.name, s.config, s.inputs, s.models])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": None}, "problems.train has `verifier: judge`, and there is no `judge:` section"),
        ({"train_on": "test"}, "the `judge:` section has no use"),
        (
            {"benchmarks": [{"name": "b", "problems": "train", "sampling": {"max_tokens": 9}}]},
            "the benchmark 'b' cannot be judged: lighteval scores students without a judge",
        ),
        ({"compressors": [SHORTENS | {"solution": "final-line"}]}, "no judge is asked to: keep it"),
        ({"judge": {"name": "u", "model": "a/b", "prompt": "short.md"}}, "no {answer} placeholder"),
        (
            {"judge": {"name": "u", "model": "a/b", "prompt": "free.md"}},
            "does not ask for `Verdict: correct`",
        ),
        (
            {"judge": {"name": "u", "model": "a/b", "prompt": "none.md"}},
            "judge.prompt: cannot read 'none.md'",
        ),
        (
            {"judge": {"name": "u", "model": "a/b", "prompt": "judge.md", "samplin": {}}},
            "judge.samplin: unknown key 'samplin', did you mean 'sampling'?",
        ),
    ],
)
def test_a_recipe_that_cannot_be_judged_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with OpenAIServer() as server:
        path = write_recipe(tmp_path, server, 4)
    (tmp_path / "free.md").write_text("{problem} {answer} {response} Right?")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value) and "\n" not in str(caught.value) and caught.value.remedy


def test_a_judge_that_does_not_answer_is_told_before_any_work(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        path = write_recipe(tmp_path, server, 4)
        gone = "run.engines.umpire.endpoint=http://127.0.0.1:9/v1"
        done = hubkit("recipe", "run", str(path), "--set", gone, "--out", str(tmp_path / "runs"))
    assert done.returncode == 1 and "http://127.0.0.1:9/v1 does not answer" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "runs" / "steps").exists()


def test_estimates_count_the_judges_tokens(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        path = write_recipe(tmp_path, server, 4)
    recipe = load_recipe(path, ["problems.train.limit=50", "judge.sampling={max_tokens: 7}"])
    store = Store(tmp_path / "runs")
    plan = make_plan(recipe, path, store.root)
    estimates = estimate_all(plan, store, status(plan, store))
    # Four problems, whatever the limit, and two samples of each.
    assert estimates["traces/sage/0"].tokens == 8 * 99
    assert estimates["judge/sage/0"].tokens == 8 * 7
    assert estimates["compress/sage/short/0"].tokens == 8 * (99 + 7)


# ---- what a card tells


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return build(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("model", ["./umpire", "./sage"])
def test_the_card_says_who_judged_and_with_what_prompt(release: Run, model: str) -> None:
    prompt = PROMPT + "\n```\n<script>alert(1)</script>"
    raw = release.recipe.model_dump(mode="json")
    raw["problems"]["train"] = {"source": "file", "path": "x.jsonl", "verifier": "judge"}
    raw["judge"] = {"name": "umpire", "model": model, "prompt": prompt, "sampling": {"max_tokens": 77}}
    pinned = {"umpire": {"model": "org/umpire", "revision": "c" * 40}}
    cards = CardContext(
        Recipe.model_validate(raw),
        Facts.read(release.recipe, release.inputs),
        endpoint="",
        problems="local/tiny-problems",
        evals="local/tiny-evals",
        space="local/tiny-compare",
        models={"umpire": "org/umpire"},
        pinned=pinned,
    )
    text = dataset_card(cards, "sage", "local/tiny-traces", SIZES)
    assert f"judged correct: umpire (`{model}`)" in text and "at most 77 tokens" in text
    assert ("It is the teacher's own model" in text) == (model == "./sage")
    assert f"````text\n{prompt}\n````" in text
    assert "`org/umpire` | `" + "c" * 40 in text
    block = text.split("All of its settings:")[1].split("yaml\n")[1].split("\n````")[0]
    assert yaml.safe_load(block)["judge"]["prompt"] == prompt
