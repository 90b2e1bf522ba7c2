"""The steps at size: laws of time and memory, and kills. What is measured, and how, is benchmarks/scale.py's to say."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import MODELS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

STEPS = ["truncated", "rows"]
SIZES = SMALL, MIDDLE, LARGE = 2000, 7500, 20000
"""Traces. From the middle size on row groups of 64 MB are full and all processes run; before, peaks rise much."""
PER_TRACE = 4_000
"""Bytes of memory that a step may take for a further trace: 1.1 GiB for 283,000. The text of one has 23,000."""
NOISE = 150 << 20
"""Bytes by which peaks differ all the same: allocators keep what was freed, and groups of short traces still fill."""
KEEPING = """
import hubkit.records

kept, add = [], hubkit.records.RowWriter.add
hubkit.records.RowWriter.add = lambda self, row: kept.append(row) or add(self, row)
"""


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("SCALE_CHARACTERS", "800")  # short traces, where texts do not matter
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scale", module)
    spec.loader.exec_module(module)
    return module


MEASURED = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from scale_costs import measured

with measured(Path(sys.argv[2])):
    pass
"""


def test_a_peak_is_that_of_the_process_itself(tmp_path: Path) -> None:
    """Not of the one that started it, beside which a step's growth would not show."""
    ballast = b"x" * (300 << 20)
    file = tmp_path / "cost.json"
    subprocess.run([sys.executable, "-c", MEASURED, str(ROOT / "benchmarks"), str(file)], check=True)
    assert 0 < json.loads(file.read_text())["peak"] < len(ballast)


def grown(found: dict[int, dict[str, Any]], kind: str) -> int:
    """Bytes by which a step's peak rises from the middle to the large size, above what it may."""
    peaks = {size: found[size][kind].peak for size in (MIDDLE, LARGE)}
    return int(peaks[LARGE] - peaks[MIDDLE] - PER_TRACE * (LARGE - MIDDLE) - NOISE)


def test_time_is_linear_and_memory_flat(
    scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALE_CHARACTERS", "15000")
    found = {}
    for size in SIZES:
        scale.run_size(tmp_path / str(size), size, MODELS / "student-s", 1, STEPS, print, workers=2)
        found[size], left = scale.costs_in(tmp_path / str(size))
        shutil.rmtree(tmp_path / str(size))
        assert not left
    print(scale.show(found))
    kinds = found[SMALL].keys()
    assert {"traces", "raw", "compress", "compressed", "truncated", "matched", "tokens", "rows"} <= kinds
    for kind in kinds - {"problems", "contamination"}:
        cost = {size: found[size][kind] for size in SIZES}
        # Of a step that takes no time at these sizes the power is that of noise.
        if cost[MIDDLE].cpu - cost[SMALL].cpu > 1 and cost[LARGE].cpu - cost[MIDDLE].cpu > 3:
            law = importlib.import_module("scale_costs").laws(cost)
            assert law["power"] < 1.35, (kind, law)
        assert grown(found, kind) < 0, (kind, cost)


def test_a_step_that_keeps_its_rows_is_found(
    scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law of memory notices one copy of each text."""
    (tmp_path / "sitecustomize.py").write_text(KEEPING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("SCALE_CHARACTERS", "15000")
    found = {}
    for size in (MIDDLE, LARGE):
        scale.run_size(tmp_path / str(size), size, MODELS / "student-s", 1, ["traces"], print)
        found[size] = scale.costs_in(tmp_path / str(size))[0]
    print(scale.show(found))
    assert grown(found, "traces") > 0, found


def test_an_evaluation_holds_none_of_its_answers(scale: ModuleType, tmp_path: Path) -> None:
    peaks = {}
    for size in (100, 700):
        scale.run_size(
            tmp_path / str(size), 1, MODELS / "student-s", 1, ["evaluation/s/test"], print, tests=size
        )
        peaks[size] = scale.costs_in(tmp_path / str(size))[0]["evaluation"].peak
    # Answers have 100 kB. Some 64 MB of them are written together; lighteval alone held 1.4 MB for each.
    assert (peaks[700] - peaks[100]) / 600 < 400_000, peaks


def test_steps_that_are_killed_make_the_same_files(scale: ModuleType, tmp_path: Path) -> None:
    """SCALE_TRACES=24000 does it at that size."""
    traces, said = int(os.environ.get("SCALE_TRACES", "1500")), list[str]()

    def say(text: str) -> None:
        print(text, flush=True)
        said.append(text)

    outputs = [
        scale.run_size(tmp_path / name, traces, MODELS / "student-s", 1, STEPS, say, kills=kills)
        for name, kills in (("whole", 0), ("killed", 2))
    ]
    assert outputs[0] == outputs[1]
    assert {"traces/t/0", "raw/t", "compress/t/c/0", "truncated/t/c"} <= outputs[0].keys()
    killed = {text.split(":")[0].split("/")[0].strip() for text in said if "killed at" in text}
    assert {"traces", "raw", "compress", "tokens"} <= killed
