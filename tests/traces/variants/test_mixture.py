"""An effort switch: one student on several forms of the traces, asked at each level, through a whole release."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import MODELS, NANO, hubkit

from hubkit.engines import Request
from hubkit.engines.bodies import Dialect
from hubkit.errors import GateError, InputError, RecipeError
from hubkit.evaluation.benchmark import check_level, level_named
from hubkit.recipe.file import load_recipe
from hubkit.recipe.plan import make_plan
from hubkit.recipe.preflight import check
from hubkit.release.headline import headline
from hubkit.section import Sampling
from hubkit.store import Store
from hubkit.students.gates import Encoder, Example, check_base, open_tokenizer
from hubkit.students.steps import steps_of_epoch
from hubkit.traces.journal import request_hash
from hubkit.traces.variants import Part, Variant

MIX = "{mix: {compressed-nano-compressor: low, raw: high}}"
PLAIN = (MODELS / "student-s" / "chat_template.jinja").read_text(encoding="utf-8")
"""It shows no level."""
TURN = "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
EFFORT = PLAIN.replace(
    TURN,
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if reasoning_effort is defined -%}{{- reasoning_effort + '\\n' -}}{%- endif -%}"
    "{{- message.content + '<|im_end|>\\n' -}}",
)
NAME = "s-mix-raw-compressed-nano-compressor-full"
SMALL = [
    "problems.train.size=16",
    "problems.test.size=8",
    "teachers.0.samples=1",
    "teachers.0.sampling.max_tokens=250",
    "benchmarks.0.sampling.max_tokens=60",
    "students.bases=[{name: s, model: ./models/student-s, chat_template: effort.jinja}]",
    f"students.variants=[raw, {MIX}]",
    "students.methods={full: {sft: {learning_rate: 1.0e-3, num_train_epochs: 2, per_device_train_batch_size: 4, "
    "max_length: 512}}}",
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("effort") / "nano"
    shutil.copytree(NANO.parent, folder, ignore=shutil.ignore_patterns("runs"))
    (folder / "effort.jinja").write_text(EFFORT, encoding="utf-8")
    return folder / NANO.name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_release_with_a_mixture_is_evaluated_told_and_checked_at_every_level(recipe: Path) -> None:
    runs = recipe.parent / "runs"
    options = [part for value in SMALL for part in ("--set", value)]
    done = hubkit("recipe", "run", str(recipe), *options, "--out", str(runs), timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{NAME} at high" in done.stdout and f"{NAME} at low" in done.stdout
    found = {
        record["step"]: (path.parent, record)
        for path in (runs / "steps").rglob("record.json")
        for record in [json.loads(path.read_text())]
    }
    plain, mixed = found["student/s-raw-full"][1]["metrics"], found[f"student/{NAME}"][1]["metrics"]
    assert mixed["steps"] == plain["steps"] and mixed["train_rows"] == plain["train_rows"]
    assert mixed["train_tokens"] == _trained_on(found), "each row once in each form, in two epochs"
    results = json.loads((found["report"][0] / "results.json").read_text())
    rows = [(row["student"], row["level"]) for row in results["students"]]
    assert rows == [("s", None), ("s-raw-full", None), (NAME, "high"), (NAME, "low")]
    (level,) = results["levels"]
    outputs = {
        name: pq.read_table(found[f"evaluation/{NAME}/sums/{name}"][0] / "samples.parquet").to_pylist()
        for name in ("high", "low")
    }
    shorter = [b["output_tokens"] < a["output_tokens"] for a, b in zip(*outputs.values(), strict=True)]
    assert (level["long"], level["short"], level["shorter"]) == ("high", "low", sum(shorter) / 8)
    assert level["difference"] == level["accuracy_short"] - level["accuracy_long"]
    tests = {(t["a"], t["a_level"], t["b"], t["b_level"]) for t in results["tests"]}
    assert (
        len(tests) == len(results["tests"]) == 3 and (Variant("raw").name, None, NAME[2:-5], "low") in tests
    )
    release = json.loads((found["publish"][0] / "release.json").read_text())
    done = hubkit("release", "check", "local/nano", "--hub", str(runs / "hub"), "--json", timeout=300)
    report = json.loads(done.stdout)
    differing = [claim for claim in report["claims"] if claim["status"] == "differs"]
    assert done.returncode == 0 and not differing, differing
    assert f"{NAME} at low on sums: answers judged again" in [claim["what"] for claim in report["claims"]]
    _published(runs / "hub", release)


def flat(steps: list[list[int]]) -> list[int]:
    return [place for step in steps for place in step]


def _trained_on(found: dict[str, tuple[Path, dict[str, Any]]]) -> int:
    import pyarrow as pa

    rows = pq.read_table(next(f for n, (f, _) in found.items() if n.startswith("rows/")) / "rows.parquet")
    keys = {(row["id"], row["sample"]) for row in rows.to_pylist()}
    total = 0
    for name, (folder, _) in found.items():
        if "/reasoning_effort/" in name:
            for shard in folder.glob("tokens-*.arrow"):
                table = pa.ipc.open_stream(shard.read_bytes()).read_all().to_pylist()
                total += sum(len(row["input_ids"]) for row in table if (row["id"], row["sample"]) in keys)
    return total


def _published(hub: Path, release: dict[str, Any]) -> None:
    """What the Hub holds: cards, result files and the Space's release.json say at which level."""
    from huggingface_hub import hf_hub_download

    from hubkit.localhub import LocalHub

    with LocalHub(hub) as open_hub:

        def text(repo: str, kind: str, name: str) -> str:
            path = hf_hub_download(
                repo,
                name,
                repo_type=kind,
                endpoint=open_hub.endpoint,
                token=open_hub.token,
                cache_dir=hub.parent,
            )
            return Path(path).read_text(encoding="utf-8")

        card = text(release["students"][NAME], "model", "README.md")
        assert 'reasoning_effort="low"' in card and "`raw` where `reasoning_effort` is high" in card
        assert "accuracy at low" in card
        entry = text(release["students"][NAME], "model", ".eval_results/nano-problems-sums-low.yaml")
        assert "reasoning_effort low" in entry
        about = json.loads(text(release["space"], "space", "release.json"))
        (mixed,) = [variant for variant in about["variants"] if variant["kind"] == "mix"]
        assert mixed["variable"] == "reasoning_effort"
        assert mixed["levels"][1] == {"variant": "compressed-nano-compressor", "level": "low"}


def test_a_template_that_shows_no_level_is_refused_before_anything_is_made(
    recipe: Path, tmp_path: Path
) -> None:
    overrides = [*SMALL, "students.bases=[{name: s, model: ./models/student-s}]"]
    plan = make_plan(load_recipe(recipe, overrides), recipe, tmp_path)
    with pytest.raises(GateError, match="reasoning_effort high and low give the same prompt"):
        check(plan, Store(tmp_path))
    check(make_plan(load_recipe(recipe, SMALL), recipe, tmp_path), Store(tmp_path))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (EFFORT.replace("reasoning_effort is defined", "false"), "the same prompt in training"),
        # Told when an answer is asked for, and never in training.
        (
            PLAIN.replace(
                "{%- if add_generation_prompt -%}",
                "{%- if add_generation_prompt -%}{{- reasoning_effort | default('') -}}",
            ),
            "the same prompt in training",
        ),
        # Told in training, and never when an answer is asked for.
        (
            EFFORT.replace("reasoning_effort is defined", "reasoning_effort is defined and not add_generation_prompt"),
            "the same prompt when an answer is asked for",
        ),
    ],
)  # fmt: skip
def test_a_level_that_is_told_in_one_place_alone_is_refused(template: str, message: str) -> None:
    with pytest.raises(GateError, match=message):
        check_base(MODELS / "student-s", template, "", "reasoning_effort", ("high", "low"))


def test_a_level_stands_before_the_answer_and_changes_nothing_in_it() -> None:
    chat = [
        {"role": "user", "content": "1 + 1 ="},
        {"role": "assistant", "content": "<think>\nTwo.\n</think>\n\n2"},
    ]
    made = {}
    for level in ("high", "low"):
        encoder = Encoder(MODELS / "student-s", EFFORT, {"reasoning_effort": level})
        example = encoder.encode(chat)
        assert isinstance(example, Example)
        start = example.trained[0]
        assert encoder.prompt(chat[:1]) == example.input_ids[:start]
        made[level] = encoder.tokenizer.decode(example.input_ids[:start]), example.input_ids[start:]
    assert "low\n1 + 1" in made["low"][0] and "high\n1 + 1" in made["high"][0]
    assert made["low"][1] == made["high"][1]


@pytest.mark.parametrize("forms", [2, 3])
def test_an_epoch_takes_every_row_in_one_form_and_the_next_epoch_in_the_next(forms: int) -> None:
    rows = 51
    epochs = [flat(steps_of_epoch(rows, 8, 7, epoch, forms=forms)) for epoch in range(forms + 1)]
    for number, epoch in enumerate(epochs[:-1]):
        plain = flat(steps_of_epoch(rows, 8, 7, number))
        assert [place // forms for place in epoch] == plain, (
            "the same problems in the same steps as any student"
        )
        counts = Counter(place % forms for place in epoch)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert len({place for epoch in epochs[:-1] for place in epoch}) == rows * forms
    form = [{place // forms: place % forms for place in epoch} for epoch in epochs]
    assert form[0] == form[forms] and form[0] != form[1]
    assert flat(steps_of_epoch(rows, 8, 8, 0, forms=forms)) != epochs[0]


@pytest.mark.parametrize(
    ("variant", "key", "message"),
    [
        ("{mix: {raw: high, compressed-x: low}}", "students.variants.0.mix.compressed-x", "cannot be made"),
        ("{mix: {raw: high}}", "students.variants.0.mix", "at least 2"),
        ("{mix: {raw: low, last-nano-compressor: low}}", "students.variants.0", "two variants have the level 'low'"),
        ("{mix: {raw: no, truncated-nano-compressor: low}}", "students.variants.0.mix.raw", "not False"),
        ("{mix: {raw: high, truncated-nano-compressor: low}, variable: messages}", "students.variants.0", "already"),
        ("{mix: {raw: high, last-nano-compressor: low}, variabel: x}", "students.variants.0", "mean 'variable'"),
        ("{raw: high, truncated-nano-compressor: low}", "students.variants.0", "unknown key 'raw'"),
        ("7", "students.variants.0", "mapping"),
    ],
)  # fmt: skip
def test_a_mixture_that_cannot_be_made_is_refused_where_it_stands(
    variant: str, key: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(NANO, [f"students.variants=[{variant}]"])
    assert f" {key}" in caught.value.message and message in caught.value.message, caught.value.message


def test_a_mixture_is_a_value_whatever_the_order_of_its_keys() -> None:
    found = [
        load_recipe(NANO, [f"students.variants=[{{mix: {{{levels}}}, variable: effort}}]"]).variants()
        for levels in ("raw: long, last-nano-compressor: short", "last-nano-compressor: short, raw: long")
    ]
    parts = (Part("raw", "long"), Part("last-nano-compressor", "short"))
    assert found[0] == found[1] == [Variant("mix", "nano-compressor", parts, "effort")]
    assert found[0][0].name == "mix-raw-last-nano-compressor"


def test_a_level_that_a_model_does_not_know_is_not_evaluated() -> None:
    """As `hubkit evaluate --level` and `hubkit submit --level` are given it."""
    level = level_named("reasoning_effort=low")
    assert level == {"variable": "reasoning_effort", "value": "low"} and level_named("") == {}
    for text in ("low", "reasoning_effort=", "=low", "Reasoning effort=low", "a=b=c", "a=b\n"):
        with pytest.raises(InputError, match="is no level"):
            level_named(text)
    check_level(open_tokenizer(MODELS / "student-s", EFFORT), level)
    check_level(open_tokenizer(MODELS / "student-s", PLAIN), {})
    with pytest.raises(GateError, match="reasoning_effort low changes nothing in the prompt"):
        check_level(open_tokenizer(MODELS / "student-s", PLAIN), level)
    knows = EFFORT.replace(
        "{%- for message in messages -%}",
        "{%- if reasoning_effort not in ['low', 'high'] -%}{{ raise_exception('no such effort') }}{%- endif -%}"
        "{%- for message in messages -%}",
        1,
    )
    check_level(open_tokenizer(MODELS / "student-s", knows), level)
    with pytest.raises(GateError, match="fails at reasoning_effort tiny: no such effort"):
        check_level(open_tokenizer(MODELS / "student-s", knows), level | {"value": "tiny"})


def test_servers_are_sent_the_level_and_answers_at_two_levels_are_two() -> None:
    sampling = Sampling(max_tokens=9)
    plain, high, low = (
        Request("x", [{"role": "user", "content": "1 + 1"}], sampling, 7, template)
        for template in ({}, {"reasoning_effort": "high"}, {"reasoning_effort": "low"})
    )
    bodies = [json.loads(Dialect().body(request, "m", {})) for request in (plain, low)]
    assert "chat_template_kwargs" not in bodies[0]
    assert bodies[1] == bodies[0] | {"chat_template_kwargs": {"reasoning_effort": "low"}}
    assert len({request_hash(request) for request in (plain, high, low)}) == 3


def test_other_recipes_keep_their_steps(tmp_path: Path) -> None:
    """A mixture beside them takes nothing from the students that are there."""
    variants = "raw, compressed-nano-compressor, truncated-nano-compressor"
    before, after = (
        {
            s.name: (s.config, s.inputs)
            for s in make_plan(load_recipe(NANO, more), NANO, tmp_path, False).steps
        }
        for more in ([], [f"students.variants=[{variants}, {MIX}]"])
    )
    changed = {name for name, about in before.items() if after[name] != about}
    assert changed == {"rows/nano-teacher/s", "report", "publish"}


def test_the_headline_says_whether_it_does_as_it_is_asked() -> None:
    level = {
        "variant": "mix-raw-compressed-x",
        "long": "high",
        "short": "low",
        "length": 0.21,
        "shorter": 0.93,
        "difference": -0.02,
        "p_holm": 0.6,
    }
    assert headline([], [], [level]) == (
        "One student asked for low effort answers in 21 % of the tokens it takes at high, shorter on 93 % of the "
        "problems; accuracy −2.0 points, and the test does not tell them apart."
    )
