"""The fast path against math-verify itself, as a plain loop uses it."""

from __future__ import annotations

import math_verify
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubkit.verifiers.base import Task
from hubkit.verifiers.table import verify_in_worker, verify_inline


def plain_loop(answer: str, text: str) -> bool:
    """math-verify on the whole text, with the key in a box."""
    return bool(math_verify.verify(math_verify.parse(f"\\boxed{{{answer}}}"), math_verify.parse(text)))


def ours(answer: str, text: str) -> bool:
    problem = {"answer": answer, "verifier": "math", "source": "", "metadata": ""}
    work = verify_inline(problem, text)
    return (verify_in_worker(work) if isinstance(work, Task) else work).status == "correct"


SMALL = st.integers(-30, 30)
NUMBERS = st.one_of(
    SMALL.map(str),
    st.integers(-(10**7), 10**7).map(str),
    st.integers(1000, 10**9).map(lambda n: f"{n:,}"),
    st.builds(lambda n, d: f"{n / 10**d:.{d}f}", st.integers(-5000, 5000), st.integers(1, 7)),
    st.builds(lambda n, zeros: f"{n}.{'0' * zeros}", SMALL, st.integers(1, 3)),
    st.sampled_from(
        ["0", "-0", "0.0", "007", "+5", ".5", "5.", "1,5", "12,34", "1 000", "1{,}000", "3.14159265"]
    ),
)
FRACTIONS = st.builds(
    lambda form, a, b: form % (a, b),
    st.sampled_from(["\\frac{%d}{%d}", "\\dfrac{%d}{%d}", "-\\frac{%d}{%d}", "%d/%d", "\\frac %d %d"]),
    SMALL,
    st.integers(1, 12),
)
ATOMS = NUMBERS | FRACTIONS
LATEX = st.one_of(
    st.builds(lambda a, b: f"{a}\\sqrt{{{b}}}", SMALL, st.integers(2, 12)),
    st.builds(lambda a, b: f"{a} + {b}\\pi", SMALL, st.integers(1, 9)),
    st.builds(lambda a, b: f"x^2 + {a}x - {b}", st.integers(1, 9), st.integers(1, 9)),
    st.builds(lambda a, b: f"-{b}+{a} x+x^{{2}}", st.integers(1, 9), st.integers(1, 9)),
    st.builds(lambda a: f"x = {a}", ATOMS),
    st.builds(lambda a: f"2^{{{a}}}", st.integers(-9, 9)),
)
ROOTS = st.one_of(
    st.builds(lambda a, b: f"\\frac{{\\sqrt{{{a}}}}}{{{b}}}", st.integers(1, 12), st.integers(1, 9)),
    st.builds(lambda a, b, c: f"{a} - {b}\\sqrt{{{c}}}", SMALL, st.integers(1, 9), st.integers(2, 12)),
    st.builds(lambda a, b: f"\\frac{{{a}\\pi}}{{{b}}}", st.integers(1, 9), st.integers(1, 9)),
    st.builds(lambda a, b: f"{a} \\cdot {b}", SMALL, st.integers(1, 9)),
    st.builds(lambda a, b: f"{a}\\frac{{1}}{{{b}}}", SMALL, st.integers(1, 9)),
    st.builds(lambda a, b: f"{a}^{{{b}}}", st.integers(1, 9), st.integers(-3, 3)),
    st.builds(lambda a, b: f"{a}({b} + 1)", st.integers(1, 9), st.integers(1, 9)),
)
WITH_UNITS = st.builds(
    lambda a, unit: a + unit,
    ATOMS,
    st.sampled_from(
        ["\\text{ cm}", "\\text{ cm}^2", "\\%", "%", " cm", "^\\circ", "\\text{ dollars}", "\\,\\mathrm{m}"]
    ),
) | ATOMS.map(lambda a: "\\$" + a)
SEVERAL = st.one_of(
    st.builds(
        lambda o, a, b, c: f"{o}{a}, {b}{c}", st.sampled_from("(["), SMALL, SMALL, st.sampled_from(")]")
    ),
    st.builds(
        lambda o, a, b, c: f"{o}{a},{b}{c}", st.sampled_from("(["), SMALL, SMALL, st.sampled_from(")]")
    ),
    st.builds(lambda a, b: f"\\left({a}, {b}\\right)", SMALL, SMALL),
    st.builds(lambda a: "\\{" + ", ".join(map(str, a)) + "\\}", st.lists(SMALL, min_size=1, max_size=3)),
    st.builds(lambda a: ", ".join(map(str, a)), st.lists(SMALL, min_size=2, max_size=3)),
    st.builds(lambda o, a, c: f"{o}{a}, \\infty{c}", st.sampled_from("(["), ATOMS, st.sampled_from(")]")),
    st.builds(lambda a, b, c: f"({a}, {b}, {c})", SMALL, ATOMS, ATOMS),
    st.builds(lambda a, b: f"{a}, {b}", ATOMS, ROOTS),
    st.builds(lambda a, b: f"({a}, {b})", ATOMS, ATOMS | ROOTS),
    st.builds(lambda a: f"(-\\infty, {a}) \\cup [{a}, \\infty)", SMALL),
)
WORDS = st.sampled_from(
    [
        "\\text{Monday}",
        "\\text{monday}",
        "Monday",
        "\\text{(B)}",
        "B",
        "\\text{B}",
        "no solution",
        "\\text{ yes }",
    ]
)
ANSWERS = st.one_of(ATOMS, LATEX, ROOTS, WITH_UNITS, SEVERAL, WORDS)
SPACED = st.sampled_from(["%s", " %s", "%s ", "$%s$", "%s\\,"])
TEXTS = st.sampled_from(
    [
        "\\boxed{%s}",
        "The answer is \\boxed{%s}.",
        "So we get $\\boxed{%s}$.",
        "$$\\boxed{%s}$$",
        "First $a = 3$, then\n\\[\n\\boxed{%s}\n\\]",
        "**Final Answer**\n\n\\boxed{%s}",
        "Not \\boxed{4}, as said, but this: \\boxed{%s}",
        "Thus $x = \\boxed{%s}$, and so on.",
        "There are two: $\\boxed{1}$ and $\\boxed{%s}$.",
        "It costs $\\boxed{%s}\\%%$ more.",
        "It is $\\boxed{%s} \\text{ cm}$ long.",
        "The value is $-\\boxed{%s}$.",
        "\\(\\boxed{%s}\\)",
    ]
)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), spaced=SPACED, text=TEXTS)
def test_verdicts_are_those_of_a_plain_loop(data: st.DataObject, spaced: str, text: str) -> None:
    answer = data.draw(ANSWERS, label="answer")
    # Half of the guesses are near: the same kind, or the same written otherwise.
    guess = data.draw(st.one_of(st.just(answer), ANSWERS, _rewritten(answer)), label="guess")
    whole = text % (spaced % guess)
    assert ours(answer, whole) == plain_loop(answer, whole), whole


def _rewritten(answer: str) -> st.SearchStrategy[str]:
    changed = {
        answer.replace("\\frac", "\\dfrac"),
        answer.replace(" ", ""),
        answer.replace(",", ", "),
        answer.replace("+", " + "),
        answer.replace("{", "{ ").replace("}", " }"),
        answer + ".0",
        "-" + answer,
        f"x = {answer}",
        answer.replace("(", "\\left(").replace(")", "\\right)"),
        answer.replace("(", "[").replace(")", "]"),
        answer.replace("(", "\\{").replace(")", "\\}"),
    }
    return st.sampled_from(sorted(changed))


@settings(deadline=None, max_examples=100)
@given(st.one_of(ROOTS, SEVERAL), st.one_of(ROOTS, SEVERAL, ATOMS))
@example("\\text{circle}", "x = \\text{circle}")
@example("(1, 2)", "1, 2")
@example("[2, 1]", "2, 1")
@example("\\{1, 1, 2\\}", "2, 1")
@example("[1, 1]", "1")
@example("(-\\infty, 3)", "[-\\infty, 3)")
@example("1, 000", "1,000")
@example("2\\frac{1}{2}", "\\frac{5}{2}")
@example("\\sqrt{4}", "2")
def test_numbers_in_brackets_compare_as_math_verify_compares_them(answer: str, guess: str) -> None:
    assert ours(answer, f"\\boxed{{{guess}}}") == plain_loop(answer, f"\\boxed{{{guess}}}")


@settings(deadline=None, max_examples=200)
@given(ATOMS, ATOMS)
@example("0.5", "\\frac{1}{2}")
@example("0.333333", "1/3")
@example("3.1415926", "3.1415927")
@example("5", "5.0000001")
@example("1,000", "1000.0")
@example("-0", "0")
def test_plain_numbers_compare_as_math_verify_compares_them(answer: str, guess: str) -> None:
    assert ours(answer, f"\\boxed{{{guess}}}") == plain_loop(answer, f"\\boxed{{{guess}}}")
