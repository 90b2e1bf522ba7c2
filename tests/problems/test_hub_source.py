"""Problems from a dataset on a Hub, read by `datasets` over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import warm
from huggingface_hub import HfApi

from hubkit.localhub import LocalHub

# `datasets` reads HF_ENDPOINT when it is imported: a process of its own.
READ = """
import json, sys
from hubkit.errors import HubkitError
from hubkit.hub import resolve
from hubkit.problems.base import Pin
from hubkit.problems.hub import HubSource

found = []
for keys in json.loads(sys.argv[1]):
    source = HubSource(source="hub", **keys)
    pin = source.pin(None, "problems.train", lambda repo, revision: resolve(repo, revision, "dataset"))
    try:
        found.append([source.count(pin), [[row["problem"], row["answer"]] for row in source.rows(pin)]])
    except HubkitError as error:
        found.append(str(error))
print(json.dumps(found))
"""
PUSH = """
import datasets

features = datasets.Features({"question": datasets.Value("string"), "answer": datasets.ClassLabel(names=["A", "B"])})
media = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
junk = [{"bytes": b"no picture, no sound", "path": None}] * 3
rows = datasets.Dataset.from_dict({"question": ["p?", "q?", "r?"], "answer": [0, 1, -1]}, features=features)
rows = rows.add_column("image", junk, feature=media).cast_column("image", datasets.Image())
rows = rows.add_column("audio", junk, feature=media).cast_column("audio", datasets.Audio())
rows.push_to_hub("local/pictures")
"""
LINES = b'{"prompt": [{"role": "user", "content": "5 - 5?"}], "reward_model": {"ground_truth": 0}}\n'
ALPACA = b'{"instruction": "Add them.", "input": "1, 1", "output": "2"}\n'


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    tmp_path = tmp_path_factory.mktemp("hub")
    with LocalHub(tmp_path / "hub") as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(tmp_path / "home"),
        }

        def python(code: str, *arguments: str) -> str:
            done = warm.run("-c", code, *arguments, env=environment)
            assert done.returncode == 0, done.stderr
            return done.stdout

        python(PUSH)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for name, lines in (("local/lines", LINES), ("local/alpaca", ALPACA)):
            api.create_repo(name, repo_type="dataset")
            api.upload_file(
                path_or_fileobj=lines, path_in_repo="train.jsonl", repo_id=name, repo_type="dataset"
            )
        pictures = {"dataset": "local/pictures", "problem": "question"}
        asked = [
            pictures,
            pictures | {"limit": 2},
            {"dataset": "local/lines", "problem": "prompt", "answer": "reward_model.ground_truth"},
            {"dataset": "local/alpaca", "problem": "instruction", "answer": "output"},
            pictures | {"answer": "image"},
            pictures | {"problem": "questoin"},
            pictures | {"split": "test"},
            pictures | {"config": "none"},
        ]
        yield json.loads(python(READ, json.dumps(asked)))


def test_what_nobody_asked_for_is_not_decoded_and_classes_go_by_their_names(found: list[Any]) -> None:
    assert found[0] == [3, [["p?", "A"], ["q?", "B"], ["r?", ""]]]
    assert found[1][0] == 2, "no more than the limit"


def test_chats_and_parts_of_structs_are_read_and_an_unknown_size_stays_unknown(found: list[Any]) -> None:
    assert found[2] == [None, [["5 - 5?", "0"]]]


def test_a_problem_in_two_columns_is_put_together(found: list[Any]) -> None:
    assert found[3] == [None, [["Add them.\n\n1, 1", "2"]]]


def test_errors_are_one_line_that_says_what_and_where(found: list[Any]) -> None:
    expected = [
        "local/pictures: row 0 cannot be read: cannot identify image",
        "local/pictures: no column 'questoin' (its columns are question, answer, image, audio)",
        "local/pictures cannot be read: Bad split: test",
        "local/pictures cannot be read: BuilderConfig 'none' not found",
    ]
    for text, start in zip(found[4:], expected, strict=True):
        assert text.startswith(start) and "\n" not in text
