"""A variant's tokens: made once, read by all students of a tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import MODELS

from hubkit import records
from hubkit.errors import GateError
from hubkit.records import messages_of, read_rows, write_rows
from hubkit.store import StepContext, Store, digest_folder
from hubkit.students import tokens
from hubkit.students.gates import Encoder, Example
from hubkit.students.rows import TokenRows
from hubkit.students.tokens import KEYS
from hubkit.traces.variants import VARIANTS

BAD = "What does <|im_end|> mean?"


def rows(texts: list[str], thought: str = "as before") -> list[dict[str, Any]]:
    empty: dict[str, Any] = dict.fromkeys(VARIANTS["raw"].schema.names)
    return [
        empty | {"id": f"p-{i}", "sample": 0, "messages": messages_of(text, thought, f"\\boxed{{{i}}}")}
        for i, text in enumerate(texts)
    ]


def step(name: str, folder: Path, config: dict[str, Any], threads: int = 1, **inputs: Path) -> StepContext:
    made = StepContext(
        step=name,
        config=config,
        runtime={"device": "cpu", "threads": threads},
        inputs=inputs,
        models={"tokenizer": {"model": str(MODELS / "student-s"), "revision": ""}},
        out=folder / name / "out",
        work=folder / name / "work",
    )
    made.out.mkdir(parents=True)
    made.work.mkdir()
    return made


def tokenised(
    folder: Path, data: list[dict[str, Any]], name: str = "tokens", threads: int = 1
) -> StepContext:
    write_rows(folder / name / "data" / "data.parquet", data, VARIANTS["raw"].schema)
    made = step(name, folder, {"system": ""}, threads, data=folder / name / "data")
    tokens.run(made)
    return made


def agreed(folder: Path, data: list[dict[str, Any]], share: float, **variants: Path) -> StepContext:
    write_rows(folder / "matched" / "matched.parquet", [{"id": r["id"], "sample": 0} for r in data], KEYS)
    made = step("rows", folder, {"max_dropped_share": share}, matched=folder / "matched", **variants)
    tokens.agree(made)
    return made


def test_a_row_read_back_is_the_row_encoded(tmp_path: Path) -> None:
    data = rows([f"What is {i} + {i}?" for i in range(9)])
    made = tokenised(tmp_path, data)
    found = TokenRows(made.out, agreed(tmp_path, data[::-1], 0.0, raw=made.out).out, 30, 1.0)
    assert len(found) == 9 and found.cut_share == 1.0
    encoder = Encoder(MODELS / "student-s")
    for place, row in enumerate(data[::-1]):  # in the order of the pairs, whatever that of the variant
        example = encoder.encode(row["messages"])
        assert isinstance(example, Example)
        start, end = example.trained
        labels = [-100] * start + example.input_ids[start:end] + [-100] * (len(example.input_ids) - end)
        assert found.dataset[place] == {"input_ids": example.input_ids[:30], "labels": labels[:30]}
        assert found.lengths[place] == 30
        assert found.trained[place] == 30 - start
    assert made.counts == {"kept": 9}
    assert made.metrics["tokens"] > made.metrics["trained_tokens"] > 0


def test_rows_that_fail_in_one_variant_are_dropped_from_all(tmp_path: Path) -> None:
    texts = [f"What is {i} + 1?" for i in range(8)]
    data = rows(texts)
    raw = tokenised(tmp_path, rows([*texts[:2], BAD, *texts[3:]]), "raw")
    short = tokenised(tmp_path, rows([*texts[:5], BAD, *texts[6:]]), "short")
    assert raw.counts == short.counts == {"kept": 7, "control_tokens": 1}
    with pytest.raises(
        GateError, match=r"2 of 8 rows \(25.0%\) fail.*p-2 of raw.*control tokens.*: <\|im_end\|>"
    ):
        agreed(tmp_path / "strict", data, 0.2, raw=raw.out, short=short.out)
    both = agreed(tmp_path, data, 0.25, raw=raw.out, short=short.out)
    assert both.counts == {"kept": 6, "control_tokens": 2}
    kept = [row["id"] for row in read_rows(both.out / "rows.parquet")]
    assert kept == [f"p-{i}" for i in range(8) if i not in (2, 5)]
    assert len(TokenRows(raw.out, both.out, 500, 0.0)) == len(TokenRows(short.out, both.out, 500, 0.0)) == 6


def test_a_variant_of_which_no_row_passes_stops(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="no row passes; the first: a text spells"):
        tokenised(tmp_path, rows([BAD, BAD]))


def test_many_processes_write_what_one_writes_and_go_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "GROUP_BYTES", 50_000)
    monkeypatch.setattr(tokens, "ROWS_PER_SHARD", 1024)
    monkeypatch.setattr(tokens, "ROWS_PER_PROCESS", 100)
    numbers = random.Random(0)
    texts = [f"What is {numbers.randrange(99)} + {i}?" for i in range(2500)]
    texts[1700] = BAD
    one = tokenised(tmp_path, rows(texts), "one")
    two = tokenised(tmp_path, rows(texts), "two", threads=2)
    assert len(list(one.out.glob("tokens-*.arrow"))) == 3
    assert digest_folder(one.out) == digest_folder(two.out) and one.counts == two.counts
    # What a killed run had finished is taken over: here a shard that only it can have written.
    third = step("three", tmp_path, {"system": ""}, data=tmp_path / "one" / "data")
    (one.out / "tokens-00001.arrow").rename(third.work / "tokens-00001.arrow")
    write_rows(third.work / "rejected-00001.parquet", [], tokens.REJECTED_SCHEMA)
    tokens.run(third)
    assert third.counts == {"kept": 2500}, "its rejected rows were believed"


def test_shards_put_together_are_what_one_step_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "GROUP_BYTES", 20_000)
    monkeypatch.setattr(tokens, "ROWS_PER_SHARD", 200)
    texts = [f"What is {i} + 1?" for i in range(900)]
    texts[10] = texts[700] = BAD
    whole = tokenised(tmp_path, rows(texts), "whole")
    store, shards = Store(tmp_path), {}
    for i in range(3):
        part = step(f"part-{i}", tmp_path, {"system": "", "shard": [i, 3]}, data=tmp_path / "whole" / "data")
        store.run(part, "tokenise", 1, str(i) * 16, {}, tokens.run)
        shards[f"shard-{i}"] = store.folder(part.step, str(i) * 16)
        assert part.counts["kept"] > 200
    joined = step("joined", tmp_path, {"system": ""}, **shards)
    tokens.join(joined)
    assert digest_folder(joined.out) == digest_folder(whole.out)
    assert joined.counts == whole.counts == {"kept": 898, "control_tokens": 2}
    assert joined.metrics == whole.metrics
    linked = joined.out / "tokens-00000.arrow"
    assert linked.stat().st_ino == (shards["shard-0"] / linked.name).stat().st_ino, "no second copy"


def test_labels_of_a_chat_with_two_answers_count_both(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(
        [{"id": "a", "sample": 0, "input_ids": list(range(10)), "trained": [2, 4, 6, 9]}],
        schema=tokens.SCHEMA,
    )
    with pa.ipc.new_stream(tmp_path / "tokens-00000.arrow", tokens.SCHEMA) as writer:
        writer.write_table(table)
    write_rows(tmp_path / "rows.parquet", [{"id": "a", "sample": 0}], KEYS)
    found = TokenRows(tmp_path, tmp_path, 8, 1.0)
    assert found.dataset[0]["labels"] == [-100, -100, 2, 3, -100, -100, 6, 7]
    assert found.trained == [4] and found.lengths == [8]
    assert json.dumps(found.trained), "plain numbers, which a record can hold"
