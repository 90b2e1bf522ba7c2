"""Traces that exist, at the command line: looked at, made a recipe of, and taken through one stage alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_support import add, run
from support import MODELS, hubkit

from hubkit.localhub import LocalHub
from hubkit.recipe.file import load_recipe
from hubkit.stages.inspect import inspect
from hubkit.stages.scaffold import write_recipe
from hubkit.stages.source import SourceOptions, open_source, slug

THINK = "<think>\n{0} and {0} make {1}, says the table of sums that I know by heart.\n</think>\n\nIt is \\boxed{{{1}}}."


def row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "question": f"{number} + {number}?",
        "gold": str(2 * number),
        "completion": THINK.format(number, 2 * number),
        **more,
    }


ROWS = [
    row(1, is_correct=True),
    row(2, is_correct=True, completion=THINK.format(2, 5)),
    row(3, is_correct=False),
    row(4, gold=""),
    row(5, completion={"what": "is this"}),
    row(6, completion="<think>\nnever ends"),
]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def there(hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """Environment of a process for which the local Hub is the Hub."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}


@pytest.fixture(scope="module")
def dataset(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> str:
    from huggingface_hub import HfApi

    api = HfApi(hub.endpoint, token=hub.token)
    name = "local/Some_Traces"
    api.create_repo(name, repo_type="dataset")
    card = b"---\nlicense: cc-by-4.0\nconfigs:\n- {config_name: x, data_files: [{split: dev, path: x.jsonl}]}\n---\n"
    lines = "\n".join(json.dumps(row(n, is_correct=True)) for n in range(1, 7)).encode()
    add(api, name, {"README.md": card, "x.jsonl": lines}, repo_type="dataset")
    return name


def test_what_a_file_gives_is_shown_before_there_is_a_recipe(tmp_path: Path) -> None:
    done = hubkit(
        *("traces", "inspect", str(write(tmp_path / "t.jsonl")), "--json"),
        *("--tokenizer", str(MODELS / "student-s")),
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["columns"] == {
        "problem": "question", "answer": "gold", "text": "completion", "correct": "is_correct",
    }  # fmt: skip
    assert (seen["rows"], seen["traces"], seen["usable"], seen["more"]) == (6, 5, 3, False)
    assert {reason: dropped["number"] for reason, dropped in seen["dropped"].items()} == {
        "no_answer": 1, "unreadable": 1, "unclosed": 1,
    }  # fmt: skip
    assert seen["dropped"]["unclosed"]["first"] == "t.jsonl:6: row 5"
    assert (seen["with_key"], seen["lack_key"]) == (4, 1)
    assert seen["claims"] == {"correct": 2, "wrong": 1, "nothing": 2}
    agreement = seen["agreement"]
    assert agreement["sample"] == 3 and agreement["outcomes"] == {"correct": 2, "wrong": 1}
    assert agreement["claimed_correct_found_wrong"] == agreement["claimed_wrong_found_correct"] == 1
    assert seen["lengths"]["solution_characters"]["p50"] == len("It is \\boxed{2}.")
    assert seen["lengths"]["reasoning_tokens"]["mean"] > 5
    assert [example["problem"] for example in seen["examples"]] == ["1 + 1?", "2 + 2?"]


def test_reading_stops_where_it_is_told_and_filters_count(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", [row(n, domain="ab"[n % 2]) for n in range(1, 9)])
    done = hubkit(
        "traces", "inspect", str(path), "--rows", "4", "--where", "domain=a", "--sample", "0", "--json"
    )
    seen = json.loads(done.stdout)
    assert (seen["rows"], seen["traces"], seen["more"], seen["agreement"]) == (4, 2, True, None)
    assert seen["dropped"]["filtered"]["number"] == 2


def test_nothing_in_the_data_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    evil = "\x1b[31m\x1b]0;title\x07[red]x[/red]\u202e\r"
    rows = [row(1, question=evil + "1 + 1?", completion=THINK.format(1, 2) + evil + "long " * 400)]
    done = hubkit("traces", "inspect", str(write(tmp_path / "t.jsonl", rows)))
    assert done.returncode == 0, done.stderr
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(done.stdout)
    assert "[red]x[/red]1 + 1?" in done.stdout and "characters…]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none/at/all"], "neither a file nor org/name"),
        (["."], "is a folder"),
        (["t.jsonl", "--config", "x"], "is a file and has no config"),
        (["t.jsonl", "--column", "anwser=gold"], "there is nothing called 'anwser'"),
        (["t.jsonl", "--column", "gold"], "is not a=b"),
        (["t.jsonl", "--where", "domain=a"], "no column 'domain'"),
        (["t.jsonl", "--verifier", "maths"], "no verifier is called 'maths'"),
        (["t.jsonl", "--tokenizer", "./none"], "neither a folder nor a Hub id"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    write(tmp_path / "t.jsonl")
    done = hubkit("traces", "inspect", *arguments, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_recipe_is_written_of_a_dataset_on_the_hub(
    dataset: str, there: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "mine.yaml"
    command = ["recipe", "new", "--from", dataset, "--config", "x", "--split", "dev", "--out", str(out)]
    done = hubkit(*command, **there)
    assert done.returncode == 0, done.stderr
    recipe = load_recipe(out)
    assert recipe.name == "some-traces" and recipe.license == "cc-by-4.0"
    told = recipe.traces[0].model_dump()
    assert (told["dataset"], told["config"], told["split"], len(told["revision"])) == (
        dataset,
        "x",
        "dev",
        40,
    )
    assert told["columns"]["answer"] == "gold" and told["license"] == "cc-by-4.0" and "unverified" not in told
    before = out.read_text()
    done = hubkit(*command, **there)
    assert done.returncode == 1 and "is there already" in done.stderr and out.read_text() == before


def test_a_recipe_of_a_file_holds_whatever_its_columns_are_called(tmp_path: Path) -> None:
    rows = [{"question": "1 + 1?", 'a: "b"\n# {c}': THINK.format(1, 2)}]
    (tmp_path / "recipes").mkdir()
    path, out = write(tmp_path / "mine.v2.jsonl", rows), tmp_path / "recipes" / "r.yaml"
    done = hubkit(
        "recipe", "new", "--from", str(path), "--out", str(out), "--column", f"text={list(rows[0])[1]}"
    )
    assert done.returncode == 0, done.stderr
    told = load_recipe(out).traces[0].model_dump()
    assert told["path"] == "../mine.v2.jsonl" and told["columns"] == {
        "problem": "question", "text": 'a: "b"\n# {c}',
    }  # fmt: skip
    assert told["unverified"] and "every card says so" in out.read_text()


@pytest.mark.parametrize(("stated", "license_"), [("ask its authors", "other"), ("Apache 2.0", "apache-2.0")])
def test_a_recipe_has_a_licence_that_the_hub_knows(tmp_path: Path, stated: str, license_: str) -> None:
    path, out = write(tmp_path / "t.jsonl"), tmp_path / "r.yaml"
    origin, pin = open_source(str(path), SourceOptions(license=stated))
    write_recipe(out, origin, inspect(origin, pin, sample=0), str(path))
    recipe = load_recipe(out)
    assert (recipe.license, recipe.traces[0].license) == (license_, stated)


def test_names_of_sources_become_names_of_recipes() -> None:
    assert slug("OpenR1-Math_220k..v--2.") == "openr1-math-220k-v-2"
    assert slug("思考") == "traces" and len(slug("x" * 99)) == 39


def ours(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file that a stage wrote: what it is on disk and when it was changed."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_verified_traces_load_as_a_dataset_and_are_made_once(
    dataset: str, there: dict[str, str], tmp_path: Path
) -> None:
    import datasets

    out = tmp_path / "verified"
    command = ["traces", "verify", dataset, "--config", "x", "--split", "dev", "--out", str(out)]
    done = hubkit(*command, **there)
    assert done.returncode == 0 and "kept 6" in done.stdout, done.stderr
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["problem"][:2] == ["1 + 1?", "2 + 2?"] and rows["reasoning_tokens"][0] is None
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card and f"- {dataset}" in card and "Tokens were not counted" in card
    before = ours(out)
    assert hubkit(*command, **there).returncode == 0 and ours(out) == before
    other = hubkit("traces", "verify", str(write(tmp_path / "t.jsonl")), "--out", str(out))
    assert other.returncode == 1 and "holds other traces" in other.stderr
    pushed = hubkit("traces", "push", str(out), "local/verified-x", **there)
    assert pushed.returncode == 0, pushed.stderr
    again = hubkit("traces", "push", str(out), "local/verified-x", **there)
    assert "it was there already" in again.stdout, again.stderr
    code = (
        "import datasets; d = datasets.load_dataset('local/verified-x', split='train');"
        "print(d.num_rows, d[0]['messages'][1]['content'][:8])"
    )
    assert run(code, os.environ | there).split() == ["6", "<think>"]


def test_what_is_not_right_is_rejected_with_its_reason_or_kept_unverified(tmp_path: Path) -> None:
    import datasets

    path, out = write(tmp_path / "t.jsonl"), tmp_path / "out"
    assert hubkit("traces", "verify", str(path), "--out", str(out)).returncode == 0
    rejected = datasets.load_dataset(str(out), "rejected", split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rejected["reason"]) == ["unclosed", "wrong"]
    card = (out / "README.md").read_text()
    assert (
        "none is stated" in card and "calls 2 of the traces correct, of which 1 were found wrong here" in card
    )
    out = tmp_path / "unverified"
    assert hubkit("traces", "verify", str(path), "--out", str(out), "--unverified").returncode == 0
    after_title = (out / "README.md").read_text().partition("# t: raw")[2]
    assert after_title.startswith("\n\n**The answers in these traces were not verified**")
    done = hubkit("traces", "verify", str(path), "--out", str(tmp_path))
    assert done.returncode == 1 and "is not a stage's folder" in done.stderr


REASONING = (
    "I need to work out 47 + 38 - 12. First 47 + 38. The ones are 7 + 8 = 15, the tens are 4 + 3 = 7, so 47 + 38 = 85. "
    "Wait, let me check: 85 - 38 = 47. Good. Then 85 - 12 = 73. Wait, let me check: 73 + 12 = 85. Good."
)


def test_stages_follow_each_other_and_stay_matched(tmp_path: Path) -> None:
    from hubkit.records import read_rows

    text = f"<think>\n{REASONING}\n</think>\n\nThe answer is \\boxed{{73}}."
    asked = "State the final answer to the following arithmetic problem: 47 + 38 - 12 ="
    path = write(tmp_path / "t.jsonl", [{"problem": asked, "answer": "73", "text": text}])
    verified, short, cut, ten = (tmp_path / name for name in ("verified", "short", "cut", "ten"))
    student, compressor = str(MODELS / "student-s"), str(MODELS / "compressor")
    by = ["--tokenizer", student]

    def data(folder: Path) -> dict[str, Any]:
        (file,) = (folder / "data").rglob("*.parquet")
        (found,) = read_rows(file)
        return found

    assert hubkit("traces", "verify", str(path), "--out", str(verified), *by).returncode == 0
    prompt = str(MODELS.parent / "prompts" / "compress.md")
    done = hubkit(
        *(
            "traces",
            "compress",
            str(verified),
            "--model",
            compressor,
            "--prompt",
            prompt,
            "--out",
            str(short),
        ),
        *("--max-tokens", "120", "--engine", "transformers", "--device", "cpu", *by),
    )
    assert done.returncode == 0, done.stderr
    done = hubkit("traces", "truncate", str(verified), "--to", str(short), *by, "--out", str(cut))
    assert done.returncode == 0, done.stderr
    raw, compressed, truncated = data(verified), data(short), data(cut)
    assert 0 < compressed["reasoning_tokens"] < raw["reasoning_tokens"]
    assert truncated["reasoning_tokens"] == truncated["budget_tokens"] == compressed["reasoning_tokens"]
    assert REASONING.startswith(truncated["reasoning"]) and truncated["matched_to"] == "compressor"
    assert "Prompt of compressor" in (short / "README.md").read_text()
    for kind in ("last", "random-steps", "random-tokens"):
        out = tmp_path / kind
        kept = ("--to", str(short), "--kind", kind, "--seed", "3")
        done = hubkit("traces", "truncate", str(verified), *kept, *by, "--out", str(out))
        assert done.returncode == 0, done.stderr
        null = data(out)
        assert (
            null["reasoning_tokens"] == compressed["reasoning_tokens"] and null["solution"] == raw["solution"]
        )
        assert (out / "data" / f"{kind}-compressor").is_dir()
        words = iter(REASONING.replace("\n", " "))
        assert all(c in words for c in null["reasoning"].replace("\n", " "))
    done = hubkit("traces", "truncate", str(path), "--tokens", "10", *by, "--out", str(ten), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["config"] == "truncated-10" and made["steps"][-1]["counts"]["kept"] == 1, made
    assert data(ten)["reasoning_tokens"] == 10 and data(ten)["matched_to"] is None
    seen = json.loads(hubkit("traces", "stats", str(short), *by, "--json").stdout)
    assert seen["ratio"]["reasoning"] == pytest.approx(compressed["ratio"])
    assert seen["ratio"]["reasoning"] < seen["ratio"]["response"] < 1
    # The compressed traces of a file are the same ones, whatever ids they have there.
    (file,) = (short / "data").rglob("*.parquet")
    done = hubkit("traces", "truncate", str(path), "--to", str(file), *by, "--out", str(tmp_path / "by-file"))
    assert done.returncode == 0, done.stderr
    assert data(tmp_path / "by-file")["reasoning"] == truncated["reasoning"]
    other = write(tmp_path / "other.jsonl", [{"problem": "Who?", "answer": "73", "text": text}])
    done = hubkit("traces", "truncate", str(path), "--to", str(other), *by, "--out", str(tmp_path / "none"))
    assert done.returncode == 1 and "none of its traces is of a problem that is there" in done.stderr, (
        done.stderr
    )
    uncounted = tmp_path / "uncounted"
    assert hubkit("traces", "verify", str(path), "--out", str(uncounted)).returncode == 0
    done = hubkit("traces", "truncate", str(uncounted), "--tokens", "9", *by, "--out", str(tmp_path / "x"))
    assert done.returncode == 1 and "by no tokenizer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "t.jsonl", "--out", "o"], "say which model shortens"),
        (["compress", "t.jsonl", "--out", "o", "--endpoint", "http://x/v1"], "go together"),
        (
            ["compress", "t.jsonl", "--out", "o", "--endpoint", "http://x/v1", "--served-model", "m"],
            "an endpoint has none",
        ),
        (["truncate", "t.jsonl", "--out", "o", "--tokenizer", "x/y"], "say where to cut"),
        (["truncate", "t.jsonl", "--out", "o", "--tokenizer", "x/y", "--to", "."], "is a folder"),
        (
            ["truncate", "t.jsonl", "--out", "o", "--tokenizer", "x/y", "--tokens", "9", "--kind", "raw"],
            "no control",
        ),
        (
            ["compress", "t.jsonl", "--out", "o", "--model", "x/y", "--kind", "squeeze"],
            "there is no kind 'squeeze'",
        ),
        (
            ["compress", "t.jsonl", "--out", "o", "--model", "x/y", "--kind", "prune-steps"],
            "ratio: Field required",
        ),
        (["compress", "t.jsonl", "--out", "o", "--model", "x/y", "--by", "answer"], "by: Extra inputs"),
        (["verify", "t.jsonl", "--out", "o", "--verifier", "judge"], "a judge is a model"),
        (["push", ".", "local/x"], "not the folder of a finished stage"),
        # What lies here is looked at before a Hub is asked for anything.
        (["compress", "none.jsonl", "--out", "o", "--model", "x/y"], "'none.jsonl' is neither a file"),
        (["compress", "./none", "--out", "o", "--model", "x/y"], "'./none' is neither a file"),
        (["compress", ".", "--out", "o", "--model", "x/y"], "'.' is a folder"),
        (["verify", "none.jsonl", "--out", "o", "--tokenizer", "x/y"], "'none.jsonl' is neither a file"),
        (["stats", "none.jsonl", "--tokenizer", "x/y"], "'none.jsonl' is neither a file"),
        (
            ["truncate", "none.jsonl", "--out", "o", "--tokenizer", "x/y", "--to", "x/y"],
            "'none.jsonl' is neither",
        ),
    ],
)
def test_a_stage_that_cannot_begin_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    write(tmp_path / "t.jsonl")
    done = hubkit("traces", *arguments, cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "o").exists()


def test_steps_are_pruned_by_a_scorer_and_the_card_says_how_near_it_came(tmp_path: Path) -> None:
    text = f"<think>\n{REASONING}\n</think>\n\nIt is 73.\n\nThe answer is \\boxed{{73}}."
    path = write(tmp_path / "t.jsonl", [{"problem": "47 + 38 - 12 = ?", "answer": "73", "text": text}])
    out = tmp_path / "pruned"
    done = hubkit(
        *("traces", "compress", str(path), "--kind", "prune-steps", "--model", str(MODELS / "teacher")),
        *(
            "--ratio",
            "0.5",
            "--by",
            "entropy",
            "--solution",
            "final-line",
            "--device",
            "cpu",
            "--out",
            str(out),
        ),
    )
    assert done.returncode == 0, done.stderr
    card = (out / "README.md").read_text()
    assert "scored each step of the reasoning by the sum of its tokens' entropies" in card
    assert "Aimed at was 50 % of the raw length; the median trace came to" in card
    seen = json.loads(
        hubkit("traces", "stats", str(out), "--tokenizer", str(MODELS / "teacher"), "--json").stdout
    )
    assert seen["lengths"]["solution_characters"]["max"] == len("The answer is \\boxed{73}.")
    assert 0.2 < seen["ratio"]["reasoning"] < 0.8
