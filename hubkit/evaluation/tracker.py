"""lighteval's record of an evaluation, with details that are written row by row.

results/…/results_….json as lighteval writes it; details/…/details_<task>_….parquet with its columns and types:
{"doc": {"query": "…", …}, "metric": {"accuracy": 1.0}, "model_response": {"text": ["<think>\\n…"], …}}

lighteval's own (0.13.0, EvaluationTracker.save) makes Python values of all details, and Arrow data of these, before it
writes the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.records import CHUNKING

__all__ = ["open_tracker"]

BATCH: Final = 64
"""Details held at the same time."""


def open_tracker(output: Path) -> Any:
    """lighteval's tracker for results and details in a folder."""
    from lighteval.logging.evaluation_tracker import EvaluationTracker

    class Tracker(EvaluationTracker):  # type: ignore[misc,unused-ignore]
        def save(self) -> None:
            date = datetime.now().isoformat().replace(":", "-")
            self.save_results(date, self.results)
            folder = Path(self._get_details_sub_folder(date))
            folder.mkdir(parents=True, exist_ok=True)
            for task, details in self.details_logger.details.items():
                _write(folder / f"details_{task}_{date}.parquet", details)

    return Tracker(output_dir=str(output), save_details=True)


def _write(path: Path, details: list[Any]) -> None:
    from datasets import Dataset, Features

    # The types depend on all rows, so these are read once before.
    schemas = [Dataset.from_list(batch).features.arrow_schema for batch in _batches(details)]
    schema = pa.unify_schemas([s.remove_metadata() for s in schemas], promote_options="permissive")
    features = Features.from_arrow_schema(pa.schema(sorted(schema, key=lambda field: field.name)))
    schema = features.arrow_schema
    with pq.ParquetWriter(path, schema, use_content_defined_chunking=CHUNKING, write_page_index=True) as file:
        file.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})
        for batch in _batches(details):
            file.write_table(pa.Table.from_pylist(batch, schema=schema))


def _batches(details: list[Any]) -> Iterator[list[dict[str, Any]]]:
    rows = (asdict(detail) for detail in details)
    while batch := list(islice(rows, BATCH)):
        yield batch
