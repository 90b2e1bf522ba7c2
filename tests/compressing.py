"""Real traces for tests of compressors, and a server that answers by rule.

tests/traces/compressors/r1-math.jsonl: eight traces of a DeepSeek-R1 distill on MATH, from
github.com/uzaymacar/understanding-reasoning-models at edcadd2 (MIT licence), chosen for being short.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai_server import OpenAIServer
from support import MODELS, ROOT

from hubkit.engines.settings import EngineRuntime
from hubkit.records import PROBLEM_SCHEMA, messages_of, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.lengths import count_tokens
from hubkit.traces.variants import VARIANTS

__all__ = ["TOKENIZER", "RuleServer", "compressing", "outcome", "real_traces", "save_classifier"]

TOKENIZER = MODELS / "student-s"
FILE = ROOT / "tests" / "traces" / "compressors" / "r1-math.jsonl"


class RuleServer(OpenAIServer):
    """Answers every prompt by a function of it."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def _answer(self, text: str) -> dict[str, Any]:
        self.answers[text] = {"content": self._rule(text)}
        return super()._answer(text)


def real_traces() -> list[dict[str, Any]]:
    """Rows as `raw` has them."""
    read = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    rows = []
    lengths = count_tokens(TOKENIZER, [row["reasoning"] for row in read])
    for found, tokens in zip(read, lengths, strict=True):
        row: dict[str, Any] = dict.fromkeys(VARIANTS["raw"].schema.names)
        row |= found | {"sample": 0, "source": "MATH", "verifier": "math", "teacher": "r1", "correct": True}
        row |= {f"{raw}reasoning_tokens": tokens for raw in ("", "raw_")}
        row |= {f"{raw}reasoning_chars": len(found["reasoning"]) for raw in ("", "raw_")}
        messages = messages_of(found["problem"], found["reasoning"], found["solution"])
        rows.append(row | {"messages": messages, "ratio": 1.0, "finish_reason": "stop"})
    return rows


def compressing(
    folder: Path, config: dict[str, Any], endpoint: str = "", model: Path = TOKENIZER
) -> StepContext:
    """A step of a compressor over the real traces; with an endpoint it asks that."""
    rows = real_traces()
    write_rows(folder / "raw" / "data.parquet", rows, VARIANTS["raw"].schema)
    problems = [{"metadata": ""} | {name: row.get(name) for name in PROBLEM_SCHEMA.names[:5]} for row in rows]
    write_rows(folder / "problems" / "problems.parquet", problems, PROBLEM_SCHEMA)
    engine = EngineRuntime()
    if endpoint:
        engine = EngineRuntime(engine="openai", endpoint=endpoint, served_model="rule")
    context = StepContext(
        step="compress/r1/c/0",
        config={"compressor": "c", "seed": 0, "shard": [0, 1]} | config,
        runtime={"engine": engine.model_dump(mode="json"), "device": "cpu", "threads": 1},
        inputs={name: folder / name for name in ("raw", "problems")},
        models={
            name: {"model": str(place), "revision": ""}
            for name, place in (("compressor", model), ("tokenizer", TOKENIZER))
        },
        out=folder / "out",
        work=folder / "work",
    )
    context.out.mkdir(exist_ok=True)
    context.work.mkdir(exist_ok=True)
    return context


def outcome(context: StepContext) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Rows of what was kept, and of what was rejected, by id."""
    files = (context.out / "data.parquet", context.out / "rejected.parquet")
    kept, rejected = ({row["id"]: row for row in read_rows(file)} for file in files)
    return kept, rejected


def save_classifier(folder: Path, kind: str) -> Path:
    """A random token classifier of LLMLingua-2's architectures: xlm-roberta or bert (multilingual, cased)."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedTokenizerFast

    texts = [row["reasoning"] for row in real_traces()]
    trainer: Any
    if kind == "bert":
        first, last, unknown, pad = "[CLS]", "[SEP]", "[UNK]", "[PAD]"
        core = Tokenizer(models.WordPiece(unk_token=unknown))
        core.normalizer = normalizers.BertNormalizer(lowercase=False)
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=[pad, unknown, first, last])
    else:
        first, last, unknown, pad = "<s>", "</s>", "<unk>", "<pad>"
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=[first, pad, last, unknown], unk_token=unknown
        )
    core.train_from_iterator(texts, trainer)
    ids = {name: core.token_to_id(name) for name in (first, last)}
    core.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=list(ids.items())
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token=unknown, pad_token=pad, cls_token=first, sep_token=last
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=130 if kind == "xlm-roberta" else 128,
        pad_token_id=core.token_to_id(pad),
        initializer_range=0.5,
        num_labels=2,
    )
    AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    return folder
