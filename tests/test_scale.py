"""The steps at size: laws of time and memory, and kills. What is measured, and how, is benchmarks/scale.py's to say."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support import MODELS, ROOT

from hubkit.records import GROUP_BYTES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

STEPS = ["truncated", "rows"]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv(
        "SCALE_CHARACTERS", "800"
    )  # short traces: what matters is how things grow with their number
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scale", module)
    spec.loader.exec_module(module)
    return module


def test_time_is_linear_and_memory_flat(scale: ModuleType, tmp_path: Path) -> None:
    sizes = small, middle, large = 1000, 4000, 12000
    found = {}
    for size in sizes:
        scale.run_size(tmp_path / str(size), size, MODELS / "student-s", 1, STEPS, print)
        found[size], left = scale.costs_in(tmp_path / str(size))
        assert not left
    kinds = found[small].keys()
    assert {"traces", "raw", "compress", "compressed", "truncated", "matched", "tokens", "rows"} <= kinds
    for kind in kinds - {"problems", "contamination"}:
        cost = {size: found[size][kind] for size in sizes}
        # Of a step that takes no time at these sizes the power is that of noise.
        if cost[middle].cpu - cost[small].cpu > 1 and cost[large].cpu - cost[middle].cpu > 3:
            law = scale.laws(cost)
            assert law["power"] < 1.35, (kind, law)
        # 2.2 GiB over 283,000 traces, and a row group of 64 MB that fills meanwhile. From the small to the middle
        # size other buffers fill, and a second process starts.
        grown = cost[large].peak - cost[middle].peak
        assert grown < 8_500 * (large - middle) + GROUP_BYTES, (kind, grown)


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
