"""Accuracy against output length: the one figure that README, cards, report and Space show.

One panel per benchmark and teacher. Colour is the variant, shape the method, fill the base. A line joins the raw
and the compressed student that differ in nothing else; the dashed line is the Pareto front: no student is both
shorter and better. Bars are 95 % intervals, or the range over seeds where there are several.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from hubkit.release.results import Row
from hubkit.traces.variants import BASE_COLOUR, BASE_LABEL, VARIANTS, Variant

__all__ = ["FIGURES", "Theme", "figures", "lengths", "png", "svg"]

Theme = Literal["light", "dark"]
FIGURES: Final = (
    "tradeoff.png",
    "tradeoff-light.svg",
    "tradeoff-dark.svg",
    "tradeoff-light-narrow.svg",
    "tradeoff-dark-narrow.svg",
)
"""Files that `figures` gives: a picture for Markdown, and drawings for pages, which know theme and width."""

_MARKERS: Final = "osDv^P*"
_FILLS: Final = ("full", "none", "left", "top", "right", "bottom")
_INKS: Final[dict[Theme, dict[str, str]]] = {
    "light": {"ink": "#1c2024", "soft": "#60646c", "line": "#d9d9e0", "ground": "#ffffff"},
    "dark": {"ink": "#edeef0", "soft": "#b0b4ba", "line": "#43484e", "ground": "#18191b"},
}
_LIGHTER: Final = {"#0072B2": "#4aa8e0"}
"""Of Okabe and Ito's colours, the one that is too dark on a dark ground."""
_WIDE: Final = 7.6
_NARROW: Final = 3.9
"""Inches. Text is 10 points in both, so that a phone's 360 pixels show it as large as a page does."""
_APART: Final = 9.0
"""Points between two marks that would cover each other."""


class _Mark(NamedTuple):
    """One student, or the mean over its seeds."""

    panel: tuple[str, str]
    base: str
    method: str | None
    variant: str | None
    kind: str | None
    x: float
    y: float
    low: float
    high: float
    seeds: int


def figures(rows: list[Row]) -> dict[str, bytes]:
    """File name -> content, for all of FIGURES."""
    found = {"tradeoff.png": png(rows)}
    for theme in _INKS:
        for narrow in (False, True):
            name = f"tradeoff-{theme}{'-narrow' if narrow else ''}.svg"
            found[name] = svg(rows, theme, narrow).encode()
    return found


def svg(rows: list[Row], theme: Theme = "light", narrow: bool = False) -> str:
    """The figure as an <svg> element, its ground transparent; the same rows give the same text."""
    return _svg(functools.partial(_draw, rows, theme, narrow))


def _svg(draw: Callable[[Callable[[Any], None]], None]) -> str:
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None}
    draw(lambda figure: figure.savefig(buffer, format="svg", metadata=metadata, transparent=True))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def png(rows: list[Row], theme: Theme = "light") -> bytes:
    """The figure as a PNG; the same rows give the same bytes."""
    buffer = io.BytesIO()
    _draw(
        rows,
        theme,
        False,
        lambda figure: figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None}),
    )
    return buffer.getvalue()


def lengths(tokens: Mapping[tuple[str, Variant], Sequence[int]]) -> dict[str, bytes]:
    """Histograms of trace lengths, a panel per teacher, as `light.svg`, `dark.svg`, `light-narrow.svg`, ….

    `tokens`: (teacher, variant) -> tokens of each trace. The axis is logarithmic; variants share their bins.
    """
    found = {}
    for theme in _INKS:
        for narrow in (False, True):
            text = _svg(functools.partial(_histograms, tokens, theme, narrow))
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
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    teachers = list(dict.fromkeys(teacher for teacher, _ in tokens))
    every = [max(1, n) for values in tokens.values() for n in values] or [1, 2]
    bins = np.geomspace(min(every), max(every) + 1, 41)
    with matplotlib.rc_context(_style(theme, f"lengths-{theme}-{narrow}")):
        size = (_NARROW if narrow else _WIDE, 2.6 * max(1, len(teachers)))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(max(1, len(teachers)), 1, squeeze=False, sharex=True)[:, 0]
        for axis, teacher in zip(axes, teachers, strict=False):
            for (owner, variant), values in tokens.items():
                if owner == teacher:
                    colour, label = _colour(variant.kind, theme), variant.kind if narrow else variant.name
                    # Controls have the lengths of what they are cut to: a dashed line stays visible on another.
                    dashes = "--" if variant.row.matched else "-"
                    axis.hist(
                        np.maximum(values, 1),
                        bins,
                        histtype="step",
                        color=colour,
                        label=label,
                        linewidth=1.6,
                        linestyle=dashes,
                    )
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_ylabel("traces")
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(teacher if len(teachers) > 1 else "", loc="left", fontsize=10)
            axis.legend(fontsize=9, frameon=False)
        axes[-1].set_xlabel("tokens of reasoning (log scale)")
        save(figure)


def _marks(rows: list[Row]) -> list[_Mark]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    teachers = list(dict.fromkeys(row["teacher"] for row in rows if row["teacher"])) or [""]
    for row in rows:
        # A base as it is belongs to every teacher's panel.
        for teacher in [row["teacher"]] if row["teacher"] else teachers:
            panel = (row["benchmark"], teacher)
            key = (panel, row["base"], row["method"], row["variant"], row["kind"])
            groups.setdefault(key, []).append(row)
    marks = []
    for key, group in groups.items():
        seeds = len(group)
        accuracy = [row["accuracy"] for row in group]
        low, high = (min(accuracy), max(accuracy)) if seeds > 1 else (group[0]["ci_low"], group[0]["ci_high"])
        x = sum(max(row["mean_output_tokens"], 1.0) for row in group) / seeds
        marks.append(_Mark(*key, x, sum(accuracy) / seeds, low, high, seeds))
    return marks


def _front(marks: Sequence[_Mark]) -> list[_Mark]:
    """Those that no other is both shorter and better than, from short to long."""
    front: list[_Mark] = []
    for mark in sorted(marks, key=lambda m: (m.x, -m.y)):
        if not front or mark.y > front[-1].y:
            front.append(mark)
    return front


def _draw(rows: list[Row], theme: Theme, narrow: bool, save: Callable[[Any], None]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    marks = _marks(rows)
    panels = list(dict.fromkeys(mark.panel for mark in marks)) or [("", "")]
    several = len({teacher for _, teacher in panels}) > 1
    with matplotlib.rc_context(_style(theme, f"{theme}-{narrow}")):
        key = _key(marks, theme)
        columns = 2 if narrow else 4
        height = 3.6 * len(panels) + 0.3 + 0.26 * -(-len(key) // columns)
        figure = Figure(figsize=(_NARROW if narrow else _WIDE, height), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, (benchmark, teacher) in zip(axes, panels, strict=True):
            _panel(axis, [m for m in marks if m.panel == (benchmark, teacher)], marks, theme)
            axis.set_title(f"{benchmark}, {teacher}" if several else benchmark, loc="left", fontsize=10)
        if key:
            figure.legend(
                handles=key,
                loc="outside lower left",
                ncols=columns,
                fontsize=9,
                frameon=False,
                handletextpad=0.5,
                columnspacing=1.2,
            )
        save(figure)


def _style(theme: Theme, salt: str) -> dict[str, Any]:
    inks = _INKS[theme]
    return {
        # Without pyplot nothing is global; the salt makes the SVG's ids the same every time.
        "svg.hashsalt": f"hubkit-{salt}",
        "font.size": 10,
        "text.color": inks["ink"],
        "axes.labelcolor": inks["ink"],
        "axes.edgecolor": inks["soft"],
        "axes.facecolor": inks["ground"],
        "figure.facecolor": inks["ground"],
        "grid.color": inks["line"],
        "xtick.color": inks["soft"],
        "ytick.color": inks["soft"],
    }


def _panel(axis: Any, marks: list[_Mark], everywhere: list[_Mark], theme: Theme) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, ScalarFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    seeds = max((mark.seeds for mark in marks), default=1)
    axis.set_xlabel("mean output tokens (log scale)")
    axis.set_ylabel("accuracy, 95 % CI or range of seeds" if seeds > 1 else "accuracy, 95 % CI")
    axis.grid(True, alpha=0.6, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if not marks:
        return
    axis.set_xlim(min(m.x for m in marks) / 1.35, max(m.x for m in marks) * 1.35)
    axis.set_ylim(max(-0.02, min(m.low for m in marks) - 0.04), min(1.03, max(m.high for m in marks) + 0.05))
    front = _front(marks)
    axis.plot(
        [m.x for m in front], [m.y for m in front], "--", color=_INKS[theme]["soft"], linewidth=1, zorder=1
    )
    placed = _dodged(axis, marks)
    for mark, x in placed.items():
        for other, at in placed.items():
            if _joined(mark, other):
                axis.plot(
                    [x, at],
                    [mark.y, other.y],
                    "-",
                    color=_INKS[theme]["soft"],
                    linewidth=1.2,
                    alpha=0.55,
                    zorder=2,
                )
    for mark, x in placed.items():
        axis.errorbar(
            x,
            mark.y,
            yerr=[[max(0.0, mark.y - mark.low)], [max(0.0, mark.high - mark.y)]],
            linewidth=1.2,
            capsize=2.5,
            zorder=3,
            **_look(mark, everywhere, theme),
        )


def _joined(raw: _Mark, short: _Mark) -> bool:
    same = (raw.base, raw.method) == (short.base, short.method)
    return same and raw.kind == "raw" and short.kind is not None and VARIANTS[short.kind].compressed


def _dodged(axis: Any, marks: list[_Mark]) -> dict[_Mark, float]:
    """Mark -> where it is drawn: aside, where it would cover another of about the same length and accuracy."""
    axis.figure.canvas.draw()  # sizes are known only then
    there, back = axis.transData, axis.transData.inverted()
    apart = _APART * axis.figure.dpi / 72
    taken: list[tuple[float, float]] = []
    found = {}
    for mark in sorted(marks, key=lambda m: (m.x, m.y)):
        x, y = there.transform((mark.x, mark.y))
        while any(abs(x - a) < apart and abs(y - b) < apart for a, b in taken):
            x += apart
        taken.append((x, y))
        found[mark] = float(back.transform((x, y))[0])
    return found


def _names(marks: list[_Mark], name: str) -> list[Any]:
    return list(dict.fromkeys(getattr(mark, name) for mark in marks if getattr(mark, name) is not None))


def _colour(kind: str | None, theme: Theme) -> str:
    colour = VARIANTS[kind].colour if kind else BASE_COLOUR
    return _LIGHTER.get(colour, colour) if theme == "dark" else colour


def _look(mark: _Mark, everywhere: list[_Mark], theme: Theme) -> dict[str, Any]:
    methods, bases = _names(everywhere, "method"), _names(everywhere, "base")
    shape = _MARKERS[methods.index(mark.method) % len(_MARKERS)] if mark.method else "X"
    return {
        "color": _colour(mark.kind, theme),
        "marker": shape,
        "fillstyle": _FILLS[bases.index(mark.base) % len(_FILLS)],
        "markersize": 8,
        "markerfacecoloralt": _INKS[theme]["ground"],
        "linestyle": "",
    }


def _key(marks: list[_Mark], theme: Theme) -> list[Any]:
    """The legend, apart by what a look says: variants by colour, methods by shape, bases by fill, then lines."""
    from matplotlib.lines import Line2D

    soft = _INKS[theme]["soft"]
    variants: dict[str, str | None] = {}
    for mark in sorted(marks, key=lambda m: VARIANTS[m.kind].order if m.kind else 99):
        variants.setdefault(mark.variant or BASE_LABEL, mark.kind)
    kinds = list(variants.values())
    handles = []
    for name, kind in variants.items():
        label = kind if kind and kinds.count(kind) == 1 else name
        shape = "o" if kind else "X"
        handles.append(Line2D([], [], linestyle="", marker=shape, color=_colour(kind, theme), label=label))
    methods, bases = _names(marks, "method"), _names(marks, "base")
    for number, method in enumerate(methods if len(methods) > 1 else []):
        shape = _MARKERS[number % len(_MARKERS)]
        handles.append(Line2D([], [], linestyle="", marker=shape, color=soft, label=f"method {method}"))
    for number, base in enumerate(bases if len(bases) > 1 else []):
        fill = _FILLS[number % len(_FILLS)]
        ground = _INKS[theme]["ground"]
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="o",
                fillstyle=fill,
                color=soft,
                markerfacecoloralt=ground,
                label=f"base {base}",
            )
        )
    if any(_joined(a, b) for a in marks for b in marks):
        handles.append(
            Line2D([], [], color=soft, linewidth=1.2, alpha=0.55, label="one student, raw to compressed")
        )
    if len(_front(marks)) > 1:
        handles.append(Line2D([], [], color=soft, linestyle="--", linewidth=1, label="Pareto front"))
    return handles
