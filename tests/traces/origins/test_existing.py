"""Existing traces: the shapes people publish them in, filters, and the way through `raw`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from support import MODELS
from support import hubkit as command

import hubkit
from hubkit.errors import GateError, InputError
from hubkit.localhub import LocalHub
from hubkit.problems.base import Pin
from hubkit.records import read_rows
from hubkit.stages.stages import verify
from hubkit.traces.origins.existing import FileTraces, layout_of, read
from hubkit.traces.origins.shapes import Found, find, recognise

THINK = "<think>\n1 and 1\n</think>\n\n\\boxed{2}"
HARMONY = (
    "<|start|>system<|message|>Be brief.<|end|><|start|>user<|message|>1 + 1?<|end|>"
    "<|start|>assistant<|channel|>analysis<|message|>1 and 1<|end|>"
    "<|start|>assistant<|channel|>final<|message|>\\boxed{2}<|return|>"
)
SHAPES: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": THINK}],
        "answer": "2",
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": THINK}],
        "ground_truth": "2",
    },
    "reasoning apart, in the message": {
        "messages": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "\\boxed{2}", "reasoning_content": "1 and 1"},
        ],
        "answer": "2",
    },
    "reasoning apart, in columns": {
        "question": "1 + 1?", "reasoning_content": "1 and 1", "content": "\\boxed{2}", "answer": "2",
    },
    "an empty column of reasoning beside the whole": {
        "problem": "1 + 1?", "reasoning_content": "", "text": THINK, "answer": "2",
    },
    "reasoning apart, and what follows as text": {
        "problem": "1 + 1?", "reasoning_content": "1 and 1", "text": "\\boxed{2}", "answer": "2",
    },
    "several whole responses beside a column of reasoning": {
        "problem": "1 + 1?", "reasoning": "a human's", "generations": [THINK], "answer": "2",
    },
    "span opened by the template": {
        "problem": "1 + 1?", "response": "1 and 1\n</think>\n\n\\boxed{2}", "expected_answer": "2",
    },
    "prompt and response in one text": {
        "problem_text": "1 + 1?", "generated_cot": f"Solve this. Problem: 1 + 1?\n{THINK}", "gold": "2",
    },
    "prompt and response in one text, with other marks": {
        "problem": "1 + 1?", "text": "[INST]1 + 1?[/INST][THINK]1 and 1[/THINK]\\boxed{2}", "answer": "2",
    },
    "prompt and response in harmony beside the problem": {"problem": "1 + 1?", "text": HARMONY, "gt": "2"},
    "prompt and completion as chats": {
        "prompt": [{"role": "user", "content": "1 + 1?"}],
        "completion": [{"role": "assistant", "content": "\\boxed{2}", "reasoning_content": "1 and 1"}],
        "answer": "2",
    },
    "messages as JSON text": {
        "messages": json.dumps(
            [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": THINK}]
        ),
        "answer": "2",
    },
    "structs": {
        "meta": {"problem": "1 + 1?", "answer": "2"}, "result": {"reasoning_trace": "1 and 1", "content": "\\boxed{2}"},
    },
    "harmony, all in one text": {"text": HARMONY, "gt": "2"},
    "DeepSeek's chat, all in one text": {"text": f"<｜User｜>1 + 1?<｜Assistant｜>{THINK}", "gt": "2"},
    "ChatML, all in one text": {
        "text": f"<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n{THINK}<|im_end|>", "gt": "2",
    },
    "key in a solution's box": {
        "prompt": "1 + 1?", "completion": THINK, "ground_truth_solution": "We add.\nSo it is $\\boxed{2}$.",
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_recognised_and_split(shape: str) -> None:
    row = SHAPES[shape]
    (found,) = find(row, "x: row 0", recognise(row))
    assert (found.problem, found.answer) == ("1 + 1?", "2")
    assert (found.thought.reasoning, found.thought.solution) == ("1 and 1", "\\boxed{2}")
    assert found.finish_reason == "stop" and not found.ran_on


WHOLE = {
    "Alpaca": ({"instruction": "Add them.", "input": "1, 1", "output": THINK}, "Add them.\n\n1, 1"),
    "Alpaca without input": ({"instruction": "Add 1 and 1.", "input": "", "output": THINK}, "Add 1 and 1."),
    "Alpaca's older way to say so": ({"instruction": "1 + 1?", "input": "<noinput>", "output": THINK}, "1 + 1?"),
    "a short input that the instruction has by chance": (
        {"instruction": "Add 1 to it.", "input": "1", "output": THINK}, "Add 1 to it.\n\n1",
    ),
    "an input that is the rendered prompt": (
        {"instruction": "Add them: 1, 1 and 0.", "input": "User: Add them: 1, 1 and 0.\nAssistant:", "output": THINK},
        "Add them: 1, 1 and 0.",
    ),
    "Dolly": ({"instruction": "Add them.", "context": "1, 1", "response": THINK}, "Add them.\n\n1, 1"),
    "a passage and a question": (
        {"context": "We have 1 and 1.", "question": "How many?", "response": THINK}, "We have 1 and 1.\n\nHow many?",
    ),
    "SVAMP": (
        {"Body": "We have 1 and 1.", "Question": "How many?", "response": THINK}, "We have 1 and 1.\n\nHow many?",
    ),
    "passages": ({"query": "How many?", "context": ["One.", "One."], "response": THINK}, "One.\n\nOne.\n\nHow many?"),
    "an instruction of its own": (
        {"instruction": "Be exact.", "question": "1 + 1?", "response": THINK}, "Be exact.\n\n1 + 1?",
    ),
    "context in the problem's struct": (
        {"meta": {"question": "How many?", "context": "1, 1"}, "context": 7, "response": THINK}, "1, 1\n\nHow many?",
    ),
    "input beside a context": ({"input": "How many?", "context": "1, 1", "output": THINK}, "1, 1\n\nHow many?"),
    "options": (
        {"question": "1 + 1, of 3 and 2?", "options": ["2", "3"], "response": THINK}, "1 + 1, of 3 and 2?\nA. 2\nB. 3",
    ),
    "options in the problem": (
        {"question": "1 + 1? (A) 2 (B) 3", "choices": {"text": ["2", "3"], "label": ["A", "B"]}, "response": THINK},
        "1 + 1? (A) 2 (B) 3",
    ),
    "no options": ({"question": "1 + 1?", "options": None, "choices": [{"index": 0}], "response": THINK}, "1 + 1?"),
    "problem and solution": ({"problem": "1 + 1?", "solution": THINK}, "1 + 1?"),
    "input and output": ({"input": "1 + 1?", "output": THINK}, "1 + 1?"),
    "query and response": ({"query": "1 + 1?", "response": THINK}, "1 + 1?"),
    "prompt and completion": ({"prompt": "1 + 1?", "completion": THINK}, "1 + 1?"),
}  # fmt: skip


@pytest.mark.parametrize("shape", WHOLE)
def test_no_column_with_a_part_of_the_problem_is_dropped(shape: str) -> None:
    row, problem = WHOLE[shape]
    (found,) = find(row, "x: row 0", recognise(row))
    assert (found.problem, found.thought.solution) == (problem, "\\boxed{2}")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"question": "q?", "context": {"title": ["a"], "sentences": [["b"]]}},
            "column 'context': a struct of",
        ),
        ({"instruction": "q?", "input": {"a": 1}}, "column 'input': a struct of"),
        ({"instruction": "q?", "input": "", "history": [["a?", "b"]]}, "a history of earlier turns"),
        ({"question": "<image>\nq?", "image": "a.png"}, "has a picture in it"),
        ({"question": "Look at <image_1>."}, "has a picture in it"),
    ],
)
def test_a_problem_that_cannot_be_put_together_is_refused(row: dict[str, Any], said: str) -> None:
    row |= {"response": THINK}
    with pytest.raises(InputError, match=said):
        find(row, "x: row 0", recognise(row))


def test_empty_parts_are_none() -> None:
    for nothing in (None, float("nan"), [], ""):
        row = {"question": "1 + 1?", "context": nothing, "history": [], "response": THINK}
        assert find(row, "x: row 0", recognise(row))[0].problem == "1 + 1?"


def test_a_part_that_only_later_rows_have_is_read(tmp_path: Path) -> None:
    rows = [
        {"instruction": "1 + 1?", "output": THINK},
        {"instruction": "Add.", "input": "1, 1", "output": THINK},
    ]
    assert [f.problem for f in taken(*source(tmp_path, rows))[0]] == ["1 + 1?", "Add.\n\n1, 1"]
    assert [f.problem for f in taken(*source(tmp_path, rows, columns={"context": ""}))[0]] == [
        "1 + 1?",
        "Add.",
    ]


def test_parts_of_the_problem_are_among_the_columns_that_are_decoded(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1, 1", "system": "Be brief.", "output": THINK, "more": "x"}
    rows = [row | {"history": []}, row | {"history": [["a?", "b"]]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    origin, pin = FileTraces(name="mine", source="file", path="t.parquet"), Pin(path=tmp_path / "t.parquet")
    found, drops = taken(origin, pin)
    assert [f.problem for f in found] == ["Add.\n\n1, 1"] and drops == {"unreadable": 1}
    layout = layout_of(origin, pin)
    assert layout.system == "Be brief." and "more" not in (layout.needed or ["more"])


SYSTEM = {
    "messages": lambda text: {
        "messages": [
            {"role": "system", "content": text},
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": THINK},
        ]
    },
    "sharegpt": lambda text: {
        "conversations": [
            {"from": "system", "value": text},
            {"from": "human", "value": "1 + 1?"},
            {"from": "gpt", "value": THINK},
        ]
    },
    "column": lambda text: {"system_prompt": text, "question": "1 + 1?", "response": THINK},
    "prompt": lambda text: {
        "prompt": [{"role": "system", "content": text}, {"role": "user", "content": "1 + 1?"}],
        "response": THINK,
    },
    "ChatML as one text": lambda text: {
        "text": chatml(("system", text), ("user", "1 + 1?"), ("assistant", THINK))
    },
    "harmony as one text": lambda text: {
        "text": HARMONY.replace(
            "<|start|>user",
            f"<|start|>developer<|message|>{text}<|end|><|start|>user" if text else "<|start|>user",
        )
    },
}


def chatml(*turns: tuple[str, str]) -> str:
    return "\n".join(f"<|im_start|>{role}\n{text}<|im_end|>" for role, text in turns if text)


def test_several_turns_of_the_user_are_no_problem() -> None:
    """Neither as messages nor in one text, where the last one alone would be silently taken for it."""
    turns = [("user", "I have 1."), ("assistant", "So?"), ("user", "And 1 more?"), ("assistant", THINK)]
    for row in (
        {"messages": [{"role": role, "content": text} for role, text in turns]},
        {"text": chatml(*turns)},
        {"problem": "And 1 more?", "text": chatml(*turns)},
    ):
        with pytest.raises(InputError, match="is not one prompt"):
            find(row, "x: row 0", recognise(row))


def test_turns_that_a_model_wrote_itself_are_left_out() -> None:
    more = [("user", "And 2 more?"), ("assistant", "<think>2 and 2</think>\\boxed{4}")]
    for text in (
        f"{THINK}<|im_end|>\n{chatml(*more)}",
        chatml(("user", "1 + 1?"), ("assistant", THINK), *more),
        chatml(("user", "1 + 1?"), ("assistant", THINK)) + "\n<|im_start|>user\n",
    ):
        (found,) = find(
            {"problem": "1 + 1?", "text": text}, "x: row 0", {"problem": "problem", "text": "text"}
        )
        assert (found.thought.reasoning, found.thought.solution) == ("1 and 1", "\\boxed{2}")
        assert found.ran_on
    # Whose turns they are is not clear without the problem.
    row = {"text": chatml(("user", "1 + 1?"), ("assistant", THINK), *more[:1])}
    with pytest.raises(InputError, match="2 turns of the user"):
        find(row, "x: row 0", recognise(row))


@pytest.mark.parametrize("shape", SYSTEM)
def test_a_system_message_is_part_of_the_problem_unless_all_rows_have_it(tmp_path: Path, shape: str) -> None:
    for said, problems in (
        (["Be brief."] * 2, ["1 + 1?"] * 2),
        (["In base 2.", "In base 3."], ["In base 2.\n\n1 + 1?", "In base 3.\n\n1 + 1?"]),
        (["Be brief."] * 40 + ["In base 3."], ["1 + 1?"] * 40 + ["In base 3.\n\n1 + 1?"]),
        (["", "In base 3."], ["1 + 1?", "In base 3.\n\n1 + 1?"]),
    ):
        origin, pin = source(tmp_path, [SYSTEM[shape](text) for text in said])
        assert [f.problem for f in taken(origin, pin)[0]] == problems
        assert layout_of(origin, pin).system == (said[0] if said[0] == said[1] else "")


@pytest.mark.parametrize(
    ("name", "values", "claims"),
    [
        ("is_correct", [True, False, None], [True, False, None]),
        ("correctness", [1, 0, 1.0], [True, False, True]),
        ("correct", ["true", "0", "wrong"], [True, False, False]),
        ("score", [1, 0, 1], [None, None, None]),
        ("label", [0, 1, 1], [None, None, None]),
        ("correct", [1, 0, 3], [None, None, None]),
        ("correct", ["B", "1", "0"], [None, None, None]),
        ("correctness", [0.7, 1, 0], [None, None, None]),
    ],
)
def test_only_a_column_of_verdicts_says_what_is_correct(
    tmp_path: Path, name: str, values: list[Any], claims: list[bool | None]
) -> None:
    rows = [{"problem": f"{i} + 1?", "answer": "2", "text": THINK, name: v} for i, v in enumerate(values)]
    origin, pin = source(tmp_path, rows)
    assert [f.claimed for f in taken(origin, pin)[0]] == claims
    used = any(claim is not None for claim in claims)
    assert layout_of(origin, pin).columns.get("correct", "") == (name if used else "")
    named, pin = source(tmp_path, rows, columns={"correct": name})
    assert layout_of(named, pin).columns["correct"] == name


def test_several_responses_of_a_row_keep_their_own_finish_and_claim() -> None:
    row = {
        "problem": "1 + 1?", "answer": "2", "generations": [THINK, "<think>\n1 and"],
        "finish_reasons": ["stop", "length"], "correctness_math_verify": [True, False],
    }  # fmt: skip
    found = find(row, "x: row 0", recognise(row))
    assert [f.finish_reason for f in found] == ["stop", "length"] and [f.claimed for f in found] == [
        True,
        False,
    ]
    assert [f.thought.form for f in found] == ["closed", "unclosed"]


def test_finish_reasons_go_by_the_names_of_all_servers() -> None:
    said = {
        "eos": "stop",
        "end_turn": "stop",
        "STOP": "stop",
        "max_tokens": "length",
        "content_filter": "content_filter",
    }
    for finish, name in said.items():
        row = {"problem": "1 + 1?", "answer": "2", "text": THINK, "finish_reason": finish}
        (found,) = find(row, "x: row 0", recognise(row))
        assert found.finish_reason == name


def source(tmp_path: Path, rows: list[Any], **keys: Any) -> tuple[FileTraces, Pin]:
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return FileTraces(name="mine", source="file", path=path.name, **keys), Pin(path=path)


def taken(origin: FileTraces, pin: Pin) -> tuple[list[Found], Counter[str]]:
    drops: Counter[str] = Counter()
    found = [
        trace for _, rows in read(origin, pin, 7, lambda reason, _: drops.update([reason])) for trace in rows
    ]
    return found, drops


def test_filters_and_samples_choose_the_same_rows_every_time(tmp_path: Path) -> None:
    rows = [
        {"problem": f"{i} + 1?", "answer": str(i + 1), "text": THINK, "domain": "ab"[i % 2]}
        for i in range(40)
    ]
    origin, pin = source(tmp_path, rows, where={"domain": "a"}, sample=5)
    found, drops = taken(origin, pin)
    assert len(found) == 5 and {int(f.problem.split()[0]) % 2 for f in found} == {0} and not drops
    assert [f.problem for f in taken(origin, pin)[0]] == [f.problem for f in found]
    other, pin = source(tmp_path, rows, where={"domain": ["a", "b"]}, limit=3)
    assert [f.problem for f in taken(other, pin)[0]] == ["0 + 1?", "1 + 1?", "2 + 1?"]


def test_no_more_of_a_source_is_read_than_its_limit(tmp_path: Path) -> None:
    rows = [{"problem": f"{i} + 1?", "answer": str(i + 1), "text": THINK} for i in range(9)]
    for keys in ({"limit": 5}, {"limit": 5, "sample": 3}):
        origin, pin = source(tmp_path, rows, **keys)
        assert pin.path is not None
        with pin.path.open("a") as file:
            file.write("\nwhat lies behind the limit is not even looked at")
        found, _ = taken(origin, pin)
        assert len(found) == min(keys.values())


def test_what_cannot_be_read_is_counted_with_its_row(tmp_path: Path) -> None:
    rows = [
        {"problem": "1 + 1?", "answer": "2", "text": THINK},
        {"problem": "1 + 1?", "answer": "2", "text": {"a": 1}},
    ]
    found, drops = taken(*source(tmp_path, rows))
    assert len(found) == 1 and drops == {"unreadable": 1}
    with pytest.raises(InputError, match="there is nothing called 'respons'"):
        taken(*source(tmp_path, rows, columns={"respons": "text"}))
    with pytest.raises(InputError, match="no column 'domain'"):
        taken(*source(tmp_path, rows, where={"domain": "a"}))


def test_a_problem_with_another_answer_is_judged_by_that_one(tmp_path: Path) -> None:
    rows = [
        {"problem": "How many?", "answer": n, "text": f"<think>{n}!</think>\\boxed{{{n}}}"} for n in (2, 3, 3)
    ]
    rows.append(rows[0] | {"text": "<think>again</think>2"})
    _, pin = source(tmp_path, rows)
    assert pin.path is not None
    stage = verify(str(pin.path), tmp_path / "out")
    records = stage.records(tmp_path / "out")
    assert records["traces"].counts == {"traces": 3, "dropped_duplicate": 1}
    assert records["raw"].counts == {"kept": 3}


RECIPE = """
name: existing
description: Traces that exist.
problems:
  test: {source: reasoning-gym, task: chain_sum, size: 4, seed: 2, split: test}
traces:
  - {name: mine, source: file, path: traces.jsonl, model: org/somebody, license: mit}
students:
  bases: [{name: s, model: ./student-s}]
  variants: [raw]
  methods: {full: {sft: {learning_rate: 1.0e-3, num_train_epochs: 4, per_device_train_batch_size: 2, max_length: 512}}}
benchmarks: [{name: sums, problems: test, sampling: {max_tokens: 40}}]
run: {device: cpu, threads: 1}
"""


def test_existing_traces_are_verified_again_and_disagreement_is_counted(tmp_path: Path) -> None:
    rows = [
        {"problem": "1 + 1?", "answer": "2", "text": THINK, "is_correct": True},
        {
            "problem": "1 + 1?",
            "answer": "2",
            "text": THINK.replace("1 and 1", "one, one"),
            "is_correct": True,
        },
        {"problem": "1 + 1?", "answer": "2", "text": THINK, "is_correct": True},
        {"problem": "2 + 2?", "answer": "4", "text": THINK, "is_correct": True},
        {
            "problem": "0 + 2?",
            "answer": "2",
            "text": f"{THINK}<|im_end|>\n<|im_start|>user\nAnd \\boxed{{3}}?",
            "is_correct": False,
        },
        {"problem": "3 + 3?", "answer": "", "text": THINK},
    ]
    (tmp_path / "traces.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "student-s").symlink_to(MODELS / "student-s")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "runs"
    records = hubkit.run(recipe, out=out, until=["raw", "contamination"])
    assert records["traces/mine/0"].counts == {
        "traces": 4, "dropped_duplicate": 1, "dropped_no_answer": 1, "claimed_correct": 3, "claimed_wrong": 1,
        "ran_on": 1,
    }  # fmt: skip
    assert records["traces/mine/0"].metrics["columns"]["correct"] == "is_correct"
    counts = records["raw/mine"].counts
    assert counts == {
        "kept": 3, "dropped_wrong": 1, "claimed_correct_found_wrong": 1, "claimed_wrong_found_correct": 1,
    }  # fmt: skip
    folder = out / "steps" / "raw/mine" / records["raw/mine"].key[:16]
    kept = list(read_rows(folder / "data.parquet"))
    assert [(row["problem"], row["sample"]) for row in kept] == [("1 + 1?", 0), ("1 + 1?", 1), ("0 + 2?", 0)]
    assert {row["teacher"] for row in kept} == {"mine"} and all(row["correct"] for row in kept)


def test_a_recipe_of_existing_traces_alone_is_published(tmp_path: Path) -> None:
    """To the cards: what they say of the source. Students learn nothing from three rows, and need not."""
    rows = [
        {
            "problem": f"{i} + 1 = ?",
            "answer": str(i + 1),
            "is_correct": i != 3,
            "text": THINK.replace("{2}", f"{{{i + 1}}}"),
        }
        for i in range(5)
    ]
    (tmp_path / "traces.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "student-s").symlink_to(MODELS / "student-s")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("size: 4", "size: 2"))
    records = hubkit.run(tmp_path / "recipe.yaml", out=tmp_path / "runs")
    assert records["raw/mine"].counts["kept"] == 5 and "publish" in records
    frame = hubkit.results(tmp_path / "recipe.yaml", out=tmp_path / "runs")
    assert set(frame.student) == {"s", "s-raw-full"}
    with LocalHub(tmp_path / "runs" / "hub") as hub:
        api = HfApi(hub.endpoint, hub.token)
        card = Path(
            api.hf_hub_download(
                "local/existing-traces", "README.md", repo_type="dataset", cache_dir=tmp_path / "c"
            )
        )
        repos = {repo.id for repo in api.list_models(author="local")}
    assert (
        "written by org/somebody, licence mit" in card.read_text()
        and "Problems and traces: licence mit" in card.read_text()
        and "Existing reasoning traces, mine, written by org/somebody, in 1 form" in card.read_text()
        and "calls 4 of the traces correct, of which 0 were found wrong here, and 1 wrong, of which 1"
        in card.read_text()
    )
    assert repos == {"local/existing-s", "local/existing-s-raw-full"}, (
        "nothing of the model that wrote them is pushed"
    )
    arguments = ["release", "check", "local/existing", "--hub", str(tmp_path / "runs" / "hub"), "--json"]
    done = command(*arguments, "--rerun", "2", "--device", "cpu", HF_HOME=str(tmp_path / "home"))
    said = {claim["what"]: claim for claim in json.loads(done.stdout)["claims"]}
    assert [claim for claim in said.values() if claim["status"] == "differs"] == [] and done.returncode == 0
    # There are no published problems of training: each row has its own, with its known answer.
    assert said["config raw: answer verified again, by the known answer of its row"]["status"] == "same"
    assert said["s-raw-full on sums: answered again"]["status"] == "same"


def test_all_variants_see_what_is_selected_and_what_is_not_in_the_tests(tmp_path: Path) -> None:
    asked = "A farmer has {} cows, sells 12 of them on Monday, buys 7 more on Friday and counts {} cows in the evening?"
    rows = [
        {
            "problem": asked.format(i, i - 5),
            "answer": str(i - 5),
            "text": f"<think>\n{'so ' * i}\n</think>\n{i - 5}",
        }
        for i in (20, 30, 40, 50)
    ]
    rows += [row | {"text": row["text"].replace("so", "then so")} for row in rows[:2]]
    tests = [{"problem": asked.format(30, 25).upper(), "answer": "25"}]
    for name, found in (("traces", rows), ("tests", tests)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in found))
    (tmp_path / "student-s").symlink_to(MODELS / "student-s")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "runs"
    recipe.write_text(RECIPE)
    overrides = ["problems.test={source: file, path: tests.jsonl}", "select={by: shortest}"]
    with pytest.raises(GateError, match=r"leave them out: decontamination: \{tests: drop\}"):
        hubkit.run(recipe, out=out, until=["contamination"], overrides=overrides)
    overrides += ["decontamination={tests: drop, similarity: 0.95}"]
    records = hubkit.run(recipe, out=out, until=["matched"], overrides=overrides)
    # That problem has two ids, as its traces do not follow each other, and both are left out.
    assert records["selected/mine"].counts == {"dropped_in_test": 2, "dropped_longer": 1, "kept": 3}
    folder = out / "steps" / "selected/mine" / records["selected/mine"].key[:16]
    kept = [row["reasoning"].split() for row in read_rows(folder / "data.parquet")]
    assert [len(words) for words in kept] == [20, 40, 50] and {w for words in kept for w in words} == {"so"}
    assert records["matched/mine"].counts == {"kept": 3}


def test_traces_without_keys_are_kept_only_when_the_recipe_says_so(tmp_path: Path) -> None:
    rows = [{"problem": "1 + 1?", "text": THINK}, {"problem": "2 + 2?", "text": "<think>\nnever ends"}]
    (tmp_path / "traces.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "student-s").symlink_to(MODELS / "student-s")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "runs"
    recipe.write_text(RECIPE)
    with pytest.raises(InputError, match="no_answer 2"):
        hubkit.run(recipe, out=out, until=["raw"])
    records = hubkit.run(recipe, out=out, until=["raw"], overrides=["traces.0.unverified=true"])
    assert records["raw/mine"].counts == {"kept": 1, "dropped_unclosed": 1}
    (row,) = read_rows(out / "steps" / "raw/mine" / records["raw/mine"].key[:16] / "data.parquet")
    assert row["correct"] is None
