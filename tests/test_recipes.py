"""The paper's recipe against a Hub that has its models and datasets by their names, with toy contents.

Its file is cut to what two cores can do; names, prompts, the chat template and where things come from stay.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reasoning_gym
import warm
import yaml
from hub_support import add, read, run
from huggingface_hub import HfApi
from support import MODELS, ROOT, hubkit

from hubkit.localhub import LocalHub, make_token
from hubkit.problems import split_of

RECIPE = ROOT / "recipes" / "compress-distill"
TOY = {
    "Qwen/Qwen3.5-397B-A17B": "teacher",
    "openai/gpt-oss-120b": "teacher",
    "meta-llama/Llama-3.3-70B-Instruct": "compressor",
    "mistralai/Ministral-3-14B-Instruct-2512": "compressor",
    "Qwen/Qwen3-8B": "teacher",
    "Qwen/Qwen3-4B-Instruct-2507": "compressor",
    **{f"Qwen/Qwen3.5-{size}": "student-s" for size in ("0.8B", "2B", "4B", "9B")},
}
PHYSICS = "Two quantum states live for 1e-9 s and 1e-8 s. Which difference of energies tells them apart?"


def sums(side: str, number: int) -> list[dict[str, str]]:
    drawn = reasoning_gym.create_dataset(
        "chain_sum", seed=7, size=40 * number, min_terms=3, max_terms=4, min_digits=1, max_digits=2
    )
    rows = [(str(entry["question"]), str(entry["answer"])) for entry in drawn]
    return [{"question": q, "answer": a} for q, a in rows if split_of(q) == side][:number]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub:

        def create(repo: str, repo_type: str = "dataset") -> HfApi:
            token = make_token(hub.folder, repo.split("/")[0], "write", "test", [])
            api = HfApi(endpoint=hub.endpoint, token=token)
            api.create_repo(repo, repo_type=repo_type)
            return api

        for repo, model in TOY.items():
            create(repo, "model").upload_folder(repo_id=repo, folder_path=MODELS / model)

        repo = "zwhe99/DeepMath-103K"
        api = create(repo)
        rows: list[dict[str, Any]] = [
            {"question": row["question"], "final_answer": row["answer"], "difficulty": 1.0}
            for row in sums("train", 16)
        ]
        add(api, repo, {"data/train-00000-of-00001.parquet": parquet(rows)}, repo_type="dataset")
        api.create_branch(repo, branch="leaky", repo_type="dataset")
        rows.append({"question": PHYSICS, "final_answer": "B", "difficulty": 1.0})
        leaky = {"data/train-00000-of-00001.parquet": parquet(rows)}
        add(api, repo, leaky, repo_type="dataset", revision="leaky")

        repo = "ChilleD/MultiArith"
        rows = [{"question": row["question"], "final_ans": row["answer"]} for row in sums("test", 5)]
        splits = {f"{split}.json": json.dumps(rows).encode() for split in ("train", "test")}
        add(create(repo), repo, splits, repo_type="dataset")

        repo = "HuggingFaceH4/MATH-500"
        row = {"problem": "1 + 1?", "solution": "Together: $\\boxed{2}$.", "answer": "2"}
        card = b"---\ndataset_info:\n  splits:\n  - {name: test, num_bytes: 100, num_examples: 1}\n---\n"
        files = {"README.md": card, "test.jsonl": json.dumps(row).encode() + b"\n"}
        add(create(repo), repo, files, repo_type="dataset")

        repo, table = "Idavidrein/gpqa", io.StringIO()
        wrong = [f"Incorrect Answer {i}" for i in (1, 2, 3)]
        csv.writer(table).writerows(
            [
                ["Question", "Correct Answer", *wrong],
                [PHYSICS, "1e-4 eV", "1e-8 eV", "1e-9 eV", "1e-11 eV"],
                ["Which of these letters is the second?", "b", "a", "c", "d"],
            ]
        )
        card = "---\nconfigs:\n- config_name: gpqa_diamond\n  data_files: gpqa_diamond.csv\n---\n"
        files = {"README.md": card.encode(), "gpqa_diamond.csv": table.getvalue().encode()}
        add(create(repo), repo, files, repo_type="dataset")
        yield hub


Command = Callable[..., Any]


def cut(folder: Path, into: Path, hub: LocalHub) -> Path:
    """A copy of a recipe's folder that two cores can run: its numbers are smaller, names and sources stay."""
    shutil.copytree(folder, into)
    path = into / "recipe.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    for teacher in whole["teachers"]:
        # A toy teacher has seen no system message; its traces are some 150 tokens.
        teacher |= {"samples": 1, "system": "", "shards": 1, "sampling": {"max_tokens": 400}}
    for compressor in whole["compressors"]:
        compressor |= {"shards": 1, "sampling": {"max_tokens": 120}}
        compressor["prompt"] = "prompts/toy.md"
    shutil.copyfile(ROOT / "recipes/nano/prompts/compress.md", into / "prompts/toy.md")
    for method in whole["students"]["methods"].values():
        method["sft"] |= {"bf16": False, "max_length": 512, "gradient_accumulation_steps": 4}
    for benchmark in whole["benchmarks"]:
        benchmark["sampling"] = {"max_tokens": 60}
    whole["hub"] = {"endpoint": hub.endpoint, "namespace": "local"}
    whole["run"] = {"workers": 2, "device": "cpu"}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return path


def caller(path: Path, hub: LocalHub, home: Path) -> Command:
    """Runs `hubkit recipe …` on a recipe against the Hub; a run folder and cache of its own."""
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(home / "hf_home")}

    def call(verb: str, *arguments: str) -> Any:
        return hubkit("recipe", verb, str(path), *arguments, "--out", str(home / "runs"), **environment)

    return call


@pytest.fixture
def recipe(hub: LocalHub, tmp_path: Path) -> Command:
    """The paper's recipe with one base, two variants and adapters alone: four students, two of each teacher.

    The slow `test_rehearsal.py` trains them with all their weights too.
    """
    path = cut(RECIPE, tmp_path / "recipe", hub)
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    students = whole["students"]
    students |= {"bases": students["bases"][:1], "variants": ["raw", "compressed-llama-3.3-70b"]}
    del students["methods"]["full"]
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return caller(path, hub, tmp_path)


def test_what_the_paper_asks_for_is_planned(hub: LocalHub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf_home")}
    done = hubkit(
        "recipe", "plan", str(RECIPE / "recipe.yaml"), "--json", "--out", str(tmp_path), **environment
    )
    assert done.returncode == 0, done.stderr
    students = [row["step"] for row in json.loads(done.stdout) if row["step"].startswith("student/")]
    control = [name for name in students if "-truncated-" in name]
    assert (len(students) - len(control), len(control)) == (48, 16)


def test_what_one_gpu_can_do_is_planned(hub: LocalHub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf_home")}
    path = ROOT / "recipes" / "one-gpu" / "recipe.yaml"
    done = hubkit("recipe", "plan", str(path), "--json", "--out", str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    costly = [
        row for row in rows if row["step"].split("/")[0] in ("traces", "compress", "student", "evaluation")
    ]
    # One teacher and compressor; three variants by two methods; those and the untrained base on two benchmarks.
    assert len(costly) == 2 + 6 + 7 * 2
    assert [row["step"] for row in costly if not row["tokens"]] == []


def test_what_one_gpu_can_do_fits_the_cards_that_its_readme_names() -> None:
    folder = ROOT / "recipes" / "one-gpu"
    done = warm.run(str(folder / "budget.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (folder / "README.md").read_text(encoding="utf-8")
    for line in done.stdout.splitlines()[2:5]:
        card, full, lora = (float(cell.split()[0]) for cell in line.split("|")[1:4])
        assert lora < full < card * 0.9


@pytest.mark.slow
def test_what_one_gpu_can_do_is_made_by_stand_ins(hub: LocalHub, tmp_path: Path) -> None:
    call = caller(cut(ROOT / "recipes" / "one-gpu", tmp_path / "recipe", hub), hub, tmp_path)
    done = call("run")
    assert done.returncode == 0, done.stderr
    results = json.loads(call("report", "--json").stdout)
    assert {(row["method"], row["variant"]) for row in results["students"]} >= {
        (method, variant)
        for method in ("full", "lora")
        for variant in ("raw", "compressed-qwen3-4b", "truncated-qwen3-4b")
    }
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token}
    checked = hubkit("release", "check", "local/one-gpu", "--json", **environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_is_published_with_the_template_that_its_students_were_trained_with(
    hub: LocalHub, recipe: Command, tmp_path: Path
) -> None:
    done = recipe("run")
    assert done.returncode == 0, done.stderr
    contamination = next((tmp_path / "runs/steps/contamination").glob("*/report.json"))
    assert json.loads(contamination.read_text()) == {
        "multiarith": {"problems": 5, "in_training": 0},
        "gpqa:diamond|0": {"problems": 2, "in_training": 0},
    }
    api = HfApi(endpoint=hub.endpoint)
    card = read(
        api, "local/compress-distill-evals", "README.md", tmp_path / "cache", repo_type="dataset"
    ).decode()
    assert "0 of its 2 problems are in the training set" in card and "0 of its 5 problems" in card
    template = (RECIPE / "prompts/chat.jinja").read_text(encoding="utf-8").strip()
    code = (
        "import sys\n"
        "from transformers import AutoTokenizer\n"
        "from peft import AutoPeftModelForCausalLM\n"
        "repo = 'local/compress-distill-qwen3.5-0.8b-raw-lora'\n"
        "tokenizer = AutoTokenizer.from_pretrained(repo)\n"
        "assert tokenizer.chat_template.strip() == sys.argv[1], tokenizer.chat_template\n"
        "model = AutoPeftModelForCausalLM.from_pretrained(repo)\n"
        "print(model.peft_config['default'].base_model_name_or_path)\n"
    )
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf_home"), "PATH": ""}
    assert run(code, environment, template).strip() == "Qwen/Qwen3.5-0.8B"


def test_a_question_of_a_lighteval_task_in_the_training_set_stops_the_run(recipe: Command) -> None:
    done = recipe("run", "--set", "problems.train.revision=leaky", "--until", "contamination")
    assert done.returncode == 1
    assert "1 of 2 problems of 'gpqa:diamond|0' are in the training set" in done.stderr


def test_a_template_that_training_would_refuse_stops_the_run_before_it_begins(
    recipe: Command, tmp_path: Path
) -> None:
    template = (RECIPE / "prompts/chat.jinja").read_text(encoding="utf-8")
    (tmp_path / "recipe/prompts/bad.jinja").write_text(template.replace("message.content", "'thought'"))
    done = recipe("run", "--set", "students.bases.0.chat_template=prompts/bad.jinja")
    assert done.returncode == 1
    assert "students of Qwen3.5-0.8B: the chat template rewrites the thinking span" in done.stderr
    assert not list((tmp_path / "runs").glob("steps/*/*"))
