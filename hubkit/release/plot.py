"""Accuracy against output length: the figure in README, cards, report and Space.

One panel per benchmark and teacher, and per base where there are many students. Colour is the kind of variant, shape
the method, fill the base, and beside a mark stands the number of the compressor, where there are several, and the level
of effort that a mixture was asked at. A line joins the raw and the compressed student that differ in nothing else, and
the levels of one student; the dashed line is the Pareto front: no student is both shorter and
better. Bars are 95 % intervals, or the range over seeds where there are several.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from hubkit.release.results import Row
from hubkit.traces.variants import BASE_COLOUR, BASE_LABEL, VARIANTS

__all__ = [
    "FIGURES",
    "NARROW",
    "THEMES",
    "WIDE",
    "Theme",
    "colour_of",
    "drawn",
    "figures",
    "logarithmic",
    "png",
    "style",
    "svg",
]

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
THEMES: Final[dict[Theme, dict[str, str]]] = {
    "light": {"ink": "#1c2024", "soft": "#60646c", "line": "#d9d9e0", "ground": "#ffffff"},
    "dark": {"ink": "#edeef0", "soft": "#b0b4ba", "line": "#43484e", "ground": "#18191b"},
}
_ON_DARK: Final = {"#0072B2": "#3b93d8", "#56B4E9": "#b3e0fa"}
"""Replacements on a dark background for the one of Okabe and Ito's colours that is too dark there, and for the one that
would then be too similar."""
WIDE: Final = 7.6
NARROW: Final = 3.9
"""Inches. Text is 10 points in both, so that a phone's 360 pixels show it as large as a page does."""
_APART: Final = 8.0
"""Points between two marks that would cover each other."""
_CROWDED: Final = 30
"""Number of marks in a panel from which on each base has its own panel."""
_LONGEST_NAME: Final = 34
"""Maximum characters of a name in a legend, which fit beside its mark on a phone."""


class _Mark(NamedTuple):
    """One student, or the mean over its seeds."""

    panel: tuple[str, str, str]
    """Benchmark, teacher, and the base or "" for all."""
    base: str
    method: str | None
    variant: str | None
    kind: str | None
    compressor: str | None
    level: str | None
    """The level of effort at which a mixture's student was asked."""
    x: float
    y: float
    low: float
    high: float
    seeds: int


def figures(rows: list[Row]) -> dict[str, bytes]:
    """File name -> content, for all of FIGURES."""
    found = {"tradeoff.png": png(rows)}
    for theme in THEMES:
        for narrow in (False, True):
            name = f"tradeoff-{theme}{'-narrow' if narrow else ''}.svg"
            found[name] = svg(rows, theme, narrow).encode()
    return found


def svg(rows: list[Row], theme: Theme = "light", narrow: bool = False) -> str:
    """The figure as an <svg> element, its ground transparent; the same rows give the same text."""
    return drawn(functools.partial(_draw, rows, theme, narrow))


def drawn(draw: Callable[[Callable[[Any], None]], None]) -> str:
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


def _marks(rows: list[Row]) -> list[_Mark]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    teachers = list(dict.fromkeys(row["teacher"] for row in rows if row["teacher"])) or [""]
    for row in rows:
        # A base as it is belongs to every teacher's panel.
        for teacher in [row["teacher"]] if row["teacher"] else teachers:
            panel = (row["benchmark"], teacher, "")
            key = (panel, *(row.get(name) for name in _Mark._fields[1:7]))
            groups.setdefault(key, []).append(row)
    marks = []
    for key, group in groups.items():
        seeds = len(group)
        accuracy = [row["accuracy"] for row in group]
        low, high = (min(accuracy), max(accuracy)) if seeds > 1 else (group[0]["ci_low"], group[0]["ci_high"])
        x = sum(max(row["mean_output_tokens"], 1.0) for row in group) / seeds
        marks.append(_Mark._make((*key, x, sum(accuracy) / seeds, low, high, seeds)))
    number = Counter(mark.panel for mark in marks)
    crowded = {panel for panel in number if number[panel] > _CROWDED}
    return [m._replace(panel=(*m.panel[:2], m.base)) if m.panel in crowded else m for m in marks]


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
    panels = list(dict.fromkeys(mark.panel for mark in marks)) or [("", "", "")]
    several = len({teacher for _, teacher, _ in panels}) > 1
    with matplotlib.rc_context(style(theme, f"{theme}-{narrow}")):
        width = NARROW if narrow else WIDE
        figure = Figure(figsize=(width, 3.6 * len(panels) + 0.3), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        _put_key(figure, _key(marks, theme))
        on = {panel: [mark for mark in marks if mark.panel == panel] for panel in panels}
        for axis, (panel, shown) in zip(axes, on.items(), strict=True):
            benchmark, teacher, base = panel
            title = ", ".join(filter(None, (benchmark, teacher if several else "", base)))
            axis.set_title(title, loc="left", fontsize=10)
            _set_axes(axis, shown)
        figure.draw_without_rendering()  # which mark covers which is known only then
        for axis, shown in zip(axes, on.values(), strict=True):
            _put_marks(axis, shown, marks, theme)
        save(figure)


def _put_key(figure: Any, handles: list[Any]) -> None:
    """The legend below the panels, in as many columns as fit; the figure grows by its height."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    for columns in range(4, 0, -1):
        legend = figure.legend(
            handles=handles,
            loc="outside lower left",
            ncols=columns,
            fontsize=9,
            frameon=False,
            handletextpad=0.5,
            columnspacing=1.2,
        )
        box = legend.get_window_extent()
        if box.width <= width * figure.dpi or columns == 1:
            break
        legend.remove()
    figure.set_size_inches(width, height + box.height / figure.dpi)


def style(theme: Theme, salt: str) -> dict[str, Any]:
    inks = THEMES[theme]
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


def logarithmic(axis: Any) -> None:
    """Ticks at 1, 2, 5, 10, …, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.axes.set_xscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _set_axes(axis: Any, marks: list[_Mark]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    logarithmic(axis.xaxis)
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
    low = max(-0.02, min(m.low for m in marks) - 0.04)
    high = min(1.03, max(m.high for m in marks) + 0.05)
    # Whole percents: a line at 2.5 % would read 2 %.
    ticks = MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(low, high)
    axis.set_yticks([at for at in ticks if 0 <= at <= 1])
    axis.set_ylim(low, high)


def _put_marks(axis: Any, marks: list[_Mark], everywhere: list[_Mark], theme: Theme) -> None:
    from matplotlib.patheffects import withStroke

    if not marks:
        return
    placed = _dodged(axis, marks)
    front = _front(marks)
    along = [placed[m] for m in front]
    axis.plot(along, [m.y for m in front], "--", color=THEMES[theme]["soft"], linewidth=1, zorder=1)
    for mark, x in placed.items():
        for other, at in placed.items():
            if _joined(mark, other):
                axis.plot(
                    [x, at],
                    [mark.y, other.y],
                    "-",
                    color=THEMES[theme]["soft"],
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
        if number := _number(mark, everywhere):
            axis.annotate(
                number,
                (x, mark.y),
                # A level stands above: its student is often beside the one of single variants.
                xytext=(4, 5) if mark.level else (5, -3),
                textcoords="offset points",
                fontsize=7.5,
                color=THEMES[theme]["ink"],
                path_effects=[withStroke(linewidth=1.5, foreground=THEMES[theme]["ground"])],
                zorder=4,
            )


def _joined(raw: _Mark, short: _Mark) -> bool:
    same = (raw.base, raw.method) == (short.base, short.method)
    compressed = raw.kind == "raw" and short.kind is not None and VARIANTS[short.kind].compressed
    return same and (compressed or _levels(raw, short))


def _levels(long: _Mark, short: _Mark) -> bool:
    """Whether it is one student, asked at two levels."""
    return (
        long.variant == short.variant and long.level != short.level and (long.x, long.y) > (short.x, short.y)
    )


def _dodged(axis: Any, marks: list[_Mark]) -> dict[_Mark, float]:
    """Returns mark -> where it is drawn: moved a little if it would cover a mark of similar length and accuracy."""
    there, back = axis.transData, axis.transData.inverted()
    apart = _APART * axis.figure.dpi / 72
    taken: list[tuple[float, float]] = []
    found = {}

    def covered(x: float, y: float) -> int:
        return sum(abs(x - a) < 0.99 * apart and abs(y - b) < apart for a, b in taken)

    for mark in sorted(marks, key=lambda m: (m.x, m.y)):
        x, y = there.transform((mark.x, mark.y))
        # No further: where a mark stands is its length.
        x = min((x + shift * apart for shift in (0, 1, -1, 2, -2)), key=lambda at: covered(at, y))
        taken.append((x, y))
        found[mark] = float(back.transform((x, y))[0])
    return found


def _number(mark: _Mark, everywhere: Sequence[_Mark]) -> str:
    """Which compressor made it or gave it its length, "" where there is one compressor, or none of its; and the level
    that a mixture was asked at."""
    compressors = _names(everywhere, "compressor")
    several = mark.compressor and len(compressors) > 1
    number = str(compressors.index(mark.compressor) + 1) if several else ""
    return " ".join(filter(None, (number, mark.level)))


def _names(marks: Sequence[_Mark], name: str) -> list[Any]:
    return list(dict.fromkeys(getattr(mark, name) for mark in marks if getattr(mark, name) is not None))


def colour_of(kind: str | None, theme: Theme) -> str:
    colour = VARIANTS[kind].colour if kind else BASE_COLOUR
    return _ON_DARK.get(colour, colour) if theme == "dark" else colour


def _look(mark: _Mark, everywhere: list[_Mark], theme: Theme) -> dict[str, Any]:
    methods, bases = _names(everywhere, "method"), _names(everywhere, "base")
    shape = _MARKERS[methods.index(mark.method) % len(_MARKERS)] if mark.method else "X"
    return {
        "color": colour_of(mark.kind, theme),
        "marker": shape,
        "fillstyle": _FILLS[bases.index(mark.base) % len(_FILLS)],
        "markersize": 8,
        "markerfacecoloralt": THEMES[theme]["ground"],
        "linestyle": "",
    }


def _key(marks: list[_Mark], theme: Theme) -> list[Any]:
    """The legend, apart by what a look says: by colour, number, shape and fill."""
    from matplotlib.lines import Line2D

    ink, soft, ground = (THEMES[theme][name] for name in ("ink", "soft", "ground"))
    handles: list[Any] = []

    def add(label: str, **look: Any) -> None:
        handles.append(Line2D([], [], label=label, **({"color": soft, "linestyle": ""} | look)))

    kinds = {mark.kind for mark in marks}
    for kind in sorted(kinds, key=lambda kind: VARIANTS[kind].order if kind else 99):
        add(kind or BASE_LABEL, marker="o" if kind else "X", color=colour_of(kind, theme))
    compressors, methods, bases = (_names(marks, name) for name in ("compressor", "method", "base"))
    for number, compressor in enumerate(compressors if len(compressors) > 1 else [], 1):
        add(_short(compressor), marker=f"${number}$", color=ink, markeredgewidth=0)
    for number, method in enumerate(methods if len(methods) > 1 else []):
        add(_short(f"method {method}"), marker=_MARKERS[number % len(_MARKERS)])
    for number, base in enumerate(bases if len(bases) > 1 else []):
        fill = _FILLS[number % len(_FILLS)]
        add(_short(f"base {base}"), marker="o", fillstyle=fill, markerfacecoloralt=ground)
    joined = [(a, b) for a in marks for b in marks if _joined(a, b)]
    if joined:
        leveled = [_levels(a, b) and a.kind != "raw" for a, b in joined]
        found = ["raw to compressed"] * (not all(leveled)) + ["level to level"] * any(leveled)
        add(f"same student, {' or '.join(found)}", linestyle="-", linewidth=1.2, alpha=0.55)
    if len(_front(marks)) > 1:
        add("Pareto front", linestyle="--", linewidth=1)
    return handles


def _short(name: str) -> str:
    """A name that a legend has room for: its beginning and its end."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"
