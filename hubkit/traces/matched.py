"""Selects the traces that every variant has, on which students train.

    raw has (x, 0), (x, 1), (y, 0); compressed lost (x, 1)  ->  matched.parquet: (x, 0), (y, 0)

So all students see the same problems the same number of times, and differ in the form of the trace
alone. Without this a variant that drops hard problems would train on easier ones.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from hubkit.errors import GateError
from hubkit.records import read_rows, write_rows
from hubkit.store import StepContext

__all__ = ["VERSION", "run"]

VERSION: Final = 1
SCHEMA: Final = pa.schema([("id", pa.string()), ("sample", pa.int32())])


def run(context: StepContext) -> None:
    """Write matched.parquet in the order of the first variant."""
    keys = [
        [(row["id"], row["sample"]) for row in read_rows(folder / "data.parquet", columns=SCHEMA.names)]
        for _, folder in sorted(context.inputs.items())
    ]
    common = set(keys[0]).intersection(*keys[1:])
    if not common:
        raise GateError(
            f"{context.step}: the variants share no trace", "look at the counts of dropped traces"
        )
    rows = [{"id": id_, "sample": sample} for id_, sample in keys[0] if (id_, sample) in common]
    context.count("kept", write_rows(context.out / "matched.parquet", rows, SCHEMA))
    context.metrics["problems"] = len({id_ for id_, _ in common})
