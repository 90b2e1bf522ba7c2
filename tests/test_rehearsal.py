"""The paper's recipe as it is shipped, rehearsed to its end under the real names: traces, students, a release.

Models of the real architectures with random weights, real tokenizers and chat templates, and datasets with the real
ones' columns lie on a local Hub. Random teachers never answer right: theirs, and the compressors', embedding and output
layer are made so that each says one sentence, right for all of the problems here (real_models.py). Bases are random.
Only sizes, GPUs and what a machine without vLLM cannot run are replaced. Slow, and needs PyPI and npm once.

    python -m pytest -m slow tests/test_rehearsal.py
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import real_models
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from real_models import architecture_of, save_model
from real_tokenizers import CACHE, NotToBeHad
from support import ROOT, hubkit

from hubkit.localhub import LocalHub, make_member

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
RECIPE = ROOT / "recipes" / "compress-distill" / "recipe.yaml"
THOUGHT = (
    "Let me add tens first and then all ones, which gives both digits; checking once more by adding them in the other "
    "order leads to this same result"
)
SAID = "So it is \\boxed{43}"
SHORT = "Tens plus ones"
SAYS = {
    "qwen3.5-moe": f"{THOUGHT}</think>\n\n{SAID}",
    "gpt-oss": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{SAID}",
    "llama-3": f"{SHORT}\n\\boxed{{43}}",
    "ministral-3": f"[THINK]Shorter[/THINK]{SHORT}\n\\boxed{{43}}",
}
"""What the models say that generate traces, each in the form of its family."""
SUMS = [(12, 31), (25, 18), (36, 7), (5, 38)]
TESTS = [(14, 15), (62, 21), (33, 48)]
MODELS = {
    "Qwen/Qwen3.5-397B-A17B": ("qwen3.5-moe", "Qwen3_5MoeForConditionalGeneration"),
    "openai/gpt-oss-120b": ("gpt-oss", "GptOssForCausalLM"),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama-3", "LlamaForCausalLM"),
    "mistralai/Ministral-3-14B-Instruct-2512": ("ministral-3", "Mistral3ForConditionalGeneration"),
    **{
        f"Qwen/Qwen3.5-{size}": ("qwen3.5", "Qwen3_5ForConditionalGeneration")
        for size in ("0.8B", "2B", "4B", "9B")
    },
}
REPLACED = [
    "run.executor=local",
    *(
        f"run.engines.{name}.engine=transformers"
        for name in ("qwen3.5-397b", "gpt-oss-120b", "llama-3.3-70b", "ministral-3-14b", "students")
    ),
    "hub.namespace=local",
]
TEACHERS, COMPRESSORS = ("qwen3.5-397b", "gpt-oss-120b"), ("llama-3.3-70b", "ministral-3-14b")
FEW = [
    "teachers.0.shards=2",
    "teachers.1.shards=1",
    *(f"compressors.{number}.shards=1" for number in range(2)),
    "students.bases=[{name: qwen3.5-0.8b, model: Qwen/Qwen3.5-0.8B, chat_template: prompts/chat.jinja}]",
    *(f"benchmarks.{number}.sampling.max_tokens=24" for number in range(2)),
]
"""Sizes: one of the four bases, which are one architecture; random students never end their answers."""
OF_ONE = [
    f"teachers={json.dumps([yaml.safe_load(RECIPE.read_text())['teachers'][1] | {'shards': 1}])}",
    "students.variants=[raw, compressed-ministral-3-14b]",
    "run.engines={default: {engine: transformers}}",  # those of models that are left out would be refused
]
"""Students of gpt-oss' traces alone: each takes two processes, and two evaluations."""
CHECK = """
import json, sys
from pathlib import Path
from hubkit.errors import HubkitError
from hubkit.recipe.file import load_recipe
from hubkit.recipe.plan import make_plan
from hubkit.recipe.preflight import check
from hubkit.store import Store

recipe, out, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
said = []
for values in cases:
    try:
        plan = make_plan(load_recipe(recipe, values), recipe, out)
        check(plan, Store(out))
        said.append([f"{len(plan.steps)} steps", ""])
    except HubkitError as error:
        said.append([error.message, error.remedy])
print(json.dumps(said))
"""
"""What `hubkit recipe run` does before its first step, for one set of values after the other."""


def parquet(rows: list[dict[str, Any]], folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return (folder / "rows.parquet").read_bytes()


def datasets(folder: Path) -> dict[str, dict[str, bytes]]:
    """Repo -> files, with the columns that the real ones have."""
    math = [{"question": f"What is {a} + {b}?", "final_answer": str(a + b), "topic": "Sums"} for a, b in SUMS]
    arith = [{"question": f" Add {a} to {b}.", "final_ans": str(a + b)} for a, b in TESTS]
    rows = [
        {"Question": f"How much is {a} and {b}?", "Correct Answer": f"{a + b} in all"}
        | {f"Incorrect Answer {number}": f"{a + b + number} in all" for number in (1, 2, 3)}
        for a, b in TESTS
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    card = "---\nconfigs:\n- config_name: gpqa_diamond\n  data_files: gpqa_diamond.csv\n---\n"
    return {
        "zwhe99/DeepMath-103K": {"data/train-00000-of-00001.parquet": parquet(math, folder)},
        "ChilleD/MultiArith": {"test.json": json.dumps(arith).encode()},
        "Idavidrein/gpqa": {"gpqa_diamond.csv": text.getvalue().encode(), "README.md": card.encode()},
    }


def made(architecture: str) -> Path:
    """A model of its family, from the cache of an earlier rehearsal where there is one."""
    says = SAYS.get(architecture, "")
    source = f"{says}\n{Path(real_models.__file__).read_text()}"
    folder = CACHE / "random" / f"{architecture}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    if not folder.is_dir():
        parts = folder.with_suffix(".parts")
        shutil.rmtree(parts, ignore_errors=True)
        save_model(architecture, parts, says)
        parts.rename(folder)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    folder = tmp_path_factory.mktemp("rehearsal")
    try:
        models = {repo: made(architecture) for repo, (architecture, _) in MODELS.items()}
    except NotToBeHad as error:
        pytest.skip(str(error))
    with LocalHub(folder / "hub") as server:
        data = datasets(folder)
        for org in {name.partition("/")[0] for name in [*MODELS, *data, "bad/x"]}:
            make_member(server.folder, org, "local", "write")
        api = HfApi(endpoint=server.endpoint, token=server.token)
        for repo, files in data.items():
            api.create_repo(repo, repo_type="dataset")
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            api.create_commit(repo, operations, commit_message="data", repo_type="dataset")
        for repo, model in models.items():
            api.create_repo(repo)
            api.upload_folder(repo_id=repo, folder_path=model)
        yield server


@pytest.fixture(scope="module")
def said(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """(message, remedy) of a check for each set of bases; for one that passes the number of its steps."""
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    good, out = made("qwen3.5"), tmp_path_factory.mktemp("runs")
    short = json.loads((good / "config.json").read_text())
    short["text_config"]["vocab_size"] = 200_000
    for repo, changed in (
        ("bad/pickled", {"model.safetensors": None, "pytorch_model.bin": b"x"}),
        ("bad/short", {"config.json": json.dumps(short).encode()}),
    ):
        api.create_repo(repo)
        files = {path.name: path.read_bytes() for path in good.iterdir()} | changed
        added = [CommitOperationAdd(name, content) for name, content in files.items() if content is not None]
        api.create_commit(repo, added, commit_message="model")
    cases = [[*REPLACED, f"hub.endpoint={hub.endpoint}"]]
    for repo in ("bad/pickled", "bad/short", "mistralai/Ministral-3-14B-Instruct-2512"):
        bases = f"[{{name: b, model: {repo}, chat_template: prompts/chat.jinja}}]"
        cases.append([*cases[0], f"students.bases={bases}"])
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(out / "home")}
    command = [sys.executable, "-c", CHECK, str(RECIPE), str(out / "runs"), json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(message, remedy) for message, remedy in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def root(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of the recipe: all teachers' traces in all variants, then students of one teacher's in two of
    them, and their release."""
    folder = tmp_path_factory.mktemp("run")
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(folder / "home")}
    until = ["--until", "compressed", "--until", "truncated"]
    for values, more in (([], until), (OF_ONE, [])):
        values = [*REPLACED, *FEW, f"hub.endpoint={hub.endpoint}", *values]
        options = [part for value in values for part in ("--set", value)]
        command = ("recipe", "run", str(RECIPE), *options, *more, "--out", str(folder / "runs"))
        done = hubkit(*command, timeout=2400, **environment)
        assert done.returncode == 0, done.stderr[-4000:]
    return folder / "runs"


def records(root: Path) -> dict[str, dict[str, Any]]:
    """Step -> its record."""
    found = [json.loads(path.read_text()) for path in (root / "steps").rglob("record.json")]
    return {record["step"]: record for record in found}


def rows_of(root: Path, step: str) -> list[dict[str, Any]]:
    (folder,) = (root / "steps" / step).iterdir()
    rows: list[dict[str, Any]] = pq.read_table(folder / "data.parquet").to_pylist()
    return rows


def test_traces_of_every_family_are_split_verified_and_compressed(root: Path) -> None:
    """Thinking that the prompt opened, harmony's channels, a compressor that thinks: no mark of theirs is left."""
    for teacher in TEACHERS:
        raw = rows_of(root, f"raw/{teacher}")
        assert len(raw) == 3 * len(SUMS), "three samples of each problem, all right"
        assert {(row["reasoning"], row["solution"]) for row in raw} == {(THOUGHT, SAID)}
        for compressor in COMPRESSORS:
            made = rows_of(root, f"compressed/{teacher}/{compressor}")
            assert [row["reasoning"] for row in made] == [SHORT] * len(raw)
        cut = rows_of(root, f"truncated/{teacher}/llama-3.3-70b")
        assert all(THOUGHT.startswith(row["reasoning"]) and row["reasoning"] != THOUGHT for row in cut)


def test_students_moved_and_answer_as_they_were_trained(root: Path) -> None:
    found = records(root)
    students = {name: record for name, record in found.items() if name.startswith("student/")}
    assert len(students) == 2 * 2, "variants, methods"
    for name, record in students.items():
        metrics = record["metrics"]
        assert metrics["train_rows"] == 3 * len(SUMS) and metrics["steps"] == 2, name
        # The first step of a warm-up is of rate 0, and half of an adapter has no gradient before the other half moves.
        assert metrics["weights_moved"] > (0.45 if name.endswith("-lora") else 0.9), name
        # The gated delta nets of a hybrid base have no kernels here: not packed, and exact so.
        assert metrics["layout"] == "padded" and metrics["layout_difference"] < 0.05, name
        assert "lora_without" not in metrics
        for benchmark in ("gpqa-diamond", "multiarith"):
            evaluation = found[name.replace("student/", "evaluation/") + f"/{benchmark}"]["metrics"]
            assert evaluation["n"] == len(TESTS)
            if benchmark == "gpqa-diamond":
                assert evaluation["served_agreement"] > 0.9, name


def test_what_was_published_loads_and_differs_from_its_base(
    root: Path, hub: LocalHub, tmp_path: Path
) -> None:
    import torch
    from huggingface_hub import snapshot_download
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def fetched(repo: str) -> Path:
        return Path(snapshot_download(repo, endpoint=hub.endpoint, token=hub.token, cache_dir=tmp_path))

    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    names = sorted(model.id for model in api.list_models(author="local"))
    assert len(names) == 4, names
    base = fetched("Qwen/Qwen3.5-0.8B")
    ids = torch.arange(32)[None]
    start: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        before = start(ids).logits
        for method in ("full", "lora"):
            name = next(name for name in names if name.endswith(f"ministral-3-14b-{method}"))
            folder = fetched(name)
            if method == "lora":
                student: Any = PeftModel.from_pretrained(start, folder)
                layers = {key.split(".lora_A")[0].rpartition(".")[2] for key in student.state_dict()}
                assert {"in_proj_qkv", "in_proj_z", "in_proj_a", "out_proj", "q_proj", "down_proj"} <= layers
            else:
                student = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            assert not torch.equal(student(ids).logits, before), name
            text = (folder / "README.md").read_text(encoding="utf-8")
            assert "weights that moved" in text and "Qwen/Qwen3.5-0.8B" in text


def test_the_release_is_what_it_says(hub: LocalHub, root: Path) -> None:
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(root / "home")}
    done = hubkit("release", "check", "local/compress-distill", timeout=600, **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_the_models_are_of_the_real_architectures(hub: LocalHub) -> None:
    for architecture, name in MODELS.values():
        assert architecture_of(made(architecture)) == name


def test_the_shipped_recipe_passes_its_checks(said: list[tuple[str, str]]) -> None:
    """Commits, columns, tokenizers, chat templates, lighteval's task: all of the grid, 64 students."""
    steps, remedy = said[0]
    assert not remedy and int(steps.split()[0]) > 64 * 3, steps


def test_bases_that_cannot_be_trained_are_told_in_one_line(said: list[tuple[str, str]]) -> None:
    reasons = ["no safetensors weights", "no embedding for: id 248069", "no class of it for text alone"]
    for (message, remedy), reason in zip(said[1:], reasons, strict=True):
        assert reason in message and remedy and "\n" not in message, message
