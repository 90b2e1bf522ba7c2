"""Histograms of the lengths of traces, for the report; drawn as the figure is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hubkit.release.plot import NARROW, THEMES, WIDE, Theme, colour_of, drawn, logarithmic, style
from hubkit.traces.variants import Variant

__all__ = ["lengths"]


def lengths(tokens: Mapping[tuple[str, Variant], Sequence[int]]) -> dict[str, bytes]:
    """Histograms of trace lengths, a panel per teacher and compressor, named `light.svg`, `dark-narrow.svg`, ….

    `tokens`: (teacher, variant) -> tokens of each trace. The axis is logarithmic; variants share their bins.
    """
    found = {}
    for theme in THEMES:
        for narrow in (False, True):
            text = drawn(functools.partial(_histograms, tokens, theme, narrow))
            found[f"{theme}{'-narrow' if narrow else ''}.svg"] = text.encode()
    return found


def _histograms(
    tokens: Mapping[tuple[str, Variant], Sequence[int]],
    theme: Theme,
    narrow: bool,
    save: Callable[[Any], None],
) -> None:
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    panels = _panels(tokens)
    every = [max(1, n) for values in tokens.values() for n in values] or [1, 2]
    bins = np.geomspace(min(every), max(every) + 1, 41)
    with matplotlib.rc_context(style(theme, f"lengths-{theme}-{narrow}")):
        size = (NARROW if narrow else WIDE, 2.6 * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axis, (title, variants) in zip(axes, panels.items(), strict=True):
            for variant, values in variants.items():
                axis.hist(
                    np.maximum(values, 1),
                    bins,
                    histtype="step",
                    color=colour_of(variant.kind, theme),
                    label=variant.kind,
                    linewidth=1.6,
                    # Controls have the lengths of what they are cut to: a dashed line stays visible on another.
                    linestyle="--" if variant.row.matched else "-",
                )
            logarithmic(axis.xaxis)
            axis.set_ylabel("traces")
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(title, loc="left", fontsize=10)
            axis.legend(fontsize=9, frameon=False)
        axes[-1].set_xlabel("tokens of reasoning (log scale)")
        save(figure)


def _panels(
    tokens: Mapping[tuple[str, Variant], Sequence[int]],
) -> dict[str, dict[Variant, Sequence[int]]]:
    """Title -> variants: for each teacher and compressor its variants, beside those that are of no compressor."""
    teachers = list(dict.fromkeys(teacher for teacher, _ in tokens))
    panels: dict[str, dict[Variant, Sequence[int]]] = {}
    for teacher in teachers:
        own = {variant: values for (of, variant), values in tokens.items() if of == teacher}
        compressors = list(dict.fromkeys(v.compressor for v in own if v.compressor)) or [""]
        for compressor in compressors:
            parts = [teacher] * (len(teachers) > 1) + [compressor] * (len(compressors) > 1)
            found = {v: values for v, values in own.items() if v.compressor in ("", compressor)}
            panels[", ".join(parts)] = found
    return panels or {"": {}}
