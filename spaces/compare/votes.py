"""A blind vote: two students of different variants answered the same problem; whose answer is better?"""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
import time
from functools import lru_cache
from pathlib import Path

from cards import card, question
from data import Evaluations, Row, called
from results import grid
from text import MATHS, esc, note
from view import View, chosen_students, find


@lru_cache(maxsize=1)
def ballot_box() -> tuple[Path, threading.Lock] | None:
    """Where votes go: a dataset of the owner's, committed now and then. None where the owner names none."""
    name = os.environ.get("HUBKIT_VOTES")
    if not name:
        return None
    from huggingface_hub import CommitScheduler

    folder = Path(tempfile.mkdtemp(prefix="votes-"))
    minutes = float(os.environ.get("HUBKIT_VOTES_EVERY", "5"))
    scheduler = CommitScheduler(
        repo_id=name, repo_type="dataset", folder_path=folder, path_in_repo="data", every=minutes
    )
    # A file of this process alone: several replicas then never write the same one.
    return folder / f"votes-{os.getpid()}-{random.getrandbits(32):08x}.jsonl", scheduler.lock


def kind(data: Evaluations, name: str) -> str:
    """What votes are counted for: the variant, and the level that a mixture was asked at."""
    row = data.students[name]
    return called({"student": row["variant"] or "untrained", "level": row.get("level")})


def draw_pair(data: Evaluations, view: View) -> Row | None:
    """Two outputs to one problem, in random order, of students that differ in the variant alone where there are any."""
    found, _ = find(data, view)
    there = data.answers(view.answer).there
    students = chosen_students(data, view)
    groups = [group for group in data.groups(students) if len(group) > 1] or [students]
    for _ in range(50):
        group = random.choice(groups)  # noqa: S311
        if not found or len(group) < 2:
            return None
        problem = random.choice(found)  # noqa: S311
        a, b = random.sample(group, 2)
        differ = kind(data, data.names[a]) != kind(data, data.names[b])
        if there[problem, a] and there[problem, b] and differ:
            names = {"a": data.names[a], "b": data.names[b]}
            return {"problem": data.keys[problem], "answer": view.answer, **names}
    return None


def blind_view(data: Evaluations, pair: Row | None, vote: str = "") -> str:
    if pair is None:
        return note("Two students of different variants are needed; widen the filters of the first tab.")
    number = data.at[pair["problem"]]
    cards = ""
    for side in ("a", "b"):
        (row,) = data.outputs(number, [data.names.index(pair[side])], pair["answer"])
        cards += card(data, row, name="" if vote else f"Student {side.upper()}")
    said = {"a": "You preferred A.", "b": "You preferred B.", "same": "You saw no difference."}.get(vote, "")
    about = question(data.problem(number)) + (note(said) if said else "")
    return f'{MATHS}<div>{about}<div class="side">{cards}</div></div>'


def cast(data: Evaluations, vote: str, pair: Row | None, tally: Row) -> tuple[str, Row | None, Row, str]:
    """Keep a vote, and show who was who."""
    if pair is None or pair.get("vote"):
        return blind_view(data, pair, (pair or {}).get("vote", "")), pair, tally, tally_text(tally)
    pair = pair | {"vote": vote}
    kinds = [kind(data, pair[side]) for side in ("a", "b")]
    tally = {key: dict(value) for key, value in tally.items()}
    for side, voted in zip(("a", "b"), kinds, strict=True):
        row = tally.setdefault(voted, {"won": 0, "same": 0, "lost": 0})
        row["same" if vote == "same" else "won" if vote == side else "lost"] += 1
    box = ballot_box()
    if box is not None:
        path, lock = box
        line = json.dumps({**pair, "variants": kinds, "time": int(time.time())})
        with lock, path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return blind_view(data, pair, vote), pair, tally, tally_text(tally)


def tally_text(tally: Row) -> str:
    where = (
        "Votes are kept in a dataset of this Space's owner." if ballot_box() else "Votes stay in this window."
    )
    if not tally:
        return note(where)
    rows = [[(esc(k), k), *((str(v[n]), v[n]) for n in ("won", "same", "lost"))] for k, v in tally.items()]
    return grid(["variant", "won", "no difference", "lost"], rows) + note(where)
