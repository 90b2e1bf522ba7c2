"""Cards and report of a small run, read back by the clients that people use."""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from markupsafe import escape
from small_release import HOSTILE, PROMPT, Run, build

from hubkit.evaluation.statistics import sign_flip, summary
from hubkit.problems.file import FileSource
from hubkit.recipe.config import Recipe
from hubkit.records import EVALUATION_SCHEMA, SAMPLED_SCHEMA, read_rows, write_rows
from hubkit.release import report
from hubkit.release.boards import Boards
from hubkit.release.cards import CardContext, dataset_card, evals_card, model_card, student_card
from hubkit.release.cards.evidence import histogram
from hubkit.release.layout import Material, _students, layout
from hubkit.release.names import repos
from hubkit.release.plot import FIGURES
from hubkit.release.results import (
    Facts,
    null_tests,
    paired_tests,
    student_rows,
    variant_rows,
)
from hubkit.release.seeds import over_seeds, seed_tests
from hubkit.traces.variants import VARIANTS, Variant


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return build(tmp_path_factory.mktemp("run"), reported=True)


@pytest.fixture(scope="module")
def facts(run: Run) -> Facts:
    return Facts.read(run.recipe, run.inputs)


@pytest.fixture(scope="module")
def cards(run: Run, facts: Facts) -> CardContext:
    models = {name: f"local/tiny-{name}" for name in run.models}
    models |= {n.partition("/")[2]: f"local/tiny-{n.partition('/')[2]}" for n in facts.kind("student")}
    commits = {"local/tiny-s": "a" * 40}
    return CardContext(
        run.recipe,
        facts,
        "",
        "local/tiny-problems",
        "local/tiny-evals",
        "local/tiny-compare",
        models,
        commits,
    )


def check_markdown(card: str) -> str:
    """Rendered body of a card; fails when hostile text became markup."""
    body = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<script" not in rendered and "<img src=x" not in rendered and "<strong>bold" not in rendered
    assert "Undefined" not in card and "None" not in rendered
    return rendered


def test_rows_compare_with_raw(facts: Facts) -> None:
    rows = {row["student"]: row for row in student_rows(facts)}
    assert rows["s"]["variant"] is None and rows["s"]["train_tokens"] is None
    assert rows["s-raw-full"]["train_tokens_of_raw"] == 1.0
    short = rows["s-compressed-short-full"]
    assert short["train_tokens_of_raw"] == pytest.approx(12 / 90)
    assert short["accuracy_of_raw"] == pytest.approx(11 / 15)
    assert rows["s-raw-full-seed1"]["train_tokens_of_raw"] == 1.0
    assert next(iter(rows)) == "s"


def test_seeds_are_summed_up(facts: Facts) -> None:
    (group,) = over_seeds(facts, student_rows(facts))
    assert (group["seeds"], group["variant"], group["accuracy"]) == (2, "raw", 0.75)
    # Both seeds are right on the same 15 of 20 problems, which tells no more than one of them does.
    one = next(row for row in student_rows(facts) if row["student"] == "s-raw-full")
    assert (group["ci_low"], group["ci_high"]) == pytest.approx((one["ci_low"], one["ci_high"]), abs=0.01)
    assert seed_tests(facts) == [], "no other variant has both seeds"


def test_variants_are_compared_over_all_seeds(facts: Facts, tmp_path: Path) -> None:
    """A second seed of the truncated students, right on other problems than the first."""
    step = next(name for name in facts.kind("evaluation") if "truncated" in name)
    again, record = f"{step}-seed1", facts.records[step]
    rows = list(read_rows(facts.folders[step] / "samples.parquet"))
    write_rows(
        tmp_path / "samples.parquet",
        [row | {"correct": number >= 14} for number, row in enumerate(rows)],
        EVALUATION_SCHEMA,
    )
    config = record.config | {"seed": 1, "student": f"{record.config['student']}-seed1"}
    both = Facts(
        facts.recipe,
        {**facts.folders, again: tmp_path},
        {**facts.records, again: record.model_copy(update={"config": config})},
    )
    (test,) = seed_tests(both)
    assert (test["a"], test["b"], test["seed"], test["seeds"]) == ("raw", "truncated-short", None, 2)
    # Problems 0-14 are right with both seeds of raw; 0-2 with one of truncated, 14-19 with the other.
    assert test["difference"] == pytest.approx((30 - 9) / 40)
    assert (test["only_a"], test["only_b"]) == (15, 5)
    assert test["p"] == test["p_holm"] == pytest.approx(sign_flip([1] * 4 + [2] * 11 + [-1] * 5))
    (null,) = null_tests(both, paired_tests(both))
    assert null["seed"] == 0 and null_tests(both, [test]) == []


def test_variants_count_what_was_dropped(facts: Facts) -> None:
    rows = {row["variant"]: row for row in variant_rows(facts)}
    assert list(rows) == ["raw", "compressed-short", "truncated-short"]
    assert rows["raw"]["dropped"] == {"wrong": 8} and rows["raw"]["rows"] == 12


def test_paired_tests_use_the_pairs(facts: Facts) -> None:
    tests = {(t["a"], t["b"], t["method"], t["seed"]): t for t in paired_tests(facts)}
    assert len(tests) == 3
    one = tests["raw", "truncated-short", "full", 0]
    assert one["only_a"] == 12 and one["only_b"] == 0 and one["p"] == pytest.approx(2 / 2**12)
    assert one["p_holm"] >= one["p"]


def test_answers_given_twice_tell_no_more_than_once(facts: Facts, cards: CardContext, tmp_path: Path) -> None:
    """Every problem answered twice alike: the same tests, and the cards say what several answers are."""
    folders, records = dict(facts.folders), dict(facts.records)
    for step, record in facts.kind("evaluation").items():
        rows = [
            row | {"sample": sample, "extracted": row["answer"] if row["correct"] else "no"}
            for row in read_rows(facts.folders[step] / "samples.parquet")
            for sample in (0, 1)
        ]
        folders[step] = tmp_path / step
        write_rows(folders[step] / "samples.parquet", rows, SAMPLED_SCHEMA)
        metrics = record.metrics | summary(rows)
        records[step] = record.model_copy(update={"metrics": metrics})
    twice = Facts(facts.recipe, folders, records)
    for one, two in zip(paired_tests(facts), paired_tests(twice), strict=True):
        assert {n: v for n, v in one.items() if n != "p"} == pytest.approx(
            {n: two[n] for n in one if n != "p"}
        )
        assert one["p"] == pytest.approx(two["p"])
    row = next(row for row in student_rows(twice) if row["student"] == "s-raw-full")
    assert (row["n"], row["correct"], row["samples"]) == (20, 30, 2)
    assert row["accuracy"] == row["pass_at_k"] == row["maj_at_k"] == 0.75
    before = next(row for row in student_rows(facts) if row["student"] == "s-raw-full")
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((before["ci_low"], before["ci_high"]), abs=0.01)
    text = student_card(replace(cards, facts=twice), "s-raw-full", "local/tiny-s", "local/tiny-traces")
    check_markdown(text)
    assert "| s-raw-full | test | 2 | 75.0 % | 75.0 % | 75.0 % |" in text


def test_a_compressor_is_tested_against_its_control_of_the_same_length(run: Run, facts: Facts) -> None:
    tests = paired_tests(facts)
    (null,) = null_tests(facts, tests)
    assert (null["a"], null["b"]) == ("compressed-short", "truncated-short")
    assert (null["compressor"], null["control"]) == ("short", "truncated")
    assert null["difference"] == pytest.approx((11 - 3) / 20) and null["p_holm"] == null["p"]
    whole = next(t for t in tests if (t["a"], t["b"]) == (null["a"], null["b"]))
    assert whole["p_holm"] > whole["p"] == null["p"], "there all pairs are in the family"
    folder = run.inputs["report"]
    assert json.loads((folder / "results.json").read_text())["nulls"] == [null]
    text = (folder / "report.html").read_text()
    assert "Is it the compressor, or the length?" in text and "+40.0 points" in text


def test_dataset_card(run: Run, facts: Facts, cards: CardContext) -> None:
    sizes = {"raw": (12, 1000), "compressed-short": (10, 900), "truncated-short": (10, 900)}
    text = dataset_card(cards, "sage", "local/tiny-traces", sizes)
    data = DatasetCard(text).data.to_dict()
    assert [c["config_name"] for c in data["configs"]] == list(sizes)
    assert data["size_categories"] == ["n<1K"] and {"synthetic", "reasoning", "hubkit"} <= set(data["tags"])
    assert data["license"] == "apache-2.0" and data["task_categories"] == ["text-generation"]
    rendered = check_markdown(text)
    assert PROMPT in html.unescape(rendered)
    assert "arxiv.org/abs/2606.05988" in text and "wrong 8" in text
    # The recipe comes back whole from its block.
    blocks = re.findall(r"^(`{3,})yaml\n(.*?)\n\1$", text, flags=re.DOTALL | re.MULTILINE)
    assert yaml.safe_load(blocks[0][1]) == run.recipe.model_dump(mode="json", exclude={"run"})
    for name in ("raw/sage", "compressed/sage/short", "problems/train"):
        assert facts.records[name].key[:16] in text
    assert str(run.root) not in text


def test_cards_say_where_problems_come_from(facts: Facts, cards: CardContext) -> None:
    source = FileSource(
        source="file", path="mine.jsonl", origin="https://example.org/problems?v=2", license=f"MIT {HOSTILE}"
    )
    recipe = cards.recipe.model_copy(update={"problems": cards.recipe.problems | {"train": source}})
    sizes = dict.fromkeys((v.name for v in facts.variants("sage")), (12, 1))
    card = dataset_card(replace(cards, recipe=recipe), "sage", "local/tiny-traces", sizes)
    page = check_markdown(card)
    link = '<a href="https://example.org/problems?v=2">https://example.org/problems?v=2</a>'
    assert page.count(link) == 2, "in the sentence and in the table"
    assert "licence MIT" in page


def test_dataset_info_is_what_datasets_finds(facts: Facts, cards: CardContext) -> None:
    from datasets import Dataset, Features

    sizes = {"raw": (12, 1), "compressed-short": (10, 1), "truncated-short": (10, 1)}
    data = DatasetCard(dataset_card(cards, "sage", "local/tiny-traces", sizes)).data.to_dict()
    steps = {variant.name: step for variant, step in facts.variants("sage").items()}
    for info in data["dataset_info"]:
        path = facts.folders[steps[info["config_name"]]] / "data.parquet"
        assert Features._from_yaml_list(info["features"]) == Dataset.from_parquet(str(path)).features


def test_sizes_in_cards_are_those_that_datasets_counts(run: Run, facts: Facts, cards: CardContext) -> None:
    import datasets

    cards = replace(cards, commits=dict(cards.commits))
    boards = Boards({}, {})
    material = Material(lambda name: {}, {}, boards, run.root / "layout")
    for stage in layout(cards, material):
        for repo in stage:
            if repo.id == "local/tiny-traces":
                card = DatasetCard(bytes(repo.files["README.md"]).decode())  # type: ignore[arg-type]
                infos = {info["config_name"]: info for info in card.data.to_dict()["dataset_info"]}
                for name, info in infos.items():
                    files = [str(f) for n, f in repo.files.items() if n.startswith(f"data/{name}/")]
                    builder = datasets.load_dataset_builder(
                        "parquet", data_files={"train": files}, cache_dir=str(run.root / "cache")
                    )
                    builder.download_and_prepare()
                    assert info["dataset_size"] == builder.info.dataset_size
                    assert info["splits"][0]["num_bytes"] == builder.info.splits["train"].num_bytes
                    assert info["download_size"] == sum(Path(file).stat().st_size for file in files)
                return
        for repo in stage:
            cards.commits[repo.id] = "b" * 40
    raise AssertionError("no traces were laid out")


def test_student_cards(facts: Facts, cards: CardContext) -> None:
    for student, relation, library in (
        ("s-raw-full", "finetune", "transformers"),
        ("s-raw-lora", "adapter", "peft"),
    ):
        text = student_card(cards, student, "local/tiny-s", "local/tiny-traces")
        data = ModelCard(text).data
        assert data.base_model == "local/tiny-s" and data["base_model_relation"] == relation
        assert data.library_name == library and data.datasets == ["local/tiny-traces"]
        values = {result.metric_type: result.metric_value for result in data.eval_results}
        assert values == {"accuracy": 0.75, "mean_output_tokens": 90.0}
        rendered = check_markdown(text)
        assert "a" * 40 in text and "learning_rate: 0.001" in text
        # All students stand in its table; steps of other students do not stand in its lineage.
        assert rendered.count("<td>test</td>") == 6
        # How it was trained: what memory, precision and a kernel that is missing could have changed.
        assert "98.7 % of those looked at after 6 steps; gradient norm 1.2345" in text
        assert re.search(r"\| matrix products \| bfloat16 +\|", text)
        assert "logits differ from those of each example alone by 1.2e-05 of the largest" in text
        assert "examples are padded, not packed: packed with sdpa a logit is off by 7.0%" in text
        assert ("| layers without an adapter | `linear_attn.in_proj_a` |" in text) == (relation == "adapter")
        assert f"student/{student}" in text.replace("\\", "") and "student/s-raw-full-seed1" not in text


def test_weights_that_were_not_looked_at_are_told(facts: Facts, cards: CardContext) -> None:
    name = "student/s-raw-full"
    record = facts.records[name]
    unseen = record.metrics | {"weights_moved": None}
    without = {key: value for key, value in record.metrics.items() if key != "weights_moved"}
    for metrics, why in (
        (unseen, "not looked at: no process had a part of them in memory"),
        (without, "not looked at: this method of training does not"),
    ):
        changed = record.model_copy(update={"metrics": metrics})
        seen = replace(facts, records=facts.records | {name: changed})
        text = student_card(replace(cards, facts=seen), "s-raw-full", "local/tiny-s", "local/tiny-traces")
        assert f"| weights that moved | {why} |" in text


def test_a_student_is_of_its_own_base_s_commit(facts: Facts, cards: CardContext, tmp_path: Path) -> None:
    """Also where the recipe takes two commits of one repo as two bases."""
    models = {name: repo for name, repo in cards.models.items() if name != "s"}
    pinned = {"s": {"model": "org/m", "revision": "1" * 40}, "late": {"model": "org/m", "revision": "9" * 40}}
    two = replace(cards, models=models, pinned=pinned, commits={"org/m": "9" * 40})
    material = Material(lambda name: {"adapter_config.json": b"{}"}, {}, Boards({}, {}), tmp_path)
    for repo in _students(two, material):
        card, adapter = repo.files["README.md"], repo.files["adapter_config.json"]
        assert isinstance(card, bytes) and isinstance(adapter, bytes)
        assert b"1" * 40 in card and b"9" * 40 not in card
        assert json.loads(adapter) == {"base_model_name_or_path": "org/m", "revision": "1" * 40}


def test_traces_without_reasoning_stand_in_the_card_s_lengths(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_rows(
        path, [{"reasoning_tokens": n} for n in (0, 0, 3, 40)], pa.schema([("reasoning_tokens", pa.int32())])
    )
    facts: Any = SimpleNamespace(variants=lambda teacher: {Variant("raw"): "raw"}, folders={"raw": tmp_path})
    found = histogram(facts, "sage")
    assert found[0] == {"low": 0, "high": 1, "cells": ["████████████ 2"]} and found[-1]["high"] == 40
    assert sum(int(row["cells"][0].split()[-1]) for row in found) == 4


def test_cards_show_what_they_claim(facts: Facts, cards: CardContext) -> None:
    sizes = {"raw": (12, 1000), "compressed-short": (10, 900), "truncated-short": (10, 900)}
    text = dataset_card(cards, "sage", "local/tiny-traces", sizes)
    body = text.split("\n---\n", 1)[1]
    assert body.strip().splitlines()[2].startswith("Reasoning traces of one teacher, sage")
    # Raw beside compressed, the histogram with all rows in it, contamination, licences, citation.
    assert "Think </pre> and on" in text and "Short </pre>" in text
    bars = [line.split("|")[2:-1] for line in text.splitlines() if re.match(r"\| \d+ to \d+ \|", line)]
    counts = [[int(cell.split()[-1]) for cell in cells] for cells in bars]
    assert [sum(column) for column in zip(*counts, strict=True)] == [12, 10, 10]
    assert "0 of the 20 test problems of `test` are in the training set" in text
    assert "recipe names no licence" in text and "2606.05988" in text and "@misc{localtinyv1" in text
    card = student_card(cards, "s-truncated-short-full", "local/tiny-s", "local/tiny-traces")
    test = next(t for t in paired_tests(facts) if t["b"] == "truncated-short")
    assert f"-60.0 points, p = {test['p_holm']:.2g}" in card
    # The question of the snippet is of the benchmark, and was answered right: 3 of 20 were.
    assert "of test, answer '1': it gets this one right" in card and "What is 1 + 0?" in card


def test_a_licence_that_the_hub_does_not_know_is_named(facts: Facts, cards: CardContext) -> None:
    link = "https://example.org/terms"
    told = {"license": "other", "license_name": "our-terms-1.0", "license_link": link}
    cards = replace(cards, recipe=Recipe.model_validate(facts.recipe.model_dump() | told))
    texts = [
        dataset_card(
            cards, "sage", "local/tiny-traces", {v.name: (12, 1000) for v in facts.variants("sage")}
        ),
        student_card(cards, "s-raw-full", "local/tiny-s", "local/tiny-traces"),
        model_card(cards, "s", "The base"),
        evals_card(cards, {"outputs": (120, 5000), "results": (6, 500)}, {}, plot=False),
    ]
    for text in texts:
        data = yaml.safe_load(text.split("---")[1])
        assert {key: data[key] for key in told} == told
    assert "as a whole is released under `our-terms-1.0`" in texts[0]


def test_other_cards(cards: CardContext) -> None:
    text = evals_card(cards, {"outputs": (120, 5000), "results": (6, 500)}, {}, plot=True)
    assert [c["config_name"] for c in DatasetCard(text).data["configs"]] == ["outputs", "results"]
    rendered = check_markdown(text)
    assert "5 students and 1 untrained base of" in rendered and "not that they are equal" in rendered
    # A column of two tables: an answer is right or not; of a student, a number of them are.
    assert "| results | `correct` | int32 | how many of its answers were found right |" in text
    assert "| outputs | `correct` | bool | whether its final answer was found right |" in text
    assert all(f" {kind}" in text.partition("the kind of variant:")[2].splitlines()[0] for kind in VARIANTS)
    text = model_card(cards, "sage", "A teacher")
    assert "hubkit" in (ModelCard(text).data.tags or [])
    check_markdown(text)


def test_tables_over_seeds_name_the_teacher_where_there_are_several(facts: Facts, cards: CardContext) -> None:
    """The students of a second teacher, of the same seeds and with the same answers."""
    plain = facts.recipe.model_dump(mode="json", exclude={"run"})
    plain["teachers"].append(plain["teachers"][0] | {"name": "owl"})
    records, folders = dict(facts.records), dict(facts.folders)
    for name, record in facts.records.items():
        again = name.replace("/sage", "/owl").replace("/s-", "/owl-s-")
        if again != name:
            config = record.config | {"teacher": "owl"}
            config |= {"student": f"owl-{config['student']}"} if "student" in config else {}
            records[again], folders[again] = record.model_copy(update={"config": config}), folders[name]
    two = Facts(Recipe.model_validate(plain), folders, records)
    assert {group["teacher"] for group in over_seeds(two, student_rows(two))} == {"sage", "owl"}
    sizes = {"outputs": (240, 5000), "results": (11, 500)}
    rows = re.compile(r"^\|( \w+ \|)? s \| raw +\| full +\| test \| +2 \|", re.MULTILINE)
    text = evals_card(replace(cards, facts=two), sizes, {}, plot=False)
    assert rows.findall(text) == [" owl |", " sage |"] and "| teacher | base | variant |" in text
    check_markdown(text)
    results = {"over_seeds": over_seeds(two, student_rows(two)), "students": student_rows(two)}
    page = report._html(
        {"recipe": "tiny", "description": "", "headline": "", "tests": [], "seed_tests": [], "nulls": []}
        | {"variants": variant_rows(two), **results},
        two,
        dict.fromkeys(FIGURES, b""),
    )
    seeds = page.partition("<h2>Over seeds</h2>")[2].partition("</table>")[0]
    assert ">teacher<" in seeds and ">sage<" in seeds and ">owl<" in seeds
    # One teacher needs no name.
    text = evals_card(cards, sizes, {}, plot=False)
    assert rows.findall(text) == [""] and "| teacher |" not in text


def test_the_report_names_no_repo_that_is_not_made(facts: Facts) -> None:
    """Traces may come with their problems, and a benchmark may be a task of lighteval: then there are no problems."""
    plain = facts.recipe.model_dump(mode="json", exclude={"run"})
    sets: Any = {"train": plain["problems"]["train"]}
    task = [{"name": "gsm8k", "task": "gsm8k|0", "sampling": {"max_tokens": 40}}]
    named = {
        repo["what"]
        for changes in ({}, {"problems": sets, "benchmarks": task})
        for repo in repos(replace(facts, recipe=Recipe.model_validate(plain | changes)))
    }
    assert {"problems, as a benchmark", "problems"} <= named
    alone = SimpleNamespace(
        name="tiny", hub=facts.recipe.hub, problems={}, benchmarks=[], origins=facts.recipe.origins
    )
    assert not {repo["what"] for repo in repos(replace(facts, recipe=alone))} & {  # type: ignore[arg-type]
        "problems, as a benchmark",
        "problems",
    }


class Page(HTMLParser):
    """Elements and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [v or "" for n, v in attrs if n in ("src", "href", "xlink:href", "action")]


def test_report(run: Run) -> None:
    folder = run.inputs["report"]
    results = json.loads((folder / "results.json").read_text())
    assert len(results["students"]) == 6 and results["tests"] and results["over_seeds"]
    assert (folder / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.tags & {"script", "link", "iframe", "svg"} and not page.handlers
    # Its pictures are in it, and it points nowhere: the recipe publishes to a local Hub.
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert results["headline"] in html.unescape(text)
    assert str(escape(HOSTILE)) in text
    assert str(run.root) not in text


def test_report_is_the_same_every_time(run: Run, tmp_path: Path) -> None:
    context = run.context("report", tmp_path)
    context.out.mkdir()
    report.run(context)
    for name in ("report.html", "results.json", "tradeoff.png"):
        assert (context.out / name).read_bytes() == (run.inputs["report"] / name).read_bytes()


def test_terminal_table(run: Run) -> None:
    from rich.console import Console

    results = json.loads((run.inputs["report"] / "results.json").read_text())
    results["students"][0]["student"] = "[red]s[/red]"
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.table(results))
    seeds = report.seeds_table(results)
    assert seeds is not None
    console.print(seeds)
    text = console.export_text()
    assert "s raw full on test, sage" in text
    assert "75.0 %" in text and "[red]s[/red] (untrained)" in text and "13 %" in text


@pytest.mark.parametrize("width", [160, 80, 60, 40])
def test_names_are_whole_at_any_width(run: Run, width: int) -> None:
    from rich.console import Console

    results = json.loads((run.inputs["report"] / "results.json").read_text())
    results["students"][1]["student"] = "a-base-whose-name-is-long-truncated-by-a-compressor-full-seed1"
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report.table(results, width))
    seeds = report.seeds_table(results, width)
    assert seeds is not None
    console.print(seeds)
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    # A name may fold; no letter of it is lost, and its accuracy stands beside it.
    letters = "".join(line[: width - 10].split("  ")[0] for line in text.splitlines())
    for row in results["students"]:
        assert row["student"] in letters or row["student"] in text, row["student"]
    assert text.count("75.0 %") >= 1
    assert ("more column" in text) == (width < 160)
