"""Rows as people have them: values of all shapes, files of all kinds, and errors that name row and column."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubkit.errors import InputError, RecipeError
from hubkit.problems.base import Pin
from hubkit.problems.file import FileSource
from hubkit.records import Problem
from hubkit.stages.source import SourceOptions, open_source

CHAT = [{"role": "user", "content": "What is 2 + 2?"}]
REPLY = {"role": "assistant", "content": "4"}


def read(path: Path, **keys: Any) -> list[Problem]:
    return list(FileSource(source="file", path=path.name, **keys).rows(Pin(path=path)))


def one(tmp_path: Path, row: dict[str, Any], **keys: Any) -> Problem:
    """The row alone, in the second line: the first one has nothing wrong with it."""
    path = tmp_path / "mine.jsonl"
    good = keys.pop("good", {"problem": "1", "answer": "1"})
    path.write_text(json.dumps(good) + "\n" + json.dumps(row))
    return read(path, **keys)[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (False, "False"),
        (0.0, "0.0"),
        (True, "True"),
        (-3, "-3"),
        (2.5, "2.5"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        (10**30, "1" + "0" * 30),
        (["4"], "4"),
        ([0], "0"),
        ([["4"]], "4"),
        (None, ""),
        ([], ""),
        ("", ""),
        ("[1, 2]", "[1, 2]"),
        ([REPLY], "4"),
        ([*CHAT, REPLY], "4"),
        (REPLY, "4"),
        ([{"from": "gpt", "value": "4"}], "4"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "4"}]}], "4"),
        ({"text": ["Paris"], "answer_start": [3]}, "Paris"),
    ],
)
def test_answers_of_known_shapes(tmp_path: Path, value: Any, text: str) -> None:
    assert one(tmp_path, {"problem": "x", "answer": value})["answer"] == text


@pytest.mark.parametrize(
    "value",
    [
        CHAT,
        CHAT[0],
        [CHAT],
        json.dumps(CHAT),
        [*CHAT, REPLY],
        [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}],
        [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]}],
        [{"type": "text", "text": "What is 2 + 2?"}],
        ["What is 2 + 2?"],
        [{"role": "user", "content": "What is 2 + 2?", "name": None, "tool_calls": None}],
    ],
)  # fmt: skip
def test_problems_of_known_shapes(tmp_path: Path, value: Any) -> None:
    assert one(tmp_path, {"problem": value, "answer": "4"})["problem"] == "What is 2 + 2?"


@pytest.mark.parametrize("column", ["problem", "answer"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["4", "four"], "a list of 2 values"),
        ({"value": "4", "aliases": ["four"]}, "a struct of 'value', 'aliases'"),
        ([{"text": "4"}, {"text": "5"}], "a list of 2 values"),
        (float("nan"), "nan is not text"),
        (float("-inf"), "-inf is not text"),
        ("Cut \ud83d", "half of one"),
        ([{"role": "user", "content": "Cut \ud83d"}], "half of one|does not end"),
        ("[{'role': 'user', 'content': 'What is 2 + 2?'}]", "Python's notation"),
        ("[{'content': 'What is 2 + 2?', 'role': 'user'}]", "Python's notation"),
        ([*CHAT, {"role": "tool", "content": "4"}], "'tool'"),
        ([{"role": "user", "content": [{"type": "image", "url": "x.png"}]}], "type 'image'"),
        ([{"role": "user", "content": 4}], "content is a int|content is text"),
        ([*CHAT, REPLY, *CHAT], "not one prompt|does not end"),
        ([*CHAT, {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}], "tool calls"),
    ],
)
def test_other_shapes_are_refused_with_row_and_column(
    tmp_path: Path, column: str, value: Any, reason: str
) -> None:
    row = {"problem": "x", "answer": "4"} | {column: value}
    with pytest.raises(InputError, match=reason) as caught:
        one(tmp_path, row)
    assert f"mine.jsonl:2: row 1: column {column!r}" in caught.value.message
    assert caught.value.remedy and "\n" not in str(caught.value)


def test_a_system_message_is_left_out_if_it_is_the_same_for_all(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Answer in French."}
    chat: dict[str, Any] = {"problem": [system, *CHAT], "answer": "4"}
    assert one(tmp_path, chat, good=chat)["problem"] == "What is 2 + 2?"
    other = {"problem": [system | {"content": "Answer in Greek."}, *CHAT], "answer": "4"}
    with pytest.raises(InputError, match="row 1: column 'problem': its system message differs"):
        one(tmp_path, other, good=chat)


def test_a_column_may_be_part_of_a_struct(tmp_path: Path) -> None:
    row = {"prompt": CHAT, "reward_model": {"ground_truth": "4", "style": "rule"}}
    keys = {"problem": "prompt", "answer": "reward_model.ground_truth", "good": row}
    assert one(tmp_path, row, **keys)["answer"] == "4"
    table = pa.Table.from_pylist([row | {"a.b": "whole"}])
    pq.write_table(table, tmp_path / "mine.parquet")
    found = read(tmp_path / "mine.parquet", problem="a.b", answer="reward_model.ground_truth")
    assert (found[0]["problem"], found[0]["answer"]) == ("whole", "4")
    with pytest.raises(InputError, match=r"row 0 has no column 'reward_model\.truth'"):
        read(tmp_path / "mine.parquet", problem="prompt", answer="reward_model.truth")


@pytest.mark.parametrize(
    ("options", "answer", "letter", "texts"),
    [
        (["Rome", "Oslo", "Bern"], 0, "A", ["Rome", "Oslo", "Bern"]),
        (["Rome", "Oslo", "Bern"], 2.0, "C", ["Rome", "Oslo", "Bern"]),
        (["Rome", "Oslo"], "B", "B", ["Rome", "Oslo"]),
        (["Rome", "Oslo"], "Oslo", "Oslo", ["Rome", "Oslo"]),
        ({"text": ["Rome", "Oslo"], "label": ["1", "2"]}, "2", "B", ["Rome", "Oslo"]),
        ({"text": ["Rome", "Oslo"], "label": [1, 2]}, 2, "B", ["Rome", "Oslo"]),
        ({"label": ["A", "B"], "text": ["Rome", "Oslo"]}, ["A"], "A", ["Rome", "Oslo"]),
        ([{"label": "A", "text": "Rome"}, {"label": "B", "text": "Oslo"}], "B", "B", ["Rome", "Oslo"]),
        ({"A": "Rome", "B": "Oslo"}, "B", "B", ["Rome", "Oslo"]),
        (json.dumps(["Rome", "Oslo"]), 1, "B", ["Rome", "Oslo"]),
        ([7, 8.5, False], 1, "B", ["7", "8.5", "False"]),
        ([4, 5], "5", "5", ["4", "5"]),
        ({"a": "Rome", "b": "Oslo"}, "b", "B", ["Rome", "Oslo"]),
        ({"1": "Rome", "2": "Oslo"}, "2", "B", ["Rome", "Oslo"]),
        (["Rome", "Oslo"], "(B)", "(B)", ["Rome", "Oslo"]),
    ],
)
def test_choices_of_known_shapes(
    tmp_path: Path, options: Any, answer: Any, letter: str, texts: list[str]
) -> None:
    row = {"problem": "Which of them?", "answer": answer, "options": options}
    keys: dict[str, Any] = {"verifier": "choice", "options": "options", "good": row}
    found = one(tmp_path, row, **keys)
    assert (found["answer"], json.loads(found["metadata"])["options"]) == (letter, texts)
    # Nobody can choose from what is not shown.
    listed = [f"{chr(65 + i)}. {text}" for i, text in enumerate(texts)]
    assert found["problem"].splitlines() == ["Which of them?", *listed]
    shown = "Which of them? " + " or ".join(texts)
    assert one(tmp_path, row | {"problem": shown}, **keys)["problem"] == shown


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        ("Which? (A) 1 (B) 2", True),
        ("Which, 1 or 2?", True),
        ("What is 2 + 1 - 1?", False),
        ("What is 12 - 21?", False),
        ("What are 21 and 12?", False),
    ],
)
def test_options_are_put_after_problems_that_have_only_their_signs(
    tmp_path: Path, problem: str, shown: bool
) -> None:
    row = {"problem": problem, "answer": "B", "options": ["1", "2"]}
    keys: dict[str, Any] = {"verifier": "choice", "options": "options", "good": row}
    found = one(tmp_path, row, **keys)
    assert found["problem"] == problem + ("" if shown else "\nA. 1\nB. 2")


@pytest.mark.parametrize(
    ("options", "answer", "column", "reason"),
    [
        (["Rome", "Oslo"], 2, "answer", "2 is not an option: 2 options count from 0"),
        (["Rome", "Oslo"], -1, "answer", "not an option"),
        (["Rome", "Oslo"], "1", "answer", "neither a label nor the text"),
        (["1", "2"], 1, "answer", "option B or the text of another"),
        ([], 0, "options", "not a list"),
        (None, 0, "options", "not a list"),
        ({"text": ["Rome", "Oslo"], "label": ["A"]}, "A", "options", "labels"),
        ([{"label": "A"}, {"label": "B"}], "A", "options", "struct"),
        ("[torn", 0, "options", "not JSON"),
        (["Rome", "Oslo"], "b", "answer", "'b' is not the letter, the label or the text of one of 2 options"),
        (["Rome", "Oslo"], "C", "answer", "'C' is not the letter"),
        (["Rome", "Oslo"], True, "answer", "'True' is not the letter"),
        (["Rome", "Rome"], "Rome", "answer", "'Rome' is not the letter"),
        (["Rome"], "A", "options", "not a list of 2 to 26"),
        ("Rome|Oslo", "B", "options", "not a list of 2 to 26"),
        ({"choices": ["Rome", "Oslo"]}, "B", "options", "not a list"),
    ],
)
def test_choices_that_may_mean_two_things_are_refused(
    tmp_path: Path, options: Any, answer: Any, column: str, reason: str
) -> None:
    good = {"problem": "Which?", "answer": "A", "options": ["Rome", "Oslo"]}
    row = {"problem": "Which of them?", "answer": answer, "options": options}
    with pytest.raises(InputError, match=reason) as caught:
        one(tmp_path, row, verifier="choice", options="options", good=good)
    assert f"row 1: column {column!r}" in caught.value.message


LINES = '{"problem": "Wie groß?", "answer": "1"}\n{"problem": "Où?", "answer": 0}\n'
TABLE = {"problem": ["Wie groß?", "Où?"], "answer": ["1", "0"]}


def parquet(table: pa.Table) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path)


def written(path: Path, content: bytes | str | Callable[[Path], None]) -> Path:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a", LINES),
        ("a.ndjson", LINES.replace("\n", "\r\n\n")),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("a.jsonl", LINES.encode("utf-16")),
        ("a.jsonl", LINES.encode("utf-16-le")),
        ("a.jsonl", LINES.encode("utf-16-be")),
        ("a.jsonl", LINES.encode("utf-32")),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.json", json.dumps([json.loads(line) for line in LINES.splitlines()])),
        ("a.json", "\n" + json.dumps([json.loads(line) for line in LINES.splitlines()], indent=2)),
        ("a.csv", 'problem,answer\n"Wie groß?",1\nOù?,0\n'),
        ("a.csv", b"\xef\xbb\xbf" + 'id,problem,answer\r\n1,Wie groß?,1\r\n2,Où?,0\r\n'.encode()),
        ("a.tsv", "problem\tanswer\nWie groß?\t1\nOù?\t0\n"),
        ("a.parquet", parquet(pa.table(TABLE))),
        ("a.parquet", parquet(pa.table({"problem": [p.encode() for p in TABLE["problem"]], "answer": [1, 0]}))),
        ("a.parquet", parquet(pa.table({"problem": pa.array(TABLE["problem"]).dictionary_encode(),
                                        "answer": [decimal.Decimal(1), decimal.Decimal(0)]}))),
    ],
)  # fmt: skip
def test_files_of_all_kinds(tmp_path: Path, name: str, content: Any) -> None:
    path = written(tmp_path / name, content)
    rows = read(path)
    assert [(row["problem"], row["answer"]) for row in rows] == [("Wie groß?", "1"), ("Où?", "0")]
    assert FileSource(source="file", path=name).count(Pin(path=path)) == 2
    assert rows[0]["source"] == "a"


BAD_TEXT = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", gzip.compress(LINES.encode(), mtime=0), r"compressed, which its name does not say"),
        ("a.jsonl", LINES.encode("latin-1"), r"^a\.jsonl:1: row 0: not UTF-8 \(byte 0xdf\)"),
        ("a.jsonl", LINES.encode() + '{"problem": "é"}'.encode("latin-1"), r"^a\.jsonl:3: row 2: not UTF-8"),
        ("a.csv", "problem,answer\né,1\n".encode("cp1252"), r"^a\.csv:2: row 0: not UTF-8"),
        ("a.jsonl", LINES.encode("utf-16")[:-1], r"^a\.jsonl:2: row 1: not utf-16"),
        ("a.jsonl", LINES + '{"problem": "x", "answer": 1, "answer": 2}', r":3: row 2: column 'answer' appears twice"),
        ("a.jsonl", LINES + "{torn", r"^a\.jsonl:3: row 2: not JSON"),
        ("a.jsonl", LINES + "3", r"^a\.jsonl:3: row 2: not an object"),
        ("a.jsonl", '{"problem": [[' + "[" * 200_000, r"^a\.jsonl:1: row 0: not JSON"),
        ("a.json", '[{"problem": "x", "answer": "1"}, 3]', r"^a\.json: row 1: not an object"),
        ("a.json", '[{"problem": "x"}', r"^a\.json:1: not JSON"),
        ("a.json", '{\n"data": []}', "one JSON object a line, or a list of them"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-4], "Truncated"),
        ("a.jsonl.gz", LINES, "cannot be read"),
        ("a.csv", "problem,answer\nx,1,2\n", r"^a\.csv:2: row 0: 3 values for 2 columns"),
        ("a.csv", 'problem,answer\n"x,1\n', r"^a\.csv:2: row 0"),
        ("a.csv", "problem,problem\nx,1\n", "'problem' appears twice"),
        ("a.csv", "problem;answer\nx;1\n", r"its columns are problem;answer"),
        ("a.parquet", b"PAR1 and nothing else", r"^a\.parquet: cannot be read"),
        ("a.parquet", b"", r"^a\.parquet: cannot be read"),
        ("a.parquet", parquet(pa.table({"problem": ["x"]})), r"^a\.parquet: row 0 has no column 'answer'"),
        ("a.parquet", parquet(pa.table({"other": ["x"]})), r"no column 'problem' \(its columns are other\)"),
        ("a.parquet", parquet(pa.table([["x"], ["y"]], names=["problem", "problem"])), "appears twice"),
        ("a.parquet", parquet(pa.table({"problem": BAD_TEXT, "answer": ["1", "2"]})), r"^a\.parquet: row 1: 'utf-8'"),
        ("a.parquet", parquet(pa.table({"problem": [b"a", b"\xff"], "answer": ["1", "2"]})), "row 1: column 'problem'"),
        ("a.parquet", parquet(pa.table({"problem": ["x"], "answer": [datetime.timedelta(1)]})), "row 0: column 'ans"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_name_the_place(
    tmp_path: Path, name: str, content: Any, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(written(tmp_path / name, content))
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert re.search(reason, text), text


def test_columns_that_are_not_needed_are_not_decoded(tmp_path: Path) -> None:
    table = pa.table({"problem": ["2 + 2", "3 + 3"], "answer": ["4", "6"], "audio": BAD_TEXT})
    path = written(tmp_path / "a.parquet", parquet(table))
    assert [row["answer"] for row in read(path)] == ["4", "6"]
    with pytest.raises(InputError, match="row 1"):
        read(path, answer="audio")


PARTS = {
    "Alpaca": ({"instruction": "Add them.", "input": "1, 1"}, "instruction", "Add them.\n\n1, 1"),
    "Alpaca without input": ({"instruction": "1 + 1?", "input": ""}, "instruction", "1 + 1?"),
    "a passage": ({"context": "We have 1.", "question": "How many?"}, "question", "We have 1.\n\nHow many?"),
    "SVAMP": ({"Body": "We have 1.", "Question": "How many?"}, "Question", "We have 1.\n\nHow many?"),
    "options": ({"question": "Which?", "choices": ["one", "two"]}, "question", "Which?\nA. one\nB. two"),
    "in a struct": (
        {"info": {"context": "We have 1.", "question": "How many?"}}, "info.question", "We have 1.\n\nHow many?",
    ),
    "a passage that the problem has": (
        {"context": "We have one red apple.", "question": "We have one red apple. How many?"}, "question",
        "We have one red apple. How many?",
    ),
}  # fmt: skip


def plain(row: dict[str, Any]) -> bool:
    """Whether a row can stand in CSV, whose cells are texts."""
    return all(isinstance(value, str) for value in row.values())


@pytest.mark.parametrize(
    ("shape", "ending"),
    [
        (shape, e)
        for shape in PARTS
        for e in ("jsonl", "parquet", "csv")
        if e != "csv" or plain(PARTS[shape][0])
    ],
)
def test_a_problem_in_several_columns_is_put_together(tmp_path: Path, shape: str, ending: str) -> None:
    row, column, problem = PARTS[shape]
    row = row | {"answer": "1"}
    if ending == "csv":
        content: Any = ",".join(row) + "\n" + ",".join(f'"{value}"' for value in row.values())
    else:
        content = json.dumps(row) if ending == "jsonl" else parquet(pa.Table.from_pylist([row]))
    path = written(tmp_path / f"a.{ending}", content)
    (found,) = read(path, problem=column)
    assert found["problem"] == problem


def test_parts_are_named_or_left_out_by_the_recipe(tmp_path: Path) -> None:
    row = {"instruction": "Add them.", "input": "1, 1", "notes": "Use digits.", "answer": "2"}
    path = written(tmp_path / "a.jsonl", json.dumps(row))

    def problem(**parts: str) -> str:
        (found,) = read(path, problem="instruction", parts=parts)
        return found["problem"]

    assert problem(context="") == "Add them."
    assert problem(context="notes") == "Add them.\n\nUse digits."
    with pytest.raises(InputError, match="row 0 has no column 'gone'"):
        problem(context="gone")
    with pytest.raises(ValueError, match="no part of a problem is called 'contxt': use instruction, context"):
        problem(contxt="notes")
    with pytest.raises(InputError, match="column 'input': a struct of 'a' is not text"):
        one(tmp_path, {"instruction": "Add.", "input": {"a": 1}, "answer": "2"}, problem="instruction",
            good=row)  # fmt: skip


def test_system_messages_in_a_column_are_left_out_if_they_are_the_same(tmp_path: Path) -> None:
    rows = [{"system_prompt": "Be brief.", "problem": f"{i}?", "answer": "1"} for i in range(2)]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert [row["problem"] for row in read(path)] == ["0?", "1?"]
    rows[1]["system_prompt"] = "Answer in French."
    written(path, "\n".join(map(json.dumps, rows)))
    with pytest.raises(
        InputError, match=r"row 1: column 'system_prompt': its system message differs .*parts"
    ):
        read(path)
    assert [row["problem"] for row in read(path, parts={"system": ""})] == ["0?", "1?"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
ROWS = st.lists(
    st.tuples(TEXT, TEXT | st.integers() | st.booleans(), st.lists(TEXT, min_size=1, max_size=3)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_a_problem_written_and_read_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Any, list[str]]]
) -> None:
    """In every format, whatever the text: the prompt, the answer and the tests are those that were written."""
    folder = tmp_path_factory.mktemp("rows")
    tests = [[f"assert solve() == {text!r}" for text in texts] for *_, texts in rows]
    records = [
        {"problem": p, "answer": a, "tests": t, "other": {"x": [1.5, None]}}
        for (p, a, _), t in zip(rows, tests, strict=True)
    ]
    lines = "\n".join(json.dumps(record) for record in records)
    # A column of Parquet has one type.
    strings = [record | {"answer": str(record["answer"])} for record in records]
    files = [
        written(folder / "ascii.jsonl", lines),
        written(folder / "unicode.jsonl", "\n".join(json.dumps(r, ensure_ascii=False) for r in records)),
        written(folder / "list.json", json.dumps(records, indent=1)),
        written(folder / "packed.jsonl.gz", gzip.compress(lines.encode("utf-16"))),
        written(folder / "rows.parquet", parquet(pa.Table.from_pylist(strings))),
    ]
    for path in files:
        found = read(path, verifier="code")
        assert [(r["problem"], r["answer"]) for r in found] == [(p, str(a)) for p, a, _ in rows], path.name
        assert [json.loads(r["metadata"])["tests"] for r in found] == tests, path.name
        assert FileSource(source="file", path=path.name).count(Pin(path=path)) == len(rows)


def test_a_folder_of_save_to_disk_is_read_as_its_rows(tmp_path: Path) -> None:
    """Several files, classes by their names, and the files beside the rows for no rows."""
    import datasets

    rows = {"problem": [f"{i} + 1?" for i in range(5)], "answer": ["a", "b", "a", "b", "a"]}
    data = datasets.Dataset.from_dict(rows).class_encode_column("answer")
    data.select(range(4, -1, -1)).save_to_disk(tmp_path / "saved", num_shards=2)
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "both")
    source = FileSource(source="file", path="saved", verifier="exact")
    pin = source.pin(tmp_path, "problems.train", lambda *_: "")
    assert [(row["problem"], row["answer"]) for row in source.rows(pin)] == [
        (f"{i} + 1?", "ab"[i % 2]) for i in range(4, -1, -1)
    ]
    assert source.count(pin) == 5 and (source.size(pin) or 0) > 0
    with pytest.raises(InputError, match=r"row 0 has no column 'question'"):
        list(FileSource(source="file", path="saved", problem="question", answer="gone").rows(pin))
    with pytest.raises(
        RecipeError, match=r"problems.train.path: both holds a dataset's splits test, train .*both/test"
    ):
        FileSource(source="file", path="both").pin(tmp_path, "problems.train", lambda *_: "")
    assert [row["answer"] for row in read(tmp_path / "both" / "test")] == ["a", "b", "a", "b", "a"]
    origin, opened = open_source(str(tmp_path / "saved"), SourceOptions(unverified=True))
    assert origin.name == "saved" and opened.digest == pin.digest
    with pytest.raises(InputError, match="saved is a folder and has no split"):
        open_source(str(tmp_path / "saved"), SourceOptions(split="test"))


def test_classes_in_parquet_go_by_their_names(tmp_path: Path) -> None:
    """As `datasets` wrote them, in its metadata; a number of no class is refused."""
    import datasets

    rows = {"problem": ["p?", "q?", "r?"], "answer": [2, 0, -1]}
    features = datasets.Features(
        {"problem": datasets.Value("string"), "answer": datasets.ClassLabel(names=["A", "B", "C"])}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    assert [row["answer"] for row in read(tmp_path / "a.parquet", verifier="choice")] == ["C", "A", ""]
    table = pq.read_table(tmp_path / "a.parquet")
    bad = table.set_column(1, "answer", pa.array([2, 7, 0])).replace_schema_metadata(table.schema.metadata)
    pq.write_table(bad, tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b.parquet: row 1: column 'answer': 7 is none of 3 classes"):
        read(tmp_path / "b.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "c.parquet")
    assert [row["answer"] for row in read(tmp_path / "c.parquet")] == ["2", "0", "-1"]


def test_arrow_files_of_both_forms_are_read(tmp_path: Path) -> None:
    table = pa.table({"problem": ["1 + 1?", "2 + 2?"], "answer": [2, 4], "more": [b"\xff", b""]})
    for name, writer in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        with writer(str(tmp_path / f"{name}.arrow"), table.schema) as out:
            out.write_table(table)
        assert [row["answer"] for row in read(tmp_path / f"{name}.arrow")] == ["2", "4"]
    (tmp_path / "bad.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"^bad\.arrow: cannot be read"):
        read(tmp_path / "bad.arrow")
