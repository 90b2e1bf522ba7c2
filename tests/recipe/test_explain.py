"""Whatever is wrong with a recipe is one line: file, line, key, the value, what was meant, what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support import NANO

from hubkit.errors import RecipeError
from hubkit.recipe.file import load_recipe
from hubkit.release.columns import size_category


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def told(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, list(overrides))
    assert caught.value.remedy, "it says what to do"
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed=[1", ["--set seed: '[1' is not YAML", "expected ',' or ']'"]),
        ("name=@x", ["--set name: '@x' is not YAML", "cannot start any token"]),
        ("description={a", ["--set description", "not YAML"]),
        ("description=\x07", ["--set description", "not YAML"]),
        ("description=!!python/object:os.system {}", ["--set description", "not YAML"]),
        ("seed=2024-13-45", ["--set seed: '2024-13-45' is not YAML: month must be in 1..12"]),
        ("seed=" + "[" * 5000, ["--set seed", "not YAML"]),
        ("=1", ["--set '=1' is not a.b=c"]),
        ("a..b=1", ["is not a.b=c"]),
        ("seed.x=1", ["nothing at seed.x", "seed is 0"]),
        ("students.bases.5.name=x", ["nothing at students.bases.5", "students.bases has 2 entries"]),
        ("students.bases.-1.name=x", ["nothing at students.bases.-1"]),
    ],
)
def test_overrides_that_cannot_be_read(override: str, parts: list[str]) -> None:
    text = told(NANO, override)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("override", "key", "parts"),
    [
        ("problems.train.size=many", "problems.train.size", ["valid integer", "not 'many'"]),
        ("problems.train.size=-3", "problems.train.size", ["greater than 0, not -3"]),
        ("version=2024-01-01", "version", ["valid integer, not a date"]),
        ("seed=1.5", "seed", ["not 1.5"]),
        ("hub.private=maybe", "hub.private", ["boolean", "not 'maybe'"]),
        ("hub=3", "hub", ["mapping, as in Hub, not 3"]),
        ("problems=[]", "problems", ["mapping, not a list"]),
        ("teachers={}", "teachers", ["list, not a mapping"]),
        ("students.seeds=7", "students.seeds", ["list, not 7"]),
        ("description=", "description", ["string, not None"]),
        ("description=" + "[" + "x" * 200 + "]", "description", ["string, not a list"]),
        ("seed=" + "x" * 200, "seed", ["xxx…'"]),
        ("name=Nano", "name", ["lower case letters", "not 'Nano'"]),
        ("problems.Bad_Name={source: file, path: x}", "problems.Bad_Name", ["not 'Bad_Name'"]),
        ("run.engines.x={engine: foo}", "run.engines.x.engine", ["'vllm'", "not 'foo'"]),
        ("problems.train=3", "problems.train", ["not 3"]),
    ],
)
def test_a_wrong_value_is_shown(override: str, key: str, parts: list[str]) -> None:
    text = told(NANO, override)
    assert re.match(rf"{re.escape(str(NANO))}:\d+: {re.escape(key)}: ", text), text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("teachers.0.sampling={max_tokns: 3}", "teachers.0.sampling.max_tokns: unknown key 'max_tokns', did you mean"),
        ("students.methods.full={stf: {learning_rate: 1}}", "full.stf: unknown key 'stf', did you mean 'sft'?"),
        ("students.methods.full.sft={learning_rat: 1, max_length: 4}", "did you mean 'learning_rate'?"),
        ("problems.train={source: file, pth: x}", "problems.train.pth: unknown key 'pth', did you mean 'path'?"),
        ("problems.train={sorce: file, path: x}", "problems.train: unknown key 'sorce', did you mean 'source'?"),
        ("problems.train={source: fil, path: x}", "problems.train: source 'fil' is unknown, did you mean 'file'?"),
        ("problems.train={source: 3}", "problems.train: source 3 is unknown; known here: file, hub, reasoning-gym"),
        ("problems.train={path: x}", "problems.train: key 'source' is missing: one of file, hub, reasoning-gym"),
        ("benchmarks=[{nam: x, problems: test}]", "benchmarks.0.nam: unknown key 'nam', did you mean 'name'?"),
        ("hub={endpont: local}", "hub.endpont: unknown key 'endpont', did you mean 'endpoint'?"),
        ("run={engines: {default: {engin: vllm}}}", "run.engines.default.engin: unknown key 'engin', did you mean"),
    ],
)  # fmt: skip
def test_a_typo_in_a_required_key_names_the_typo(override: str, meant: str) -> None:
    assert meant in told(NANO, override)


def test_a_set_of_problems_may_be_called_like_a_source() -> None:
    assert ": problems.file.path: key 'path' is missing" in told(NANO, "problems.file={source: file}")
    assert ": problems.file.pth: unknown key" in told(NANO, "problems.file={source: file, pth: x}")


def test_secrets_are_not_repeated() -> None:
    secret = "http://me:secret@127.0.0.1/v1"
    for override in (f"run.engines.x={{endpoint: [[{secret}]]}}", f"run.engines.x={{endpoint: {secret}}}"):
        assert "secret" not in told(NANO, override).replace(override, "")
    assert "hf_me" not in told(NANO, "run.jobs={secrets: [hf_me 3]}")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    shutil.copytree(NANO.parent / "prompts", tmp_path / "prompts")
    return Path(shutil.copyfile(NANO, tmp_path / "recipe.yaml"))


@pytest.mark.parametrize(
    ("begins", "by", "message"),
    [
        ("version:", "version: one", "version: should be a valid integer"),
        ("version:", "name: nano", "key 'name' appears twice"),
        ("    samples:", "    samples: 2\n    samples: 3", "key 'samples' appears twice"),
        ("version:", "version: [1", "not YAML: expected"),
        ("version:", "version: 2024-13-45", "not YAML: month"),
        ("version:", "\tversion: 1", "not YAML"),
        ("    prompt:", "    prompt: prompts/none.md", "compressors.0.prompt: cannot read 'prompts/none.md'"),
        ("    prompt:", "    prompt: prompts", "compressors.0.prompt: cannot read 'prompts': Is a directory"),
    ],
)  # fmt: skip
def test_the_line_is_the_one_to_change(recipe: Path, begins: str, by: str, message: str) -> None:
    lines = lines_of(recipe)
    number = next(i for i, line in enumerate(lines) if line.startswith(begins))
    lines[number] = by
    recipe.write_text("\n".join(lines))
    text = told(recipe)
    found = re.match(rf"{re.escape(str(recipe))}(?::(\d+))?: (.*)", text)
    assert found and message in found[2], text
    # Of a date that does not exist PyYAML does not tell the line.
    near = {number + 1, number + 2} if "2024" not in by else {None}
    assert (int(found[1]) if found[1] else None) in near, text


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 3000, "&a [*a]", "a: &a {b: *a}", "{[1]: 2}", "\x00", "? {a: 1}\n: 2", "---\na: 1\n---\n"],
)  # fmt: skip
def test_strange_yaml_is_one_line(recipe: Path, text: str) -> None:
    recipe.write_text(text)
    assert str(recipe) in told(recipe)


def test_latin_1_is_one_line(recipe: Path) -> None:
    recipe.write_bytes(recipe.read_bytes() + "# größe".encode("latin-1"))
    assert "cannot read" in told(recipe)


@pytest.mark.parametrize(
    ("override", "line", "key", "message"),
    [
        ("students.variants=[raw, compresed-x]", "  variants:", "students.variants.1", "'compresed-x' cannot be made"),
        ("students.variants=[raw, raw]", "  variants:", "students.variants.1", "two variants have the same name"),
        ("students.seeds=[1, 1]", "  seeds:", "students.seeds.1", "two seeds"),
        ("train_on=tran", "name:", "train_on", "problem set 'tran' is not under `problems`"),
        ("benchmarks.0.problems=dev", "    problems:", "benchmarks.0.problems", "problem set 'dev'"),
    ],
)  # fmt: skip
def test_checks_across_sections_give_the_line(override: str, line: str, key: str, message: str) -> None:
    text = told(NANO, override)
    number = next(i for i, found in enumerate(lines_of(NANO), 1) if found.startswith(line))
    shown = number if line != "name:" else 1  # a key that the file does not have
    assert text.startswith(f"{NANO}:{shown}: {key}: ") and message in text, text


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (["name=nano--v2"], "name", "local/nano--v2-problems: Cannot have -- or .."),
        (["name=nano..v2"], "name", "Cannot have -- or .."),
        (["name=nano-"], "name", "Cannot have -- or .."),
        (["hub.namespace=a--b"], "hub.namespace", "the name a--b"),
        (["hub.namespace=lab-"], "hub.namespace", "cannot start or end with"),
        (["students.bases.0.name=s..m"], "students.bases.0.name", "local/nano-s..m"),
        (["students.bases.0.name=s."], "students.bases.0.name", "cannot start or end with"),
        (["students.bases.0.name=s.git"], "students.bases.0.name", "cannot end by '.git'"),
        (["teachers.0.name=tea--cher"], "teachers.0.name", "local/nano-tea--cher"),
        (["students.methods.f--ull={sft: {learning_rate: 1, max_length: 4}}"], "students", "f--ull"),
        (["students.bases.0.name=evals"], "students.bases.0.name", "two repos of the release"),
        (["name=" + "n" * 39, "students.bases.0.name=" + "b" * 39], "students", "longer than 96 characters"),
    ],
)  # fmt: skip
def test_repo_names_that_the_hub_refuses(overrides: list[str], key: str, message: str) -> None:
    text = told(NANO, *overrides)
    assert f": {key}: " in text and message in text, text


def test_names_that_the_hub_takes_are_taken() -> None:
    assert load_recipe(NANO, ["name=nano.v2", "students.bases.0.name=s.1"]).name == "nano.v2"


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (1_000_000, "1M<n<10M"),
        (12_000_000, "10M<n<100M"), (10**9 - 1, "100M<n<1B"), (10**9, "1B<n<10B"), (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"), (10**15, "n>1T"),
    ],
)  # fmt: skip
def test_size_categories_are_the_hubs(rows: int, category: str) -> None:
    assert size_category(rows) == [category]
