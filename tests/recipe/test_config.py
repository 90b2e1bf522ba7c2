from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from support import NANO, ROOT

from hubkit.errors import RecipeError
from hubkit.recipe.file import load_recipe
from hubkit.recipe.plan import make_plan


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*/*.yaml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid_and_say_how_to_launch(path: Path) -> None:
    recipe = load_recipe(path)
    header = path.read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("#") and f"hubkit recipe run {path.relative_to(ROOT)}" in header
    assert recipe.description


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("students.bases.0.nam=x", ["students.bases.0.nam", "did you mean 'name'"]),
        ("problems.train.verifier=judge", ["unknown key 'verifier'; known here: source, task"]),
        ("problems.train.sizee=3", ["problems.train.sizee", "did you mean 'size'"]),
        ("students.methods.full.sft.learning_rat=1", ["did you mean 'learning_rate'"]),
        ("teachers.0.sampling.temperature=hot", ["teachers.0.sampling.temperature", "number"]),
        ("run.workers=0", ["run.workers", "greater than 0"]),
        ("run.accelerate={distributed_type: FSDP}", ["run.accelerate", "num_processes"]),
        ("run.accelerate={num_processes: 2, num_machines: 2}", ["run.accelerate", "one machine"]),
        (
            "run={executor: ray, resources: {student: {gpus: 1}}, accelerate: {num_processes: 2}}",
            ["run.accelerate.num_processes: 2 processes", "asks for one GPU"],
        ),
        (
            "run.engines.nano-techer={batch_size: 3}",
            ["run.engines.nano-techer", "did you mean 'nano-teacher'"],
        ),
        (
            "run.engines.s={batch_size: 3}",
            ["run.engines.s", "a base, whose evaluations have the engine of `students`"],
        ),
        ("benchmarks.0.problems=dev", ["problem set 'dev'", "test, train"]),
        ("students.variants=[raw,compressed-x]", ["compressed-x", "can make raw"]),
        ("name=../../etc", ["name"]),
        ("seed=true", ["seed", "a number, not true"]),
        ("run.threads=yes", ["run.threads", "number"]),
        ("run.device=gpu", ["run.device", "no device is called 'gpu'", "cuda"]),
        ("hub.endpoint=https://me:secret@hub.example", ["hub.endpoint", "password or key"]),
        ("hub.endpoint=locl", ["hub.endpoint", "'locl' is neither local nor an address"]),
        ("hub.namespace=a/b", ["hub.namespace"]),
        ("license=MIT", ["license", "did you mean 'mit'?", "repositories-licenses"]),
        ("license=Apache 2.0", ["license", "did you mean 'apache-2.0'?"]),
        ("license=apache2", ["license", "did you mean 'apache-2.0'?"]),
        ("license=mine, all mine", ["no licence 'mine, all mine'; take one", "`other` with license_name"]),
        ("license_name=my-license", ["license_name", "the Hub knows apache-2.0 by itself"]),
        ("license_link=https://example.org/terms", ["license_link", "the Hub knows apache-2.0 by itself"]),
        ("compressors.0.prompt=missing.md", ["compressors.0.prompt", "missing.md"]),
        ("compressors.0.prompt=../secret", ["compressors.0.prompt", "not beside the recipe"]),
        ("students.bases.0.chat_template=/etc/hosts", ["students.bases.0.chat_template", "not beside"]),
    ],
)
def test_errors_name_file_key_and_remedy(override: str, parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(NANO, [override])
    text = str(caught.value)
    assert all(part in text for part in [str(NANO), *parts]), text
    assert "\n" not in text
    assert caught.value.remedy


def test_names_with_dots_are_set_by_name(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "compress-distill" / "recipe.yaml"
    run = load_recipe(recipe, ["run.engines.qwen3.5-397b.engine=transformers"]).run
    assert run.engines["qwen3.5-397b"].engine == "transformers"
    assert run.engines["qwen3.5-397b"].vllm["tensor_parallel_size"] == 8, "the rest stays"
    named = load_recipe(NANO, ["teachers.0.name=t.1", "run.engines.t.1.batch_size=3"]).run
    assert named.engines["t.1"].batch_size == 3
    without = load_recipe(
        NANO, ["run.engines.nano-compressor.batch_size=3", "compressors=[]", "students.variants=[raw]"]
    )
    assert "nano-compressor" not in without.run.engines, "an engine goes with its model"
    with pytest.raises(RecipeError, match="unknown key 'such'"):
        load_recipe(NANO, ["run.engines.no.such.batch_size=3"])


def test_errors_name_the_line(tmp_path: Path) -> None:
    lines = NANO.read_text(encoding="utf-8").splitlines()
    place = next(i for i, line in enumerate(lines) if line.strip().startswith("samples:"))
    lines[place] = lines[place].replace("samples", "sampels")
    shutil.copytree(NANO.parent / "prompts", tmp_path / "prompts")
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=rf"recipe.yaml:{place + 1}: .*did you mean 'samples'"):
        load_recipe(path)


def test_a_link_beside_the_recipe_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "prompts").symlink_to(NANO.parent / "prompts")
    path = shutil.copyfile(NANO, tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"compress\.md' is not beside the recipe"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["", "- a", "name: [", "\x00", "name: !!python/object:os.system {}"])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load_recipe(path)


def test_missing_file_and_bad_override() -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(Path("nowhere.yaml"))
    with pytest.raises(RecipeError, match=r"a\.b=c"):
        load_recipe(NANO, ["nonsense"])
    with pytest.raises(RecipeError, match="nothing at"):
        load_recipe(NANO, ["name.x.y=1"])


def test_prompts_count_by_content(tmp_path: Path) -> None:
    raw = yaml.safe_load(NANO.read_text(encoding="utf-8"))
    (tmp_path / "prompts").mkdir()
    prompt = tmp_path / raw["compressors"][0]["prompt"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    prompt.write_text("Shorten: {reasoning}")
    first = load_recipe(tmp_path / "recipe.yaml")
    prompt.write_text("Shorten it: {reasoning}")
    second = load_recipe(tmp_path / "recipe.yaml")
    assert first.compressors[0].prompt == "Shorten: {reasoning}"
    assert first != second
    prompt.write_text("no placeholder")
    with pytest.raises(RecipeError, match=r"\{reasoning\}"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("run", "threads"),
    [
        ("{workers: 3}", 4),
        ("{workers: 20}", 1),
        ("{workers: 3, threads: 2}", 2),
        ("{executor: ray, resources: {default: {cpus: 5}}}", 5),
        ("{executor: slurm, resources: {default: {cpus: 5}, traces: {cpus: 8}}}", 8),
        ("{executor: slurm, threads: 3, resources: {traces: {cpus: 8}}}", 3),
        ("{executor: hf-jobs}", None),
    ],
)
def test_a_step_has_the_cores_that_are_its_own(
    run: str, threads: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 12)
    recipe = load_recipe(NANO, [f"run={run}"])
    steps = {step.name: step for step in make_plan(recipe, NANO, tmp_path).steps}
    assert steps["traces/nano-teacher/0"].runtime["threads"] == threads
    assert steps["traces/nano-teacher/0"].runtime["engine"]["engine"] == "auto"


def test_keys_that_came_later_are_written_only_where_they_say_something() -> None:
    """They would be parts of step keys, and every earlier output would be made again."""
    plain, changed = (
        load_recipe(NANO, values).model_dump(mode="json")
        for values in (
            ["select=", "judge=", "traces=[]", "students.methods.full.sft.bf16=", "benchmarks.0.samples=0"],
            ["students.methods.full.sft.bf16=false", "decontamination={similarity: 0.9}"],
        )
    )
    assert not {"judge", "traces", "select", "decontamination"} & plain.keys()
    assert not {"samples", "leaderboard"} & plain["benchmarks"][0].keys()
    full = plain["students"]["methods"]["full"]
    assert "kind" not in full and not {"bf16", "weights"} & full["sft"].keys()
    assert "chat_template" not in plain["students"]["bases"][0]
    assert changed["decontamination"]["similarity"] == 0.9
    assert changed["students"]["methods"]["full"]["sft"]["bf16"] is False
