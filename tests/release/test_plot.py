"""The figure with many variants: each mark can be told by its key, and stands where its numbers say."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from hubkit.release import plot
from hubkit.release.histograms import lengths
from hubkit.release.results import RESULTS_SCHEMA
from hubkit.traces.variants import VARIANTS, Variant

COMPRESSORS = ("rewrite-with-a-name-that-is-much-longer-than-any-legend", "prune", "step-prune")


def row(base: str, variant: Variant | None, method: str, accuracy: float, tokens: float) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(RESULTS_SCHEMA.names)
    found |= {
        "student": f"{base}-{variant}",
        "base": base,
        "benchmark": "sums",
        "accuracy": accuracy,
        "seed": 0,
    }
    found |= {"ci_low": accuracy - 0.05, "ci_high": accuracy + 0.05, "mean_output_tokens": tokens}
    if variant:
        found |= {"variant": variant.name, "kind": variant.kind, "compressor": variant.compressor or None}
        found |= {"teacher": "sage", "method": method}
    return found


def variants() -> list[Variant]:
    """Thirteen: raw, and all kinds of three compressors' but one."""
    kinds = [kind for kind, about in VARIANTS.items() if about.of_compressor]
    return [Variant("raw"), *(Variant(kind, name) for name in COMPRESSORS for kind in kinds[:4])]


def rows() -> list[dict[str, Any]]:
    """Two bases and two methods; half of the marks would cover each other."""
    found = [row(base, None, "", 0.2, 30) for base in ("Qwen3-4B", "Llama-3.2-3B-Instruct")]
    for base in ("Qwen3-4B", "Llama-3.2-3B-Instruct"):
        for method in ("full", "lora"):
            for number, variant in enumerate(variants()):
                tokens = 4000 if variant.kind == "raw" else 400 + 20 * (number % 3)
                found.append(row(base, variant, method, 0.8 - 0.02 * (number % 7), tokens))
    return found


def drawn(narrow: bool, theme: plot.Theme = "light") -> Any:
    figures: list[Any] = []
    plot._draw(rows(), theme, narrow, figures.append)
    (figure,) = figures
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("narrow", [True, False])
def test_the_key_fits_and_names_everything(narrow: bool) -> None:
    figure = drawn(narrow)
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 - 1
    # Thirteen variants of two bases by two methods: too many for one panel.
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "sums, Qwen3-4B",
        "sums, Llama-3.2-3B-Instruct",
    ]
    axis = figure.axes[-1]
    assert axis.get_tightbbox().y0 >= box.y1 - 1, "the key covers the panel"
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names))
    for kind in {variant.kind for variant in variants()} | {
        "untrained",
        "prune",
        "step-prune",
        "Pareto front",
    }:
        assert kind in names
    assert any(name.startswith("rewrite-with-a-") and "…" in name for name in names)


def test_compressors_are_told_apart_by_number_and_kinds_by_colour() -> None:
    numbers = [text.get_text() for axis in drawn(False).axes for text in axis.texts]
    assert {"1", "2", "3"} == set(numbers)
    assert len(numbers) == sum(1 for r in rows() if r["compressor"])
    for theme in ("light", "dark"):
        colours = {plot.colour_of(kind, theme) for kind in VARIANTS}
        assert len(colours) == len(VARIANTS)


@pytest.mark.parametrize("narrow", [True, False])
def test_a_mark_stands_where_its_length_is(narrow: bool) -> None:
    """Moved aside by at most two widths, however many would cover each other."""
    figure = drawn(narrow)
    axis = figure.axes[0]
    true = sorted(r["mean_output_tokens"] for r in rows())
    marks = list(axis.containers)
    assert len(marks) == len(true) / 2
    widths = []
    for bars in marks:
        x = float(bars.lines[0].get_xdata()[0])
        at = axis.transData.transform((x, 0.5))[0]
        nearest = min(abs(axis.transData.transform((t, 0.5))[0] - at) for t in true)
        widths.append(nearest / (plot._APART * figure.dpi / 72))
    assert max(widths) <= 2.3 and math.isclose(min(widths), 0, abs_tol=0.05)


def test_lengths_of_several_compressors_have_a_panel_each() -> None:
    tokens = {("sage", variant): [10, 20, 400] for variant in variants()}
    for name, svg in lengths(tokens).items():
        assert re.search(r"(light|dark)(-narrow)?\.svg", name)
        assert svg.decode().count('id="axes_') == len(COMPRESSORS)


@pytest.mark.parametrize("highest", [0.01, 0.04, 0.13, 0.3, 0.95])
def test_ticks_read_as_they_stand(highest: float) -> None:
    """Where all accuracies are small, the lines between whole percents would be read as whole ones."""
    few = [row("m", Variant("raw"), "full", at, 300) for at in (0.0, highest)]
    figures: list[Any] = []
    plot._draw(few, "light", False, figures.append)
    figures[0].draw_without_rendering()
    axis = figures[0].axes[0]
    low, high = axis.get_ylim()
    ticks = [
        (at, t.get_text())
        for at, t in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
        if low <= at <= high
    ]
    assert len(ticks) > 2
    for at, text in ticks:
        assert float(text.rstrip("%")) / 100 == pytest.approx(at)
