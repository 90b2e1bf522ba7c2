"""lighteval's own layout of published details: `details_<org>__<model>`, as its --push-to-hub writes it.

    results_2026-11-24T06-24-06.json, details_gsm8k|0_2026-11-24T06-24-06.parquet
        -> results_<date>.json and .parquet at the root, <date>/details_gsm8k|0_<date>.parquet, and a README whose
           configurations `gsm8k_0` and `results` have a split per run (2026_11_24T06_24_06) and `latest`

hubkit has its own code for this, because lighteval's (EvaluationTracker.push_to_hub, 0.13.0) makes a commit per file
and reads the Hub's address at import.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import HubError, InputError
from hubkit.hub import Access, attempt
from hubkit.push import additions
from hubkit.release.text import markdown
from hubkit.section import is_repo_id

__all__ = ["configs", "details_folder", "details_repo", "push_details", "run_files"]

_DETAILS: Final = re.compile(r"details_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.parquet")
_RESULTS: Final = re.compile(r"results_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.parquet")
_LONGEST: Final = 96
"""Characters of a repo id."""


def details_repo(namespace: str, model: str) -> str:
    """Returns namespace/details_org__model. Raises InputError if the Hub does not take that."""
    name = f"{namespace}/details_{model.replace('/', '__')}"
    if not is_repo_id(name, owned=True):
        raise InputError(f"{namespace!r} is no namespace", "write the name of a user or an organisation")
    if len(name) > _LONGEST:
        raise InputError(f"{name} is longer than the Hub's {_LONGEST} characters", "use another namespace")
    return name


def details_folder(model: str, level: str | None) -> str:
    """Folder of a model's details in the evaluations of a release; a mixture's has one for each level of effort."""
    return f"details_{model.replace('/', '__')}" + (f"__{level}" if level else "")


def run_files(results: Path, details: Iterable[Path], folder: str = "") -> dict[str, Path | bytes]:
    """Returns the files of one run by their paths in the repo, below `folder` if there is one.

    Details files keep their names, which carry task and date; the results get the same date.
    """
    files: dict[str, Path | bytes] = {}
    dates = set()
    for path in details:
        match = _DETAILS.fullmatch(path.name)
        if match is None:
            raise InputError(
                f"{path.name} is no details file of lighteval", "give the folder of a finished run"
            )
        dates.add(match["date"])
        files[f"{folder}{match['date']}/{path.name}"] = path
    if len(dates) != 1:
        raise InputError(
            f"{results.name}: details of {len(dates)} runs lie beside it", "give the folder of one run"
        )
    date = dates.pop()
    text = results.read_text(encoding="utf-8")
    columns = {name: [json.dumps(part, indent=2)] for name, part in json.loads(text).items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    files[f"{folder}results_{date}.json"] = text.encode()
    files[f"{folder}results_{date}.parquet"] = sink.getvalue().to_pybytes()
    return files


def configs(names: Iterable[str], prefix: str = "") -> list[dict[str, Any]]:
    """Configurations of a card over the files of all runs: a split per date, and `latest` for the newest."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        base = name.rpartition("/")[2]
        if match := _DETAILS.fullmatch(base):
            found.setdefault(re.sub(r"\W", "_", match["task"]), {})[match["date"]] = name
        elif match := _RESULTS.fullmatch(base):
            found.setdefault("results", {})[match["date"]] = name
    return [
        {
            "config_name": f"{prefix}{config}",
            "data_files": [
                {"split": split, "path": [_literal(path)]}
                for split, path in [
                    *((re.sub(r"[^\w.]", "_", date), path) for date, path in runs.items()),
                    ("latest", runs[max(runs)]),
                ]
            ],
        }
        for config, runs in sorted(found.items(), key=lambda item: (item[0] == "results", item[0]))
    ]


def _literal(path: str) -> str:
    """datasets reads paths as glob patterns, where [ and * mean others."""
    return re.sub(r"([*?\[\]])", r"[\1]", path)


def push_details(access: Access, repo_id: str, model: str, files: Mapping[str, Path | bytes]) -> str:
    """Add a run to a details dataset, made where there is none, in one commit. Returns the page's address."""
    from huggingface_hub import DatasetCard, DatasetCardData

    api = access.api()
    attempt(
        access,
        f"create dataset {repo_id}",
        lambda: api.create_repo(repo_id, repo_type="dataset", exist_ok=True),
    )

    def commit() -> None:
        info = api.dataset_info(repo_id)
        there = {s.rfilename for s in info.siblings or []}
        if any(not name.startswith(".") and not _is_ours(name) for name in there):
            raise HubError(f"{repo_id} exists and holds other things than details", "use another namespace")
        data = DatasetCardData(
            pretty_name=f"Evaluation run of {model}",
            tags=["hubkit", "lighteval"],
            configs=configs(there | files.keys()),
        )
        config = data["configs"][0]["config_name"]
        values = {
            "title": data.pretty_name,
            "model": model,
            "snippet": "from datasets import load_dataset\n\n"
            f'details = load_dataset("{repo_id}", "{config}", split="latest")\n'
            'print(details[0]["metric"], details[0]["model_response"]["text"])',
        }
        card = str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{markdown('details.md', values)}"))
        api.create_commit(
            repo_id,
            additions({**files, "README.md": card.encode()}),
            commit_message=f"Details of {model}",
            repo_type="dataset",
            parent_commit=info.sha,
        )

    attempt(access, f"push dataset {repo_id}", commit)
    return f"{access.endpoint.rstrip('/')}/datasets/{repo_id}"


def _is_ours(name: str) -> bool:
    base = name.rpartition("/")[2]
    return name == "README.md" or bool(
        _DETAILS.fullmatch(base) or re.fullmatch(r"results_.+\.(json|parquet)", base)
    )
