"""Community Evals: a model's result on the leaderboard of a benchmark dataset.

    gsm8k|0 by lighteval, 543 of 1,319 problems right  ->  .eval_results/gsm8k.yaml in the model's repo:
        - dataset: {id: openai/gsm8k, task_id: gsm8k, revision: e53f…}
          value: 41.17
          date: '2026-11-24T06:24:06Z'
          source: {url: https://huggingface.co/datasets/org/details_org__model, name: lighteval details}
          notes: lighteval gsm8k|0, 0-shot, greedy, at most 4,096 tokens, n = 1,319, 95 % CI 38.5 to 43.8

A benchmark is a dataset repo with an `eval.yaml`, which names its tasks; no names or scales are kept here.
The format is https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import yaml

from hubkit.errors import HubError, InputError
from hubkit.hub import Access, attempt, download_file
from hubkit.release.lighteval_run import is_number
from hubkit.section import is_repo_id

if TYPE_CHECKING:
    from huggingface_hub import EvalResultEntry
    from huggingface_hub.hf_api import DatasetLeaderboardEntry, RepoFile

__all__ = [
    "FOLDER",
    "Board",
    "Scale",
    "check_entry",
    "choose_scale",
    "entry_yaml",
    "find_board",
    "is_address",
    "load_yaml",
    "make_entry",
    "parse_board",
    "result_tree",
    "rows",
]

FOLDER: Final = ".eval_results"
_LARGEST: Final = 1 << 20
"""Bytes of a YAML file from a repo."""
_DEEPEST: Final = 32
_TASK: Final = re.compile(r"[\w][\w ./:-]{0,127}")
_URL: Final = re.compile(r"https?://[^\s<>\"'`\\]+")
_LONGEST_NOTES: Final = 500


@dataclass(frozen=True)
class Board:
    """One task of a benchmark dataset."""

    dataset: str
    task: str
    revision: str
    """Commit of the dataset."""
    name: str = ""
    config: str = ""
    split: str = "test"
    """Configuration ("" for the dataset's default) and split of the problems."""

    def address(self, endpoint: str) -> str:
        """Page of the leaderboard with models that declare a base model, which are hidden by default."""
        return f"{endpoint.rstrip('/')}/datasets/{self.dataset}?base_model_only=false"


@dataclass(frozen=True)
class Scale:
    """The highest value of a board, and how that is known."""

    top: int
    """1 or 100."""
    reason: str

    def value(self, share: float) -> float:
        """A share of right answers as this board writes it."""
        return round(share * self.top, 4 if self.top == 1 else 2)


def load_yaml(data: bytes, what: str) -> Any:
    """Returns untrusted YAML from a repo. Raises InputError if it is too large, too deep or has aliases."""
    if len(data) > _LARGEST:
        raise InputError(f"{what} has more than {_LARGEST:,} bytes", "it is no usable file")
    depth = 0
    try:
        text = data.decode()
        for token in yaml.scan(text, yaml.CSafeLoader):
            # Nested aliases make gigabytes of a small text; deep nesting overflows the parser's stack.
            if isinstance(token, yaml.AliasToken):
                raise InputError(f"{what} has YAML aliases", "write it without")
            kind = type(token).__name__
            depth += kind.endswith(("SequenceStartToken", "MappingStartToken"))
            depth -= kind.endswith("EndToken") and kind not in ("StreamEndToken", "DocumentEndToken")
            if depth > _DEEPEST:
                raise InputError(f"{what} is nested too deeply", "it is no usable file")
        return yaml.load(text, yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{what} is not valid YAML: {line}", "repair it first") from None


def result_tree(access: Access, model: str, revision: str = "main", commits: bool = False) -> list[RepoFile]:
    """Result files of a model, with `commits` each with the one that changed it last; [] if there is no such model."""
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = access.api()

    def there() -> list[RepoFile]:
        try:
            found = list(api.list_repo_tree(model, FOLDER, revision=revision, expand=commits))
        except (EntryNotFoundError, RepositoryNotFoundError):
            return []
        return [
            file for file in found if isinstance(file, RepoFile) and file.path.endswith((".yaml", ".yml"))
        ]

    return attempt(access, f"look up the results in model {model} at {revision}", there)


# Boards


def parse_board(text: str) -> tuple[str, str]:
    """("org/name", "task") of org/name#task; the task is "" where none is named."""
    dataset, _, task = text.partition("#")
    if not is_repo_id(dataset, owned=True) or ".." in dataset or (task and not _TASK.fullmatch(task)):
        raise InputError(f"{text!r} is not a leaderboard", "write org/name#task, such as openai/gsm8k#gsm8k")
    return dataset, task


def find_board(
    access: Access,
    dataset: str,
    task: str = "",
    config: str = "",
    splits: Iterable[str] = (),
    name: str = "",
) -> Board:
    """The board of a benchmark dataset that results of one lighteval task belong to.

    `task` picks it by id. Otherwise the eval.yaml decides: its only task, or the only one of the configuration and
    split that lighteval read, or the one called like lighteval's task (`name`, "gpqa:diamond"). Raises HubError
    where the dataset has no eval.yaml, InputError where none or several of its tasks fit.
    """
    api = access.api()
    info = attempt(access, f"look up dataset {dataset}", lambda: api.dataset_info(dataset), patient=False)
    dataset, revision = str(info.id), str(info.sha)
    if not any(sibling.rfilename == "eval.yaml" for sibling in info.siblings or []):
        raise HubError(
            f"{dataset} has no eval.yaml, so it has no leaderboard",
            "name the benchmark: --leaderboard org/name#task",
        )
    path = download_file(dataset, "eval.yaml", "dataset", revision, access)
    title, tasks = _read_definition(path.read_bytes(), f"eval.yaml of {dataset}")
    fit = _fitting(tasks, task, config, set(splits), name)
    ids = ", ".join(t["id"] for t in tasks)
    if len(fit) != 1:
        asked = f"a task {task!r}" if task else f"one task for {name or 'these results'}"
        raise InputError(
            f"{dataset} does not have {asked}: it has {ids}", f"say which: --leaderboard {dataset}#ID"
        )
    found = fit[0]
    return Board(dataset, found["id"], revision, title, found.get("config", ""), found.get("split", "test"))


def _read_definition(data: bytes, what: str) -> tuple[str, list[dict[str, str]]]:
    """Name of a benchmark, and {id, config, split} of its tasks."""
    found = load_yaml(data, what)
    tasks = found.get("tasks") if isinstance(found, dict) else None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(t, dict) for t in tasks):
        raise InputError(f"{what} has no list of tasks", "choose another benchmark")
    plain = []
    for entry in tasks:
        id_ = entry.get("id")
        if not isinstance(id_, str) or not _TASK.fullmatch(id_):
            raise InputError(f"{what} has a task without a usable id", "choose another benchmark")
        plain.append({"id": id_} | {k: str(entry[k]) for k in ("config", "split") if k in entry})
    return str(found.get("name") or ""), plain


def _fitting(
    tasks: list[dict[str, str]], task: str, config: str, splits: set[str], name: str
) -> list[dict[str, str]]:
    if task:
        return [t for t in tasks if t["id"] == task]
    config_fits = [t for t in tasks if not config or t.get("config", config) == config]
    same = [t for t in config_fits if not splits or t.get("split", "test") in splits]
    if len(tasks) == 1:
        # Another split or configuration is another set of problems, however alone the task stands.
        return same
    words = {name, name.replace(":", "_"), name.rpartition(":")[2]}
    silent = [t for t in config_fits if "split" not in t]
    # Of one that says no split, the name may tell.
    return same if len(same) == 1 else [t for t in same or silent if t["id"] in words]


def rows(access: Access, board: Board) -> list[DatasetLeaderboardEntry]:
    """Returns the board's lines, including those of models with a base model; empty if nobody has submitted."""
    from huggingface_hub.errors import EntryNotFoundError

    api = access.api()

    def ask() -> list[DatasetLeaderboardEntry]:
        try:
            return api.get_dataset_leaderboard(board.dataset, base_model_only=False)
        except EntryNotFoundError:
            return []

    return attempt(access, f"read the leaderboard of {board.dataset}", ask)


def choose_scale(
    access: Access, board: Board, asked: int = 0, lines: Iterable[DatasetLeaderboardEntry] | None = None
) -> Scale:
    """Returns whether a board counts to 1 or to 100: as asked, else by its entries, else by its dataset's card.

    Raises InputError if neither says, if they disagree, or if the scale asked for contradicts the entries.
    """
    lines = rows(access, board) if lines is None else lines
    # 0 is 0 on either scale.
    given = [line.value for line in lines if is_number(line.value)]
    values = [float(value) for value in given if value > 0]
    above = sum(value > 1 for value in values)
    card = _scale_of_card(access, board)
    found, entries = card, f"{len(values)} entries on the board, up to {max(values, default=0):g}"
    if above > len(values) / 2:
        found = Scale(100, entries)
    elif values and not asked:
        # A weak model can stand below 1 on a board to 100, but then most others do not.
        if above or (card and card.top == 100):
            raise InputError(
                f"it is not clear whether {board.dataset} counts to 1 or to 100: {entries}, {above} of them above 1"
                + (f", and {card.reason}" if card else ""),
                "look at the board, then say --scale 1 or --scale 100",
            )
        found = Scale(1, entries)
    if asked:
        if above > len(values) / 2 and asked == 1:
            raise InputError(f"{board.dataset} counts to 100 ({entries}), not to 1", "leave --scale out")
        return Scale(asked, "as asked")
    if found is None:
        raise InputError(
            f"nothing says whether {board.dataset} counts to 1 or to 100: no entries, and nothing in its card",
            "find out, then say --scale 1 or --scale 100",
        )
    return found


_RANGE: Final = re.compile(r"\b0(?:\.0)?\s*(?:-|–|to|and|\.\.)\s*(100|1)(?:\.0)?\b(?!\.\d)")


def _scale_of_card(access: Access, board: Board) -> Scale | None:
    """Returns the scale that a card states: "0 to 100", "0-1", or accuracies in percent."""
    try:
        path = download_file(board.dataset, "README.md", "dataset", board.revision, access)
    except HubError:
        return None
    text = path.read_text(encoding="utf-8", errors="replace")[:_LARGEST]
    scored = [
        line
        for line in text.splitlines()
        if re.search(r"accura|score|leaderboard|value", line, re.IGNORECASE)
    ]
    tops = {int(top) for line in scored for top in _RANGE.findall(line)}
    if len(tops) == 1:
        top = tops.pop()
        return Scale(top, f"the benchmark's card says 0 to {top}")
    if not tops and any(re.search(r"\d\s*%|percent", line) for line in scored):
        return Scale(100, "the benchmark's card gives scores in percent")
    return None


# Entries


def make_entry(
    board: Board,
    value: float,
    date: str,
    notes: str,
    source: Mapping[str, str] | None = None,
    revision: str = "",
) -> EvalResultEntry:
    """One result. `source` has url, name, and user or org; `revision` is the commit of the problems evaluated."""
    from huggingface_hub import EvalResultEntry

    entry = EvalResultEntry(
        dataset_id=board.dataset,
        task_id=board.task,
        value=value,
        dataset_revision=revision or None,
        date=date,
        notes=notes,
        **{f"source_{key}": text for key, text in (source or {}).items()},
    )
    check_entry(entry)
    return entry


def check_entry(entry: EvalResultEntry) -> None:
    """Raise InputError for an entry that a board would refuse or show wrongly; huggingface_hub does not check that."""

    def wrong(what: str) -> InputError:
        return InputError(
            f"the result for {str(entry.dataset_id)[:80]!r} has {what}", "nothing was submitted"
        )

    if (
        not isinstance(entry.dataset_id, str)
        or not is_repo_id(entry.dataset_id, owned=True)
        or ".." in entry.dataset_id
    ):
        raise wrong("no benchmark of the form org/name")
    if not isinstance(entry.task_id, str) or not _TASK.fullmatch(entry.task_id):
        raise wrong("no usable task id")
    value = entry.value
    if not is_number(value):
        raise wrong(f"no number as its value: {str(value)[:40]!r}")
    if not 0 <= value <= 100:
        raise wrong(f"the value {value:g}, which is outside 0 to 100")
    if entry.dataset_revision is not None and not re.fullmatch(r"[0-9a-f]{40}", str(entry.dataset_revision)):
        raise wrong("a revision that is no commit")
    if entry.date is not None and not _is_date(entry.date):
        raise wrong(f"the date {str(entry.date)[:40]!r}, which is not ISO 8601")
    if entry.source_url is not None and not is_address(str(entry.source_url)):
        raise wrong("a source that is no address")
    texts = (entry.source_name, entry.source_user, entry.source_org, entry.notes)
    for text in texts:
        if text is not None and (len(text) > _LONGEST_NOTES or re.search(r"[<>\x00-\x1f]", text)):
            raise wrong("a text with markup, line breaks or more than 500 characters")


def is_address(text: str) -> bool:
    """Returns whether a text is a web address that a board may link."""
    return _URL.fullmatch(text) is not None


def _is_date(text: Any) -> bool:
    try:
        (datetime if "T" in text else date).fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return True


def entry_yaml(entries: Iterable[EvalResultEntry | Mapping[str, Any]]) -> bytes:
    """Returns the file exactly as it is committed. Mappings are other people's entries, and stay as they are."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    plain = [
        eval_result_entries_to_yaml([e])[0] if isinstance(e, EvalResultEntry) else dict(e) for e in entries
    ]
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1000)
    return text.encode()
