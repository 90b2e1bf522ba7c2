"""Evaluation results: `.eval_results/*.yaml` of a model, and the leaderboard of a benchmark dataset.

A model's file is a list of entries, https://huggingface.co/docs/hub/eval-results:

    - dataset: {id: local/nano-math, task_id: nano-math}   # both required; revision: <sha>
      value: 41.2                                          # required, a number
      date: '2026-11-24T06:24:06Z'
      source: {url: https://…, name: lighteval, user: me, org: us}   # url required when there is a source
      notes: greedy, 0-shot
      verifyToken: …
      evaluation_framework: …                              # the benchmark's own

A dataset is a benchmark when it has an `eval.yaml` with a list of tasks, each with an `id`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Final

import yaml
from starlette.responses import JSONResponse, Response

from hubkit.localhub.api.request import ApiRequest
from hubkit.localhub.storage.accounts import is_org
from hubkit.localhub.storage.cards import as_json, load_yaml, parse_card, validate
from hubkit.localhub.storage.errors import ApiError, check_repo_name
from hubkit.localhub.storage.objects import Entry
from hubkit.localhub.storage.store import Commit, Repo, Store, Tree

__all__ = [
    "LARGEST",
    "check_file",
    "entries_of",
    "is_benchmark",
    "is_checked",
    "is_results_file",
    "leaderboard",
    "ranking",
]

LARGEST: Final = 1 << 20
_FILE: Final = re.compile(r"\.eval_results/[^/]+\.ya?ml")
_DATASET_KEYS: Final = {"id", "task_id", "revision"}
_SOURCE_KEYS: Final = {"url", "name", "user", "org"}
_KEYS: Final = {"dataset", "value", "date", "source", "notes", "verifyToken", "evaluation_framework"}


def is_results_file(kind: str, path: str) -> bool:
    return kind == "model" and _FILE.fullmatch(path) is not None


# What a commit may contain


def is_checked(kind: str, path: str) -> bool:
    return path == "README.md" or is_results_file(kind, path) or (kind, path) == ("dataset", "eval.yaml")


def check_file(kind: str, path: str, data: bytes) -> None:
    """Refuse a commit whose card, results or benchmark definition nobody could read."""
    if path == "README.md" and (errors := validate(data.decode("utf-8", "replace"))[0]):
        raise ApiError(400, f"README.md: {'; '.join(errors)}", "InvalidMetadata")
    try:
        if is_results_file(kind, path):
            _check_results(data)
        elif (kind, path) == ("dataset", "eval.yaml"):
            _tasks(data)
    except ValueError as error:
        raise ApiError(400, f"{path}: {error}", "InvalidEvalResults") from None


def _yaml(data: bytes) -> Any:
    if len(data) > LARGEST:
        raise ValueError(f"longer than {LARGEST} bytes")
    try:
        return load_yaml(data.decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"invalid YAML: {error}") from None


def _check_results(data: bytes) -> list[dict[str, Any]]:
    entries = _yaml(data)
    if not isinstance(entries, list) or not entries:
        raise ValueError("must be a list of results")
    for number, entry in enumerate(entries, 1):
        try:
            _check_entry(entry)
        except ValueError as error:
            raise ValueError(f"result {number}: {error}") from None
    return [as_json(entry) for entry in entries]


def _check_entry(entry: Any) -> None:
    _check_keys("a result", entry, _KEYS)
    dataset = entry.get("dataset")
    _check_keys("dataset", dataset, _DATASET_KEYS)
    for key in ("id", "task_id"):
        if not isinstance(dataset.get(key), str) or not dataset[key]:
            raise ValueError(f"dataset.{key} is required and must be a text")
    try:
        check_repo_name(dataset["id"])
    except ApiError:
        raise ValueError(f"dataset.id must be namespace/name, not {dataset['id']!r}") from None
    if not re.fullmatch(r"[0-9a-f]{7,40}", str(dataset.get("revision", "0" * 40))):
        raise ValueError("dataset.revision must be a commit id")
    value = entry.get("value")
    # Compared, for an integer may be longer than any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ValueError("value is required and must be a number")
    if "date" in entry and not _is_date(entry["date"]):
        raise ValueError(f"date must be an ISO 8601 date, not {entry['date']!r}")
    if "source" in entry:
        source = entry["source"]
        _check_keys("source", source, _SOURCE_KEYS)
        if not str(source.get("url", "")).startswith(("https://", "http://")):
            raise ValueError("source.url is required and must be an address")
        if not all(isinstance(text, str) for text in source.values()):
            raise ValueError("source must have texts only")
    for key in ("notes", "verifyToken", "evaluation_framework"):
        if not isinstance(entry.get(key, ""), str):
            raise ValueError(f"{key} must be a text")


def _check_keys(what: str, value: Any, known: set[str]) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping")
    if unknown := value.keys() - known:
        raise ValueError(f"{what} has unknown keys: {', '.join(sorted(map(str, unknown)))}")


def _is_date(value: Any) -> bool:
    if isinstance(value, date):  # YAML's own timestamps, and datetimes with them
        return True
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _tasks(data: bytes) -> list[dict[str, Any]]:
    benchmark = _yaml(data)
    if not isinstance(benchmark, dict):
        raise ValueError("must be a mapping")
    tasks = benchmark.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise ValueError("tasks is required and must be a list")
    for task in tasks:
        if not isinstance(task, dict) or not isinstance(task.get("id"), str) or not task["id"]:
            raise ValueError("each task needs an id")
    return [as_json(task) for task in tasks]


# What is shown


def is_benchmark(store: Store, tree: Tree) -> bool:
    return bool(_task_ids(store, tree))


def _task_ids(store: Store, tree: Tree) -> list[str]:
    definition = tree.get("eval.yaml")
    if definition is None or definition.size > LARGEST:
        return []
    try:
        return [task["id"] for task in _tasks(store.objects.read(definition))]
    except ValueError:  # from before the file was checked: a commit may be older than the rule
        return []


def entries_of(store: Store, tree: Tree) -> list[dict[str, Any]]:
    """evalResults of a model: one item per entry, or one with its error for a file that is wrong."""
    found: list[dict[str, Any]] = []
    for path, entry in sorted(tree.items()):
        if _FILE.fullmatch(path) and entry.size <= LARGEST:
            found += _entries_of_file(store, path, entry)
    return found


def _entries_of_file(store: Store, path: str, entry: Entry) -> list[dict[str, Any]]:
    try:
        results = _check_results(store.objects.read(entry))
    except ValueError as error:
        return [{"filename": path, "error": str(error)}]
    # Nothing here can prove a verifyToken: no result counts as verified.
    return [{"filename": path, "verified": False, "data": result} for result in results]


def _submissions(request: ApiRequest, repo: Repo) -> Iterator[tuple[Commit, int | None]]:
    """A model's main branch, then its open pull requests, whose results count as well."""
    yield request.store.head(repo, "refs/heads/main"), None
    for ref, _ in request.store.refs(repo):
        if ref.startswith("refs/pr/"):
            number = int(ref.removeprefix("refs/pr/"))
            rows = request.store.rows(
                "SELECT 1 FROM discussions WHERE repo = ? AND num = ? AND json_extract(data, '$.status') = 'open'",
                repo.id, number,
            )  # fmt: skip
            if rows:
                yield request.store.head(repo, ref), number


def ranking(request: ApiRequest, dataset: Repo) -> list[dict[str, Any]]:
    """The leaderboard, best first: each model once per task, by its best result on main or in an open pull request."""
    tasks = _task_ids(request.store, request.store.tree(request.store.head(dataset, "refs/heads/main")))
    if not tasks:
        raise ApiError(404, f"{dataset.name} has no eval.yaml, and so no leaderboard", "EntryNotFound")
    wanted = request.query.get("task_id", tasks)
    roots_only = request.query.get("base_model", ["true"])[0].lower() in ("true", "1")
    best: dict[str, dict[str, Any]] = {}
    for repo in request.store.repos("model"):
        if not request.who.may_read(repo):
            continue
        for commit, number in _submissions(request, repo):
            tree = request.store.tree(commit)
            if roots_only and _has_base(request.store, tree):
                continue
            for item in entries_of(request.store, tree):
                data = item.get("data")
                if data is None or data["dataset"]["id"].lower() != dataset.name.lower():
                    continue
                if data["dataset"]["task_id"] not in wanted:
                    continue
                if repo.name not in best or data["value"] > best[repo.name]["value"]:
                    best[repo.name] = _line(request.store, repo, item, number)
    lines = sorted(best.values(), key=lambda line: (-line["value"], line["modelId"]))
    return [{"rank": rank, **line} for rank, line in enumerate(lines, 1)]


def _line(store: Store, repo: Repo, item: dict[str, Any], number: int | None) -> dict[str, Any]:
    data = item["data"]
    owner = repo.name.split("/")[0]
    line = {
        "modelId": repo.name,
        "value": data["value"],
        "filename": item["filename"],
        "verified": item["verified"],
        "author": {"name": owner, "fullname": owner, "avatarUrl": "", "type": _account(store, owner)},
    }
    if "source" in data:
        line["source"] = {**data["source"], "isExternal": True}
    if "notes" in data:
        line["notes"] = data["notes"]
    if number is not None:
        line["pullRequest"] = number
    return line


def _account(store: Store, name: str) -> str:
    return "org" if is_org(store, name) else "user"


def _has_base(store: Store, tree: Tree) -> bool:
    readme = tree.get("README.md")
    if readme is None or readme.size > LARGEST:
        return False
    return bool(parse_card(store.objects.read(readme).decode("utf-8", "replace")).get("base_model"))


def leaderboard(request: ApiRequest) -> Response:
    if request.kind != "dataset":
        raise request.not_implemented()
    request.check_query("base_model", "task_id")
    return JSONResponse(ranking(request, request.repo()))
