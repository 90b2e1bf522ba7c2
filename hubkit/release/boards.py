"""The leaderboards of a release: a result file in each student's and base's repo, for each benchmark that has a board.

benchmark `sums`, own problems    -> dataset nano-problems, task sums, values to 100: always
benchmark `gsm8k`, lighteval's    -> openai/gsm8k, found by its eval.yaml or named by `leaderboard:` in the recipe
    -> .eval_results/nano-problems-sums.yaml of local/nano-s-raw-full, in the same commit as its weights
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hubkit.errors import HubkitError, InputError
from hubkit.evaluation.benchmark import Benchmark
from hubkit.hub import Access, download_file
from hubkit.push import SIGNED
from hubkit.release.cards import CardContext
from hubkit.release.leaderboard import (
    Board,
    Scale,
    choose_scale,
    entry_yaml,
    load_yaml,
    make_entry,
    result_tree,
)
from hubkit.release.lighteval_run import Score, read_run
from hubkit.release.results import Facts
from hubkit.release.submission import board_of, file_name, notes_of
from hubkit.store import Record
from hubkit.students.gates import level_of

__all__ = ["OWN_SCALE", "Boards", "compare_results", "result_files"]

OWN_SCALE: Final = Scale(100, "a benchmark of this release")


@dataclass(frozen=True)
class Boards:
    """Benchmark -> its board on the Hub of the release, and the board's scale. None: the release's own."""

    found: dict[str, tuple[Board, Scale] | None]
    missing: dict[str, str]
    """Benchmark without a board -> why."""

    @classmethod
    def find(cls, cards: CardContext, access: Access) -> Boards:
        """Look for the boards of all benchmarks. Raises a HubkitError if a board that the recipe names does not exist,
        or does not state its scale."""
        found: dict[str, tuple[Board, Scale] | None] = {}
        missing: dict[str, str] = {}
        for benchmark in cards.recipe.benchmarks:
            if benchmark.problems:
                found[benchmark.name] = None
                continue
            try:
                board = board_of(access, _any_score(cards.facts, benchmark), benchmark.leaderboard)
                found[benchmark.name] = board, choose_scale(access, board)
            except HubkitError as error:
                if benchmark.leaderboard:
                    raise
                missing[benchmark.name] = error.message
        return cls(found, missing)

    def as_dict(self) -> dict[str, Any]:
        """For release.json."""
        return {
            name: {"dataset": of[0].dataset, "task": of[0].task, "scale": of[1].top} if of else {"own": True}
            for name, of in self.found.items()
        } | {name: {"none": why} for name, why in self.missing.items()}


def result_files(cards: CardContext, name: str, boards: Boards) -> dict[str, Path | bytes]:
    """Returns .eval_results of a student or base: a file for each benchmark with a board, and level of a mixture.

    Benchmarks of one board, such as a task with and without examples in the prompt, have their names in those of their
    files.
    """
    files: dict[str, Path | bytes] = {}
    on = Counter((of[0].dataset.lower(), of[0].task) for of in boards.found.values() if of)
    for benchmark, folder, record in _evaluations(cards.facts, name):
        if benchmark.name not in boards.found:
            continue
        score = _score(folder)
        known = boards.found[benchmark.name]
        own = Board(cards.problems, benchmark.name, cards.commits.get(cards.problems, ""))
        board, scale = known or (own, OWN_SCALE)
        packages = record.environment.get("packages", {})
        versions = {p: packages[p] for p in ("lighteval", "hubkit") if p in packages}
        source = None
        if not cards.local:  # the address of a local Hub is another one tomorrow
            url = str(cards.link(cards.evals, "dataset"))
            source = {"url": url, "name": "lighteval details", "user": cards.recipe.hub.namespace}
        read_there = score.dataset.lower() == board.dataset.lower()  # else its commit is another dataset's
        entry = make_entry(
            board,
            scale.value(score.share),
            record.started,
            notes_of(score, versions, level=level_of(record.config)),
            source,
            revision=(score.revision if read_there else "") if known else board.revision,
        )
        several = known is not None and on[board.dataset.lower(), board.task] > 1
        # A mixture has a result at each level of effort.
        level = record.config.get("level", {}).get("value", "")
        use = "-".join(filter(None, (benchmark.name if several else "", level)))
        files[file_name(board, use)] = entry_yaml([entry])
    return files


def compare_results(
    access: Access, repo_id: str, files: Mapping[str, Path | bytes], problems: str, boards: Boards
) -> tuple[list[str], list[str]]:
    """Returns (stale, theirs): result files on the Hub to remove, and those that somebody else wrote over.

    Stale are those of benchmarks that were renamed or removed: an earlier release left them, and this one lacks them. A
    file is a release's if a release's commit was the last to change it; what anybody else submitted or edited stays,
    also under a name that this release has.
    Where a board was not found this time, files for other datasets than `problems` stay too: one may be of that board.
    """
    from huggingface_hub.utils.sha import git_hash

    stale, theirs = [], []
    for file in result_tree(access, repo_id, commits=True):
        ours = file.last_commit is not None and file.last_commit.title.endswith(SIGNED)
        content = files.get(file.path)
        if content is None and ours:
            stale.append(file.path)
        elif isinstance(content, bytes) and not ours and git_hash(content) != file.blob_id:
            theirs.append(file.path)
    if boards.missing:
        stale = [path for path in stale if _datasets(access, repo_id, path) == {problems}]
    return stale, theirs


def _datasets(access: Access, repo_id: str, path: str) -> set[str]:
    """The benchmarks that a result file is for; empty if it cannot be read."""
    try:
        entries = load_yaml(download_file(repo_id, path, access=access).read_bytes(), path)
        return {str(entry["dataset"]["id"]) for entry in entries}
    except (InputError, KeyError, TypeError):
        return set()


def _evaluations(facts: Facts, name: str) -> Iterator[tuple[Benchmark, Path, Record]]:
    benchmarks = {b.name: b for b in facts.recipe.benchmarks}
    for step, record in facts.kind("evaluation").items():
        if record.config["student"] == name:
            yield benchmarks[record.config["benchmark"]["name"]], facts.folders[step], record


def _any_score(facts: Facts, benchmark: Benchmark) -> Score:
    """What lighteval read for a benchmark; the same for every student."""
    steps = facts.kind("evaluation").items()
    return next(
        _score(facts.folders[step]) for step, r in steps if r.config["benchmark"]["name"] == benchmark.name
    )


def _score(folder: Path) -> Score:
    (score,) = read_run(folder, main=True)
    return score
