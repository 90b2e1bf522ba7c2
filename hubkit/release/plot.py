"""Accuracy against output length, one panel per benchmark, with 95 % intervals."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

from hubkit.release.results import Row, variant_order
from hubkit.traces.variants import BASE_COLOUR, BASE_LABEL, VARIANTS

__all__ = ["png", "svg"]

_MARKERS: Final = "osD^vP"


def svg(rows: list[Row]) -> str:
    """The plot as an <svg> element; the same rows give the same text."""
    buffer = io.StringIO()
    _draw(rows, lambda figure: figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def png(rows: list[Row]) -> bytes:
    """The plot as a PNG; the same rows give the same bytes."""
    buffer = io.BytesIO()
    _draw(rows, lambda figure: figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None}))
    return buffer.getvalue()


def _draw(rows: list[Row], save: Callable[[Any], None]) -> None:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    bases = list(dict.fromkeys(row["base"] for row in rows))
    # Without pyplot nothing is global; the salt makes the SVG's ids the same every time.
    with matplotlib.rc_context({"svg.hashsalt": "hubkit", "font.size": 10}):
        figure = Figure(figsize=(7.2, 4.0 * max(1, len(benchmarks)) + 1.2), layout="constrained")
        panels = figure.subplots(max(1, len(benchmarks)), 1, squeeze=False)[:, 0]
        labels: dict[str, Any] = {}
        for axis, benchmark in zip(panels, benchmarks, strict=False):
            for row in sorted((r for r in rows if r["benchmark"] == benchmark), key=_legend_order):
                label = _label(row)
                colour = VARIANTS[row["kind"]].colour if row["kind"] else BASE_COLOUR
                drawn = axis.errorbar(
                    max(row["mean_output_tokens"], 1),
                    row["accuracy"],
                    yerr=[[row["accuracy"] - row["ci_low"]], [row["ci_high"] - row["accuracy"]]],
                    fmt=_MARKERS[bases.index(row["base"]) % len(_MARKERS)],
                    color=colour,
                    # Hollow for adapters.
                    markerfacecolor="white" if row["adapter"] else colour,
                    markersize=8,
                    capsize=3,
                    linewidth=1.2,
                )
                labels.setdefault(label, drawn)
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.set_ylim(bottom=0)
            axis.set_xlabel("mean output tokens (log scale)")
            axis.set_ylabel("accuracy, 95 % CI")
            axis.set_title(benchmark, loc="left")
            axis.grid(True, alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        if labels:
            figure.legend(
                list(labels.values()), list(labels), loc="outside lower center", ncols=2, fontsize=8
            )
        save(figure)


def _legend_order(row: Row) -> tuple[Any, ...]:
    return (row["base"], variant_order(row), row["method"] or "")


def _label(row: Row) -> str:
    parts = [row["base"], row["variant"] or BASE_LABEL, row["method"] or ""]
    return ", ".join(part for part in parts if part)
