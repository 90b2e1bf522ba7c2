"""Benchmarks of the Hub that keep a leaderboard: which one, which task of it, and whether it counts to 1 or to 100."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hub_support import add
from huggingface_hub import HfApi

from hubkit.errors import HubError, InputError
from hubkit.hub import Access
from hubkit.localhub import LocalHub, make_member
from hubkit.release.leaderboard import Board, choose_scale, entry_yaml, find_board, load_yaml, make_entry

EVAL = b"name: GSM8K\ndescription: sums\ntasks:\n- {id: gsm8k, config: main, split: test}\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    folder = tmp_path_factory.mktemp("hub")
    with LocalHub(folder) as hub:
        make_member(folder, "openai", "local", "write")
        yield hub


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def mine(hub: LocalHub) -> Access:
    return Access(hub.endpoint, hub.token)


def board(api: HfApi, name: str, card: bytes = b"# x\n", definition: bytes = EVAL) -> Board:
    api.create_repo(name, repo_type="dataset", exist_ok=True)
    sha = add(api, name, {"README.md": card, "eval.yaml": definition}, repo_type="dataset")
    return Board(name, "gsm8k", sha)


def test_the_scale_is_the_board_s(api: HfApi, mine: Access) -> None:
    model = "local/model"
    api.create_repo(model)
    silent = board(api, "local/silent")
    with pytest.raises(InputError, match="--scale 1 or --scale 100"):
        choose_scale(mine, silent)
    assert choose_scale(mine, silent, 1).reason == "as asked"
    one = board(
        api, "local/one", b"Scores are between 0 and 1: accuracy.\n".replace(b"between 0 and", b"0 to")
    )
    assert choose_scale(mine, one).top == 1
    percent = board(
        api, "local/percent", b"# Results\n| model | accuracy |\n|---|---|\n| a accuracy | 41.2 % |\n"
    )
    assert choose_scale(mine, percent).top == 100
    lines: Any = [SimpleNamespace(value=value) for value in (10**400, math.inf, "9", 41.5)]
    assert choose_scale(mine, one, lines=lines).reason == "1 entries on the board, up to 41.5"
    # Entries are worth more than the card.
    entry = make_entry(one, 55.5, "2026-11-24", "x")
    add(api, model, {".eval_results/one.yaml": entry_yaml([entry])})
    scale = choose_scale(mine, one)
    assert (scale.top, scale.reason) == (100, "1 entries on the board, up to 55.5")
    add(api, model, {".eval_results/percent.yaml": entry_yaml([make_entry(percent, 0.4, "2026-11-24", "x")])})
    with pytest.raises(InputError, match="it is not clear"):
        choose_scale(mine, percent)
    with pytest.raises(InputError, match="counts to 100"):
        choose_scale(mine, one, 1)
    assert scale.value(0.41166) == 41.17 and choose_scale(mine, silent, 1).value(0.41166) == 0.4117


def test_boards_are_found_by_their_eval_yaml(api: HfApi, mine: Access) -> None:
    board(api, "openai/gsm8k")
    assert find_board(mine, "openai/gsm8k", "", "main", ["test"], "gsm8k").task == "gsm8k"
    with pytest.raises(InputError, match="does not have one task"):
        find_board(mine, "openai/gsm8k", "", "socratic", ["test"], "gsm8k")
    several = b"name: g\ntasks:\n- {id: diamond, config: d}\n- {id: main, config: m}\n- {id: x, config: m}\n"
    board(api, "local/several", definition=several)
    assert find_board(mine, "local/several", "", "d", ["test"], "gpqa:diamond").task == "diamond"
    assert find_board(mine, "local/several", "", "m", ["test"], "gpqa:main").task == "main"
    assert find_board(mine, "local/several", "x").task == "x"
    with pytest.raises(InputError, match="it has diamond, main, x"):
        find_board(mine, "local/several", "", "m", ["test"], "other")
    # Another split or configuration is another set of problems, whatever the task is called.
    stated = (
        b"name: g\ntasks:\n- {id: diamond, config: d, split: test}\n- {id: main, config: m, split: test}\n"
    )
    board(api, "local/stated", definition=stated)
    for config, split in (("d", "train"), ("e", "test")):
        with pytest.raises(InputError, match="does not have one task for gpqa:diamond"):
            find_board(mine, "local/stated", "", config, [split], "gpqa:diamond")
    assert find_board(mine, "local/several", "", "d", ["train"], "gpqa:diamond").task == "diamond"
    assert find_board(mine, "local/stated", "", "", ["test"], "gpqa:diamond").task == "diamond"
    api.create_repo("local/plain", repo_type="dataset")
    with pytest.raises(HubError, match=r"no eval\.yaml"):
        find_board(mine, "local/plain")


@pytest.mark.parametrize(
    "text",
    [
        b"a: &x [1]\nb: *x\n",
        b"[" * 1000,
        b"!!python/object/apply:os.system ['id']",
        b"\xff",
        b"a: [",
        b"x" * (1 << 21),
    ],
)
def test_hostile_yaml_of_a_repo(text: bytes) -> None:
    with pytest.raises(InputError) as caught:
        load_yaml(text, "eval.yaml")
    assert "\n" not in str(caught.value)
