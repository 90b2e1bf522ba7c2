"""Other libraries against the local Hub, with nothing but HF_ENDPOINT."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_support import run

from hubkit.localhub import LocalHub


def test_datasets(local_hub: LocalHub, client_environment: dict[str, str]) -> None:
    """By xet and by LFS, in one process each to write and to read: imports take most of the time."""
    write = """
from datasets import Dataset
from huggingface_hub import constants
for off in (False, True):
    constants.HF_HUB_DISABLE_XET = off
    name = f"local/data-{off}"
    Dataset.from_dict({"x": list(range(off, 1000))}).push_to_hub(name, "one", split="train")
    Dataset.from_dict({"y": ["a", "b", str(off)]}).push_to_hub(name, "two", split="test")
"""
    run(write, client_environment | {"HF_TOKEN": local_hub.token})
    check = """
from datasets import load_dataset, get_dataset_config_names
for off in (False, True):
    name = f"local/data-{off}"
    assert get_dataset_config_names(name) == ["one", "two"]
    for streaming in (False, True):
        one = load_dataset(name, "one", split="train", streaming=streaming)
        two = load_dataset(name, "two", split="test", streaming=streaming)
        assert [row["x"] for row in one] == list(range(off, 1000))
        assert [row["y"] for row in two] == ["a", "b", str(off)]
"""
    run(check, client_environment)


def test_pandas_and_builders(local_hub: LocalHub, client_environment: dict[str, str]) -> None:
    """hf:// paths go through HfFileSystem, which follows HF_ENDPOINT."""
    code = """
import pandas as pd
from datasets import load_dataset_builder
from huggingface_hub import HfApi, HfFileSystem
name = "datasets/local/frames"
HfApi().create_repo("local/frames", repo_type="dataset")
frame = pd.DataFrame({"x": range(1000), "y": ["a", "b"] * 500})
frame.to_parquet(f"hf://{name}/data/train.parquet")
frame.to_json(f"hf://{name}/more.jsonl", orient="records", lines=True)
assert pd.read_parquet(f"hf://{name}/data/train.parquet").equals(frame)
assert pd.read_json(f"hf://{name}/more.jsonl", lines=True).equals(frame)
fs = HfFileSystem()
assert fs.glob(f"{name}/**/*.parquet") == [f"{name}/data/train.parquet"]
fs.cp_file(f"{name}/more.jsonl", f"{name}/copy.jsonl")
fs.rm(f"{name}/more.jsonl")
assert sorted(path.split("/")[-1] for path in fs.ls(name, detail=False)) == [".gitattributes", "copy.jsonl", "data"]
fs.rm(f"{name}/copy.jsonl")
builder = load_dataset_builder("local/frames")
assert builder.config.name == "default" and builder.info.splits is None
"""
    run(code, client_environment | {"HF_TOKEN": local_hub.token})


def test_transformers_and_peft(local_hub: LocalHub, client_environment: dict[str, str]) -> None:
    code = """
import os, torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
token = os.environ.pop("HF_TOKEN")
torch.set_num_threads(1)
config = Qwen3Config(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=8)
for off in (False, True):
    constants.HF_HUB_DISABLE_XET = off
    torch.manual_seed(off)
    name = f"local/model-{off}"
    model = Qwen3ForCausalLM(config)
    model.push_to_hub(name, token=token)
    loaded = AutoModelForCausalLM.from_pretrained(name)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters()))
    loaded.config._name_or_path = name
    adapter = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=name))
    adapter.push_to_hub(f"{name}-lora", token=token)
    again = AutoPeftModelForCausalLM.from_pretrained(f"{name}-lora")
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(again(ids).logits, loaded(ids).logits)
"""
    run(code, client_environment | {"HF_TOKEN": local_hub.token})


@pytest.mark.parametrize("disable_xet", ["0", "1"])
def test_hf_command(
    local_hub: LocalHub, client_environment: dict[str, str], disable_xet: str, tmp_path: Path
) -> None:
    name, kind = f"local/cli-{disable_xet}", ("--repo-type", "dataset")
    environment = client_environment | {"HF_TOKEN": local_hub.token, "HF_HUB_DISABLE_XET": disable_xet}

    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.bin").write_bytes(b"\0" * 100)
    (tmp_path / "up" / "README.md").write_text("---\ntags: [cli]\n---\n")
    (tmp_path / "result.yaml").write_text(f"- {{dataset: {{id: {name}, task_id: t}}, value: 41.2}}")
    (tmp_path / "eval.yaml").write_text("tasks: [{id: t}]")
    with Commands(environment) as hf:
        assert "local" in hf("auth", "whoami")
        hf("repos", "create", name)
        hf("upload", name, str(tmp_path / "up"))
        hf("download", name, "--local-dir", str(tmp_path / "down"))
        assert (tmp_path / "down" / "a.bin").read_bytes() == b"\0" * 100
        hf("download", name)
        assert "3" in hf("cache", "verify", name)
        assert name in hf(
            "models", "ls", "--author", "local", "--filter", "cli", "--sort", "created_at", "--no-truncate"
        )
        assert "a.bin" in hf("models", "ls", name) and '"cli"' in hf(
            "models", "info", name, "--format", "json"
        )
        hf("repos", "tag", "create", name, "v1")
        assert "v1" in hf("repos", "tag", "list", name)
        hf("repos", "branch", "create", name, "dev")
        hf("upload", name, str(tmp_path / "result.yaml"), ".eval_results/t.yaml", "--create-pr")
        assert "t.yaml" in hf("discussions", "list", name, "--no-truncate")
        assert "+- {dataset" in hf("discussions", "diff", name, "1")
        hf("repos", "create", name, *kind)
        hf("upload", name, str(tmp_path / "eval.yaml"), "eval.yaml", *kind)
        assert name in hf("datasets", "ls", "--filter", "benchmark:official", "--format", "json")
        assert name in hf("datasets", "info", name)
        board = hf("datasets", "leaderboard", name, "--no-truncate")
        assert name in board and "41.2" in board
        hf("discussions", "merge", name, "1", "--yes")
        assert name in hf("repos", "ls", "--type", "dataset", "--format", "json")
        hf("repos", "create", f"{name}-app", "--repo-type", "space", "--space-sdk", "gradio")
        assert "gradio" in hf("spaces", "info", f"{name}-app") and f"{name}-app" in hf(
            "spaces", "ls", "--format", "json"
        )
        hf("repos", "settings", name, "--private")
        hf("repos", "move", name, f"{name}-moved")
        slug = json.loads(hf("collections", "create", f"From the CLI {disable_xet}", "--format", "json"))[
            "slug"
        ]
        hf("collections", "add-item", slug, f"{name}-moved", "model")
        assert f"{name}-moved" in hf("collections", "info", slug)
        assert slug in hf("collections", "ls", "--owner", "local", "--format", "json")
        hf("repos", "delete-files", f"{name}-moved", "a.bin")
        hf("repos", "delete", f"{name}-moved", "--yes")


class Commands:
    """A process that runs `hf` with one line of arguments after the other: each start would take a second."""

    _CODE = """
import io, json, sys
from contextlib import redirect_stdout
from huggingface_hub.cli.hf import main
for line in sys.stdin:
    sys.argv = ["hf", *json.loads(line)]
    output = io.StringIO()
    status = 0
    with redirect_stdout(output):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([status, output.getvalue()]), flush=True)
"""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._CODE],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        status, output = json.loads(self._process.stdout.readline())
        assert status == 0, (arguments, output)
        return str(output)

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)
