"""What steps cost: how benchmarks/scale.py measures it, the laws that follow from several sizes, and the tables.

{1600: {"raw": Cost(cpu=1.0, …)}, 6400: {"raw": Cost(cpu=2.1, …)}} -> 0.23 ms a trace, …
"""

from __future__ import annotations

import json
import math
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

__all__ = ["FULL", "Cost", "costs_in", "laws", "measured", "show"]

FULL: Final = 283_000
"""Traces of a teacher in the paper."""
KINDS: Final = (
    "traces",
    "verify",
    "raw",
    "compress",
    "compressed",
    "control",
    "truncated",
    "matched",
    "tokens",
    "rows",
    "ready",
    "evaluation",
)


@dataclass
class Cost:
    """Of one attempt at a step, of a step, or of all shards of one."""

    cpu: float = 0
    peak: int = 0
    """Bytes of memory."""
    read: int = 0
    written: int = 0
    spans: tuple[tuple[float, float], ...] = ()
    """When it was at work, from and until."""

    @property
    def seconds(self) -> float:
        """Wall time; what was at work at the same time counts once."""
        total, last = 0.0, 0.0
        for begin, end in sorted(self.spans):
            total += max(0.0, end - max(begin, last))
            last = max(last, end)
        return total

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.cpu + other.cpu,
            max(self.peak, other.peak),
            self.read + other.read,
            self.written + other.written,
            (*self.spans, *other.spans),
        )

    @classmethod
    def of_step(cls, call: Path) -> Cost:
        """What all attempts at a step cost, those that were killed included."""
        attempts = (json.loads(path.read_text()) for path in call.parent.glob(f"{call.stem}.*.cost"))
        return sum((cls(**made | {"spans": tuple(map(tuple, made["spans"]))}) for made in attempts), cls())


@contextmanager
def measured(file: Path, whole: bool = True) -> Iterator[None]:
    """Write what this process and its children cost to a file, twice a second: with what it cost before, or without."""
    import psutil

    own, ended, started = psutil.Process(), threading.Event(), time.time()
    peak = 0
    children: dict[int, tuple[float, int, int]] = {}
    """Process -> CPU seconds, bytes read and written so far."""

    def mine() -> tuple[float, int, int]:
        usage, io = resource.getrusage(resource.RUSAGE_SELF), own.io_counters()
        return usage.ru_utime + usage.ru_stime, io.read_chars, io.write_chars

    before = (0, 0, 0) if whole else mine()

    def look() -> None:
        nonlocal peak
        total = 0
        for process in own.children(recursive=True):
            try:
                with process.oneshot():
                    # A page that processes share counts once: of one that has just been forked that is all pages.
                    total += process.memory_full_info().pss
                    times, io = process.cpu_times(), process.io_counters()
                    children[process.pid] = times.user + times.system, io.read_chars, io.write_chars
            except psutil.Error:
                continue
        total += own.memory_full_info().pss if total else 0
        peak = max(peak, total, _own_peak())
        all_of_it = zip(mine(), *children.values(), strict=True)
        cpu, read, written = (sum(found) - at for found, at in zip(all_of_it, before, strict=True))
        cost = Cost(cpu, peak, int(read), int(written), ((started, time.time()),))
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(cost)))
        temporary.replace(file)

    def watch() -> None:
        while not ended.wait(0.5):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    look()


def _own_peak() -> int:
    """Not getrusage's maxrss, which begins with the memory of the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def costs_in(folder: Path) -> tuple[dict[str, Cost], list[str]]:
    """Kind of step -> what all steps of this kind have cost so far; and steps that were begun and are not done."""
    costs: dict[str, Cost] = {}
    left: list[str] = []
    if (folder / "calls" / "ready.0.cost").is_file():
        costs["ready"] = Cost.of_step(folder / "calls" / "ready.json")
    for call in sorted((folder / "calls").glob("*.json")):
        told = json.loads(call.read_text())
        costs[told["kind"]] = costs.get(told["kind"], Cost()) + Cost.of_step(call)
        if not (folder / "runs" / "steps" / told["step"] / told["key"][:16] / "record.json").is_file():
            left.append(told["step"])
    return costs, left


def line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """(intercept, slope) of the least-squares line."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0
    return mean_y - slope * mean_x, slope


def laws(costs: dict[int, Cost]) -> dict[str, float]:
    """What follows from the costs of one step at several sizes."""
    sizes = sorted(costs)
    xs = [float(size) for size in sizes]

    def at(name: str, number: float) -> float:
        start, slope = line(xs, [float(getattr(costs[size], name)) for size in sizes])
        return max(0.0, start + slope * number)

    # A process that starts costs seconds whatever the size; the power is of what comes on top of the smallest size.
    growing = [(size, costs[size].cpu - costs[sizes[0]].cpu) for size in sizes[1:]]
    steps = [(math.log(size - sizes[0]), math.log(max(more, 1e-3))) for size, more in growing]
    power = line([x for x, _ in steps], [y for _, y in steps])[1] if len(steps) > 1 else 1.0
    return {
        "ms": line(xs, [costs[size].cpu for size in sizes])[1] * 1000,
        "power": power,
        "kb": line(xs, [float(costs[size].peak) for size in sizes])[1] / 1e3,
        "hours": at("cpu", FULL) / 3600,
        "gib": at("peak", FULL) / 2**30,
        "read": at("read", FULL) / 1e9,
        "written": at("written", FULL) / 1e9,
    }


def show(found: dict[int, dict[str, Cost]]) -> str:
    """The tables, in Markdown."""
    kinds = [kind for kind in KINDS if any(kind in costs for costs in found.values())]
    rows = [
        "| step | traces | s | CPU s | peak MiB | read MB | written MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        for size in sorted(found):
            if kind in found[size]:
                c = found[size][kind]
                rows.append(
                    f"| {kind} | {size:,} | {c.seconds:,.0f} | {c.cpu:,.0f} | {c.peak / 2**20:,.0f} "
                    f"| {c.read / 1e6:,.0f} | {c.written / 1e6:,.0f} |"
                )
    if len(found) > 1:
        rows += [
            "",
            f"| step | CPU ms a trace | CPU grows as n^ | memory kB a trace "
            f"| at {FULL:,}: CPU h | GiB | read GB | written GB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for kind in kinds:
            law = laws({size: costs[kind] for size, costs in found.items() if kind in costs})
            rows.append(
                f"| {kind} | {law['ms']:.2f} | {law['power']:.2f} | {law['kb']:.2f} | {law['hours']:.2f} "
                f"| {law['gib']:.2f} | {law['read']:.1f} | {law['written']:.1f} |"
            )
    return "\n".join(rows)
