"""Other libraries against the local Hub, with nothing but HF_ENDPOINT."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_support import run

from hubkit.hub.server import LocalHub


@pytest.mark.parametrize("disable_xet", ["0", "1"])
def test_datasets(local_hub: LocalHub, client_environment: dict[str, str], disable_xet: str) -> None:
    name = f"local/data-{disable_xet}"
    write = f"""
from datasets import Dataset
Dataset.from_dict({{"x": list(range(1000))}}).push_to_hub("{name}", "one", split="train")
Dataset.from_dict({{"y": ["a", "b"]}}).push_to_hub("{name}", "two", split="test")
"""
    environment = client_environment | {"HF_HUB_DISABLE_XET": disable_xet}
    run(write, environment | {"HF_TOKEN": local_hub.token})
    check = f"""
from datasets import load_dataset, get_dataset_config_names
assert get_dataset_config_names("{name}") == ["one", "two"]
for streaming in (False, True):
    assert [row["x"] for row in load_dataset("{name}", "one", split="train", streaming=streaming)] == list(range(1000))
    assert [row["y"] for row in load_dataset("{name}", "two", split="test", streaming=streaming)] == ["a", "b"]
"""
    run(check, environment)


@pytest.mark.parametrize("disable_xet", ["0", "1"])
def test_transformers_and_peft(
    local_hub: LocalHub, client_environment: dict[str, str], disable_xet: str
) -> None:
    name = f"local/model-{disable_xet}"
    code = f"""
import os, torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
torch.set_num_threads(1)
torch.manual_seed(0)
config = Qwen3Config(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1, head_dim=8)
model = Qwen3ForCausalLM(config)
model.push_to_hub("{name}")
del os.environ["HF_TOKEN"]
loaded = AutoModelForCausalLM.from_pretrained("{name}")
assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters()))
loaded.config._name_or_path = "{name}"
adapter = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path="{name}"))
adapter.push_to_hub("{name}-lora", token=TOKEN)
again = AutoPeftModelForCausalLM.from_pretrained("{name}-lora")
ids = torch.tensor([[1, 2, 3]])
assert torch.equal(again(ids).logits, loaded(ids).logits)
"""
    environment = client_environment | {"HF_TOKEN": local_hub.token, "HF_HUB_DISABLE_XET": disable_xet}
    run(f"import os; TOKEN = os.environ['HF_TOKEN']\n{code}", environment)


@pytest.mark.parametrize("disable_xet", ["0", "1"])
def test_hf_command(
    local_hub: LocalHub, client_environment: dict[str, str], disable_xet: str, tmp_path: Path
) -> None:
    name = f"local/cli-{disable_xet}"
    environment = client_environment | {"HF_TOKEN": local_hub.token, "HF_HUB_DISABLE_XET": disable_xet}

    def hf(*arguments: str) -> str:
        code = "import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = 'hf'; main()"
        return run(code, environment, *arguments)

    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "a.bin").write_bytes(b"\0" * 100)
    assert "local" in hf("auth", "whoami")
    hf("repos", "create", name)
    hf("upload", name, str(tmp_path / "up"))
    hf("download", name, "--local-dir", str(tmp_path / "down"))
    assert (tmp_path / "down" / "a.bin").read_bytes() == b"\0" * 100
