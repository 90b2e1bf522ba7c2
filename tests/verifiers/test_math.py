"""The math verifier on a corpus of answers with hand-made verdicts, and the rules that hold for all answers."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support import ROOT

from hubkit.verifiers.base import Task, Verdict
from hubkit.verifiers.table import verify_in_worker, verify_inline

CORPUS = [
    json.loads(line) for line in (ROOT / "benchmarks/answers.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = sorted({row["kind"] for row in CORPUS})


def judge(answer: str, text: str, verifier: str = "math") -> Verdict:
    """In this process, whose main thread this is: what a worker does and faster."""
    problem: dict[str, Any] = {"answer": answer, "verifier": verifier, "source": "", "metadata": ""}
    work = verify_inline(problem, text)
    return verify_in_worker(work) if isinstance(work, Task) else work


def correct(answer: str, guess: str) -> bool:
    return judge(answer, f"\\boxed{{{guess}}}").correct


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_is_judged_as_decided_by_hand(kind: str) -> None:
    rows = [row for row in CORPUS if row["kind"] == kind]
    found = [{**row, "right": judge(row["answer"], row["text"]).status} for row in rows]
    assert found == rows


@pytest.mark.parametrize("kind", KINDS)
def test_key_and_answer_may_change_places(kind: str) -> None:
    for row in CORPUS:
        boxed = (
            row["text"].startswith("\\boxed{")
            and row["text"].endswith("}")
            and row["text"].count("boxed") == 1
        )
        if row["kind"] == kind and boxed and "####" not in row["answer"] and "boxed" not in row["answer"]:
            guess = row["text"][len("\\boxed{") : -1]
            if not guess.startswith("\\boxed") and guess.count("{") == guess.count("}"):
                assert correct(guess, row["answer"]) == (row["right"] == "correct"), row


@pytest.mark.parametrize(
    ("answer", "guess", "status"),
    [
        # What looks alike in print: raised and lowered digits are one number, and so are a fraction's in one character.
        ("10^{12}", "10¹²", "correct"),
        ("100", "10¹²", "wrong"),
        ("10^{-3}", "10⁻³", "correct"),
        ("x_{12}", "x₁₂", "correct"),
        ("29/8", "3⅝", "correct"),
        ("\\frac{1}{2}", "¹⁄₂", "correct"),
        ("\\sqrt[3]{2}", "∛2", "correct"),
        ("\\phi", "φ", "correct"),
        ("-5", "negative 5", "correct"),
        ("5", "negative 5", "wrong"),
        ("-\\frac{1}{2}", "\\text{minus } \\frac{1}{2}", "correct"),
        ("(-\\infty,2)\\cup(2,\\infty)", "(-∞, 2) U (2, ∞)", "correct"),
        ("(-\\infty,2)\\cup(2,\\infty)", "(-∞, 2) U (3, ∞)", "wrong"),
        ("1:12", "1 : 12", "correct"),
        ("8:05", "8:5", "wrong"),
        ("8:5", "8:05", "wrong"),
        ("1:12", "1\\colon 12", "correct"),
        ("1:12", "1{:}12", "correct"),
        ("3:20", "6 : 40", "correct"),
        ("3:20", "3 : 21", "wrong"),
        ("1:15:30", "1 : 15 : 30", "correct"),
        # A power of a power without brackets may be either.
        ("64", "2^3^2", "unparseable"),
        # Letters with signs between them are no words, and upright words no products.
        ("n!", "n", "wrong"),
        ("n", "n!", "wrong"),
        ("n!", "n(n-1)!", "correct"),
        ("x-y", "x y", "wrong"),
        ("a-b", "-b+a", "correct"),
        ("xy", "x y", "correct"),
        ("\\text{cat}", "\\text{act}", "wrong"),
        ("\\text{cat}", "Cat", "correct"),
        ("\\text{x-axis}", "\\text{y-axis}", "wrong"),
        ("Yes", "yes", "correct"),
        ("No", "NO", "correct"),
        ("Yes", "\\text{No}", "wrong"),
        ("on", "no", "wrong"),
        # i is the imaginary unit, but where it counts.
        ("2i", "(1+i)^2", "correct"),
        ("-1", "e^{i\\pi}", "correct"),
        ("-1", "i^2", "correct"),
        ("1", "i^2", "wrong"),
        ("1+\\sqrt{3}i", "2e^{i\\pi/3}", "correct"),
        ("\\frac{1-i}{2}", "\\frac{1}{1+i}", "correct"),
        ("\\frac{1+i}{2}", "\\frac{1}{1+i}", "wrong"),
        ("2+3i", "3i+2", "correct"),
        ("2+3i", "2-3i", "wrong"),
        ("5", "|3+4i|", "correct"),
        ("z-2i", "z+2i", "wrong"),
        ("6", "\\sum_{i=1}^{3} i", "correct"),
        # What cancels is 0, and a small number is not.
        ("0", "\\sin\\pi", "correct"),
        ("\\cos\\frac{\\pi}{2}", "0", "correct"),
        ("0", "\\sqrt{3+2\\sqrt{2}}-1-\\sqrt{2}", "correct"),
        ("0", "\\sin\\pi+10^{-30}", "wrong"),
        ("0", "e^{-300}", "wrong"),
        # A number that is said twice is one, if both are the same.
        ("5", "5 (five)", "correct"),
        ("25", "\\text{twenty-five (25)}", "correct"),
        ("105", "105 \\text{ (one hundred and five)}", "correct"),
        ("5", "5 (four)", "wrong"),
        ("5", "5 \\text{ (four)}", "wrong"),
        ("5", "5\\text{ six}", "wrong"),
        ("5", "5^{\\text{th}}", "correct"),
        ("22nd", "22", "correct"),
        ("5", "5nd", "wrong"),
        ("5", "5 (cm)", "correct"),
        ("5 m", "5 (cm)", "wrong"),
        # Groups of digits.
        ("1234567", "12,34,567", "correct"),
        ("12,34,567", "\\text{Rs. }1234567", "correct"),
        ("1234568", "12,34,567", "wrong"),
        ("12, 34, 567", "567, 34, 12", "correct"),
        ("2,10,100", "100,10,2", "correct"),
        ("1234567", "1'234'567", "correct"),
        ("1234567", "1’234’567", "correct"),
        ("-15", "－１５", "correct"),
        ("15", "١٥", "correct"),
        ("15", "१५", "correct"),
        # Two backslashes end a line, and escape no brace.
        ("15", "15\\\\", "correct"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\[2pt]2\\end{pmatrix}", "correct"),
    ],
)
def test_a_boxed_answer_is_read_as_it_is_meant(answer: str, guess: str, status: str) -> None:
    assert judge(answer, f"\\boxed{{{guess}}}").status == status


@pytest.mark.parametrize(
    ("answer", "guess", "status"),
    [
        ("5", "5\\,\\mathrm{cm^2}", "correct"),
        ("5 cm^2", "5\\,\\mathrm{cm^2}", "correct"),
        ("5 cm^2", "5\\,\\mathrm{cm^3}", "wrong"),
        ("5 m/s^2", "5\\,\\mathrm{m/s^2}", "correct"),
        ("5 m/s^2", "5\\,\\mathrm{m/s}", "wrong"),
        ("5 m/s", "5\\,\\mathrm{m\\,s^{-1}}", "correct"),
        ("5 m/s", "5\\,\\frac{\\text{m}}{\\text{s}}", "correct"),
        ("5 m/s^2", "5\\,\\frac{\\text{m}}{\\text{s}^2}", "correct"),
        ("5", "5 \\text{m}\\,\\text{s}^{-1}", "correct"),
        ("5 m", "5 \\text{ m}", "correct"),
        ("5 m", "6 \\text{ m}", "wrong"),
        ("5 m", "5 \\text{ g}", "wrong"),
        ("18", "18 USD", "correct"),
        ("18", "USD 18", "correct"),
        ("18", "US$18", "correct"),
        ("18 dollars", "EUR 18", "wrong"),
        # Parts of the number.
        ("5", "5\\text{k}", "wrong"),
        ("5000", "5\\text{k}", "correct"),
        ("5", "5 \\text{ k}", "wrong"),
        ("5", "5\\text{bn}", "wrong"),
        ("5", "5\\text{ billions}", "wrong"),
        ("5", "5 lakh", "wrong"),
        ("500000", "5 lakh", "correct"),
        ("5 crore", "50000000 rupees", "correct"),
        ("60", "5 dozens", "correct"),
        ("5000", "\\$5k", "correct"),
        ("5", "\\$5\\text{M}", "wrong"),
        ("5000000", "\\$5M", "correct"),
        # Kelvin, molar and bytes, or thousands, millions and billions.
        ("300", "300\\,\\text{K}", "correct"),
        ("300", "300\\text{ K}", "correct"),
        ("300 \\text{ K}", "300\\mathrm{K}", "correct"),
        ("300", "300\\mathrm{K}", "correct"),
        ("300\\mathrm{K}", "300", "correct"),
        ("300", "300{\\rm K}", "correct"),
        ("0.1", "0.1\\mathrm{M}", "correct"),
        ("300", "300\\mathrm{k}", "wrong"),
        ("300", "300\\text{k}", "wrong"),
        ("300000", "300\\mathrm{K}", "wrong"),
        ("5 \\text{ m}", "5{\\rm cm}", "wrong"),
        ("5000000", "\\$5\\mathrm{M}", "correct"),
        ("5000000", "\\$5 \\text{ M}", "correct"),
        ("5", "\\$5\\mathrm{M}", "wrong"),
        ("5", "5\\text{K}", "wrong"),
        ("5", "5\\text{M}", "wrong"),
        ("5", "5\\text{B}", "wrong"),
        ("5", "5\\text{M people}", "wrong"),
        ("5", "5\\mathrm{M}\\text{ people}", "wrong"),
        ("5", "5\\text{ M dollars}", "wrong"),
        ("5", "5\\text{B}\\,\\$", "wrong"),
        ("5 million people", "5\\text{M people}", "correct"),
        ("0.1", "0.1\\text{ M HCl}", "correct"),
        ("5", "5\\,\\mathrm{K\\,m}", "correct"),
        ("30", "30\\text{ fifth graders}", "correct"),
        # Milli and mega.
        ("5 \\text{ MW}", "5\\text{ mW}", "wrong"),
        ("5 \\text{ MHz}", "5\\text{ MHz}", "correct"),
        ("5 \\text{ mM}", "5\\text{ mm}", "wrong"),
        ("5 \\text{ Mg}", "5\\text{ mg}", "wrong"),
        ("5 \\text{ KM}", "5\\text{ km}", "correct"),
        ("300 K", "300\\text{ K}", "correct"),
    ],
)
@pytest.mark.parametrize("verifier", ["math", "numeric"])
def test_units_in_their_usual_spellings(answer: str, guess: str, status: str, verifier: str) -> None:
    assert judge(answer, f"\\boxed{{{guess}}}", verifier).status == status


def test_a_letter_is_a_unit_only_beside_one_and_for_numbers() -> None:
    assert judge("5", "\\boxed{5m}").status == "wrong"
    assert judge("5", "\\boxed{5m}", "numeric").status == "correct"
    assert judge("5", "\\boxed{5k}", "numeric").status == "unparseable"


@pytest.mark.parametrize(
    "words",
    ["tenths", "hundredths", "halves", "factorial", "gross", "pi", "mil", "below zero", "thirds of a mile"],
)
def test_words_that_change_a_number_are_no_units(words: str) -> None:
    for verifier in ("math", "numeric"):
        assert not judge("5", f"\\boxed{{5\\text{{ {words}}}}}", verifier).correct


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("The answer is 4. Wait, the answer is 5.", "correct"),
        ("The answer is 5. Wait, the answer is 4.", "wrong"),
        ("The answer is therefore 5.", "correct"),
        ("The answer is x = 5 because 3 + 2 = 5.", "correct"),
        ("Final answer:\n\n\\[\n5\n\\]", "correct"),
        ("The answer is $5.\nThat is $3 more.", "correct"),
        ('The answer is "5".', "correct"),
        ("Ответ: 5", "correct"),
        ("所以 $x=5$。", "correct"),
        ("정답은 5입니다.", "correct"),
        ("答えは4か5です。", "unparseable"),
        ("So: <|begin_of_box|>5<|end_of_box|>", "correct"),
        ("<answer><|begin_of_box|>5<|end_of_box|></answer>", "correct"),
    ],
)
def test_answers_in_prose(text: str, status: str) -> None:
    assert judge("5", text).status == status


BESIDE = {
    "part of the answer": [
        "$\\boxed{5}x$", "$x\\boxed{5}$", "$\\boxed{5} i$", "\\boxed{5}i", "$\\boxed{5}!$", "\\boxed{5}^2",
        "\\boxed{5}e3", "$\\boxed{5}:1$", "\\boxed{5}:1", "\\boxed{5}/6", "\\boxed{5}.5", "$\\boxed{5},000$",
        "$\\boxed{5}\\,000$", "\\boxed{5} \\times 10^3", "\\boxed{5}×10³", "$\\boxed{5}(x+1)$",
        "$\\boxed{5}\\left(x+1\\right)$", "$\\boxed{5}\\sin x$", "$\\boxed{5}\\theta$", "$\\log \\boxed{5}$",
        "$\\boxed{5}\\hat{i}$", "±\\boxed{5}", "$\\boxed{5}$%", "$\\boxed{5}\\,$ \\%", "\\boxed{5} percent",
        "\\boxed{5} (%)", "\\boxed{5} million people", "$\\boxed{5}$ thousand", "\\boxed{5} dozen",
        "\\boxed{5}k", "\\boxed{5}M", "\\boxed{5} or more", "$\\boxed{5}$ hundredths", "\\[\\boxed{5}\\]%",
        "$\\boxed{5} \\bmod 7$",
    ],
    "no part of it": [
        "$\\boxed{5}$. Then x.", "\\boxed{5}!", "\\boxed{5}, where x is 3", "- \\boxed{5}",
        "\\boxed{5}: 1 is too small", "\\[ \\boxed{5} \\tag{1} \\]", "$\\boxed{5} \\blacksquare$",
        "$\\boxed{5} (x>0)$", "$\\boxed{5} \\quad (x > 0)$", "$\\boxed{5}\\text{ (since } x > 0)$",
        "\\boxed{5} (five)", "\\boxed{5} times", "\\boxed{5} cm", "\\boxed{5}m", "the \\boxed{5}th term",
        "$\\boxed{5}x = 10$", "$x + \\boxed{5} = 8$", "$\\mathbf{Answer:} \\boxed{5}$", "\\boxed{5}\\text{.}",
        "\\boxed{5}, 000", "\\boxed{5}s", "\\boxed{5} in total", "$\\boxed{5}\\,.$", "\\$\\boxed{5}",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "right"), [(text, kind[0] == "n") for kind in BESIDE for text in BESIDE[kind]]
)
def test_what_stands_beside_a_box(text: str, right: bool) -> None:
    assert judge("5", text).correct is right


@pytest.mark.parametrize(
    ("answer", "text", "status"),
    [
        ("5000000", "\\boxed{5} million people", "correct"),
        ("5x", "$\\boxed{5}x$", "correct"),
        ("5 \\text{ m}", "It is \\boxed{5} cm.", "wrong"),
        ("5 \\text{ m}", "It is $\\boxed{5}$ cm.", "wrong"),
        ("5 years old", "He is \\boxed{5} years old.", "correct"),
        ("5 years old", "His age is \\boxed{5} years.", "correct"),
        ("30^\\circ C", "\\boxed{30} degrees Celsius", "correct"),
        ("\\$5", "€\\boxed{5}", "wrong"),
        ("5", "It is \\boxed{5} or 6.", "wrong"),
        ("5, 6", "They are $\\boxed{5}$ and $6$.", "correct"),
        ("5", "\\boxed{5} and 3 more are left", "correct"),
        ("\\$5", "\\$\\boxed{5}", "correct"),
    ],
)
def test_units_beside_a_box(answer: str, text: str, status: str) -> None:
    assert judge(answer, text).status == status


SAID_AGAIN = [
    "\\boxed{{3}} or more precisely {}", "$\\boxed{{3}}$ or more exactly ${}$.", "\\boxed{{3}}, or {}.",
    "\\boxed{{3}} or maybe {}", "$\\boxed{{3}}\\text{{ or more precisely }}{}$", "\\boxed{{3 \\text{{, i.e. }} {}}}",
    "\\boxed{{3 \\text{{ or equivalently }} {}}}", "\\boxed{{3}} or \\boxed{{{}}}", "The answer is 3, i.e. {}",
    "\\boxed{{3}} or more precisely \\boxed{{{}}}", "The answer is 3 or more precisely {}.",
]  # fmt: skip


@pytest.mark.parametrize("text", SAID_AGAIN)
@pytest.mark.parametrize("verifier", ["math", "numeric"])
def test_a_value_said_again_is_one_answer_and_two_values_are_two(text: str, verifier: str) -> None:
    for same in ("3", "3.0", "\\frac{6}{2}") if "$" in text or "boxed{{{}" in text else ("3", "3.0"):
        assert judge("3", text.format(same), verifier).correct
    for other in ("4", "3.14", "30"):
        assert not judge("3", text.format(other), verifier).correct
        assert not judge(other, text.format(other), verifier).correct


def test_two_equal_roots_are_two() -> None:
    assert judge("3, 3", "They are \\boxed{3} and 3.").correct
    assert not judge("3", "They are \\boxed{3} and 3.").correct
    assert not judge("3", "\\boxed{3} or more").correct
    assert not judge("3", "\\boxed{3} or more precisely than that").correct


RATIONALS = st.builds(Fraction, st.integers(-(10**6), 10**6), st.integers(1, 10**4))
SPELLINGS = ["fraction", "slash", "decimal", "mixed", "percent", "power"]


def spelled(number: Fraction, how: str) -> str:
    """The number in one of its spellings; as a fraction where it has no such one."""
    sign, size = "-" if number < 0 else "", abs(number)
    whole, rest = divmod(size.numerator, size.denominator)
    finite = 10**9 % size.denominator == 0
    if how == "decimal" and finite:
        digits = f"{whole}.{int(Fraction(rest, size.denominator) * 10**9):09d}".rstrip("0")
        return sign + digits.rstrip(".")
    if how == "percent" and finite:
        return spelled(number * 100, "decimal") + "\\%"
    if how == "mixed" and whole and rest:
        return f"{sign}{whole}\\frac{{{rest}}}{{{size.denominator}}}"
    if how == "power" and size.numerator == 1:
        return f"{sign}{size.denominator}^{{-1}}"
    if size.denominator == 1:
        return sign + f"{size.numerator:,}"
    shape = "{}{}/{}" if how == "slash" else "{}\\frac{{{}}}{{{}}}"
    return shape.format(sign, size.numerator, size.denominator)


@settings(deadline=None, max_examples=200)
@given(RATIONALS, st.sampled_from(SPELLINGS), st.sampled_from(SPELLINGS))
def test_a_number_equals_itself_in_any_spelling(number: Fraction, one: str, other: str) -> None:
    assert correct(spelled(number, one), spelled(number, other))


@settings(deadline=None, max_examples=300)
@given(
    RATIONALS,
    RATIONALS | st.sampled_from([Fraction(0), Fraction(1)]),
    st.integers(-60, 3),
    st.sampled_from(SPELLINGS),
    st.sampled_from(SPELLINGS),
)
def test_numbers_that_differ_are_never_correct(
    number: Fraction, other: Fraction, power: int, one: str, two: str
) -> None:
    """Also if they differ by little, or both are small."""
    near = number + Fraction(1, 10**9) * (other.numerator % 7)
    for a, b in ((number, other), (number, near)):
        scale = Fraction(10) ** power
        if a == b:
            continue
        assert not correct(spelled(a, one), spelled(b, two))
        assert not correct(
            f"{spelled(a, 'fraction')}\\cdot 10^{{{power}}}", f"{spelled(b, 'fraction')}\\cdot 10^{{{power}}}"
        )
        assert not correct(spelled(a * scale, "fraction"), spelled(b * scale, "fraction"))


ATOMS = st.one_of(
    st.integers(-999, 10**7).map(str),
    st.builds(lambda a, b: f"\\frac{{{a}}}{{{b}}}", st.integers(-99, 99), st.integers(1, 99)),
    st.builds(lambda a, b: f"{a}\\sqrt{{{b}}}", st.integers(2, 9), st.sampled_from([2, 3, 5, 7])),
    st.builds(lambda a: f"{a}\\pi", st.integers(2, 9)),
    st.builds(lambda a, b: f"{a}.{b}", st.integers(0, 99), st.integers(1, 99)),
)
DISTINCT = st.lists(ATOMS, min_size=2, max_size=4, unique=True)
ANSWERS = st.one_of(
    ATOMS,
    DISTINCT.map(lambda items: "\\{" + ", ".join(items) + "\\}"),
    DISTINCT.map(lambda items: "(" + ", ".join(items) + ")"),
    DISTINCT.map(lambda items: ", ".join(items)),
    st.builds(lambda a, b: f"x = {a} \\text{{ or }} x = {b}", ATOMS, ATOMS),
    st.builds(lambda a, b, c: f"{a}x^2 + {b}x - {c}", *[st.integers(2, 9)] * 3),
    st.builds(lambda a, b: f"{a} < x \\le {b}", st.integers(-9, 0), st.integers(1, 9)),
    st.sampled_from(
        ["\\text{Monday}", "\\text{no solution}", "8:30", "211_3", "3 \\pmod{7}", "\\pm 5", "2:3"]
    ),
)
REWRITES = {
    "spaces": lambda text: text.replace(",", " , ").replace("+", " + ").replace("=", " = "),
    "no spaces": lambda text: text.replace(", ", ",\\ "),
    "dollars": lambda text: f"${text}$",
    "sized": lambda text: text.replace("(", "\\left(").replace(")", "\\right)"),
    "dfrac": lambda text: text.replace("\\frac", "\\dfrac"),
    "tfrac": lambda text: text.replace("\\frac", "\\tfrac"),
    "full stop": lambda text: text + ".",
    "braces": lambda text: "{" + text + "}",
    "display": lambda text: "\\displaystyle " + text,
    "thin space": lambda text: text + "\\,",
    "minus": lambda text: text.replace("-", "−") if "x" not in text else text,
    "cdot": lambda text: text.replace("\\sqrt", "\\cdot\\sqrt"),
    "boxed again": lambda text: f"\\boxed{{{text}}}",
}


@settings(deadline=None, max_examples=200)
@given(ANSWERS, ANSWERS, st.sampled_from(sorted(REWRITES)))
def test_verdicts_stay_under_harmless_rewrites(key: str, guess: str, name: str) -> None:
    rewrite = REWRITES[name]
    assert correct(key, rewrite(key)) and correct(rewrite(key), key)
    before = correct(key, guess)
    assert correct(key, rewrite(guess)) == correct(rewrite(key), guess) == before
    assert correct(guess, key) == before


@settings(deadline=None, max_examples=100)
@given(DISTINCT, st.randoms(use_true_random=False), st.data())
def test_sets_have_no_order_and_no_element_is_forgotten(
    items: list[str], random: Any, data: st.DataObject
) -> None:
    for left, right in (("\\{", "\\}"), ("", "")):
        key = f"{left}{', '.join(items)}{right}"
        mixed = random.sample(items, len(items))
        assert correct(key, f"{left}{', '.join(mixed)}{right}")
        place = data.draw(st.integers(0, len(items) - 1))
        assert not correct(key, f"{left}{', '.join(items[:place] + items[place + 1 :])}{right}")
        other = data.draw(ATOMS)
        assume(not any(correct(other, item) for item in items))
        changed = [*items[:place], other, *items[place + 1 :]]
        assert not correct(key, f"{left}{', '.join(changed)}{right}")
        assert not correct(key, f"{left}{', '.join([*items, other])}{right}")


def test_sentences_in_a_box_take_no_time() -> None:
    """They are read in the process of the run, where nothing would end them."""
    sentence = "20, the total amount of money she made from the sheep farm "
    started = time.process_time()
    for text in (
        f"{sentence * 5}is 2000*",
        f"{sentence * 5}is é",
        "It's a well-known fact - isn't it? " * 9 + "4*",
    ):
        assert judge("20", f"\\boxed{{{text}}}").status in ("wrong", "unparseable")
    assert time.process_time() - started < 3


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60) | st.text(alphabet="\\{}()[]boxed$x=,1/^_ ", max_size=60))
@example("0\r.")
def test_hostile_text_gets_a_verdict(text: str) -> None:
    for whole in (text, f"\\boxed{{{text}}}", f"<answer>{text}"):
        verdict = judge("7", whole)
        assert verdict.status in ("correct", "wrong", "unparseable", "timeout") and verdict.reason
        if verdict.correct:
            assert "7" in whole
    judge(text, "\\boxed{7}")
