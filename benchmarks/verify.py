"""Verification of mathematics against a plain single-process math-verify loop.

    python benchmarks/verify.py [--problems 750] [--samples 4] [--rounds 3] [--seed 0]

The pairs are invented in the style of models, in proportions guessed for problems like those of MATH: whole numbers
58 %, fractions 12 %, expressions with roots and pi 10 %, intervals, sets and tuples 6 %, decimals 4 %, words 4 %,
units and percent 4 %, polynomials 2 %. 70 % are right, and 80 % of these are spelled like the key; 90 % of the
wrong ones are of the key's kind; 2 % have no box. A solution has about 2,000 characters with formulas in between, and
each problem has several samples.

The plain loop is `verify(parse("\\boxed{key}"), parse(solution))` in one process. For hubkit it is the function that
the raw step calls, on all cores, with workers that were started before (their start is shown separately). Rounds go
through both in turn; the ratio is that of median wall times. Verdicts that differ are counted and shown: hubkit is
stricter in some cases and more lenient in others (docs/verifiers.md; benchmarks/agreement.py shows where).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from typing import Any

KINDS = {
    "whole": 58,
    "fraction": 12,
    "root": 10,
    "set": 6,
    "decimal": 4,
    "words": 4,
    "units": 4,
    "polynomial": 2,
}
"""Percent."""


def answer_of(rng: random.Random, kind: str = "") -> tuple[str, str]:
    """(kind, key) of the answer keys."""
    a, b, c = rng.randint(-20, 60), rng.randint(2, 19), rng.randint(2, 12)
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    made = {
        "whole": [str(a), str(a), str(a * 7), str(rng.randint(100, 99999))],
        "fraction": [f"\\frac{{{abs(a) + 1}}}{{{b}}}"],
        "root": [f"{b}\\sqrt{{{c}}}", f"\\frac{{\\sqrt{{{c}}}}}{{{b}}}", f"{b}\\pi", f"{b} + {c}\\sqrt{{3}}"],
        "set": [f"({a}, {b})", f"[{-b}, {c})", f"\\{{{a}, {b}\\}}", f"(-\\infty, {a}]", f"{b}, {b + c}"],
        "decimal": [f"{rng.uniform(0, 50):.{rng.randint(1, 3)}f}"],
        "words": [f"\\text{{{word}}}" for word in ("Monday", "Tuesday", "even", "odd", "circle", "ellipse")],
        "units": [f"{b}\\%", f"{b * 10}^\\circ", f"\\${b}.50", f"{b}\\text{{ cm}}^2"],
        "polynomial": [f"x^2 - {b}x + {c}"],
    }
    return kind, rng.choice(made[kind])


def rewritten(rng: random.Random, answer: str) -> str:
    """The same answer in another spelling."""
    return rng.choice(
        [
            answer.replace("\\frac", "\\dfrac"),
            answer.replace(" ", ""),
            f"x = {answer}",
            f"{answer} \\text{{ units}}",
            f"\\left{answer[:-1]}\\right{answer[-1]}" if answer[0] in "([" else answer + "\\,",
        ]
    )


def solution_of(rng: random.Random, guess: str) -> str:
    steps = [
        "We first write the condition as ${a}x + {b} = {c}$, which gives $x = \\frac{{{c} - {b}}}{{{a}}}$.",
        "Since the two triangles are similar, the ratio of their sides is ${a} : {b}$, so the area is\n"
        "\\[ A = \\frac{{1}}{{2}} \\cdot {a} \\cdot {b} = \\frac{{{c}}}{{2}}. \\]",
        "Let me check this: substituting $n = {a}$ we obtain $n^2 - {b}n + {c} > 0$, as it should be.",
        "**Step {a}:** Expanding the product, $(x + {a})(x - {b}) = x^2 + {c}x - {a}$, and comparing coefficients.",
        "There are {a} ways to choose the first and {b} ways to choose the second, hence {c} in all.",
    ]
    length, body = rng.randint(1200, 2800), ""
    while len(body) < length:
        numbers = {name: rng.randint(2, 99) for name in "abc"}
        body += rng.choice(steps).format(**numbers) + "\n\n"
    if rng.random() < 0.02:
        return body + f"The answer is ${guess}$."
    end = rng.choice(
        [
            "The answer is $\\boxed{%s}$.",
            "**Final Answer**\n\n\\[\n\\boxed{%s}\n\\]",
            "Therefore, the final answer is $\\boxed{%s}$.",
            "### Answer\n\n$$\\boxed{%s}$$",
            "\\boxed{%s}",
        ]
    )
    return body + end % guess


def pairs_of(problems: int, samples: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    pairs = []
    for _ in range(problems):
        kind, answer = answer_of(rng)
        for _ in range(samples):
            other = kind if rng.random() < 0.9 else ""
            guess = answer if rng.random() < 0.7 else answer_of(rng, other)[1]
            if guess == answer and rng.random() < 0.2:
                guess = rewritten(rng, answer)
            pairs.append((answer, solution_of(rng, guess)))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=750)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    import math_verify

    from hubkit.verifiers.base import Task
    from hubkit.verifiers.pool import Pool
    from hubkit.verifiers.table import verify_inline

    pairs = pairs_of(options.problems, options.samples, options.seed)
    rows: list[dict[str, Any]] = [
        {"answer": answer, "verifier": "math", "source": "", "metadata": ""} for answer, _ in pairs
    ]

    def plain() -> list[bool]:
        return [
            math_verify.verify(math_verify.parse(f"\\boxed{{{answer}}}"), math_verify.parse(text))
            for answer, text in pairs
        ]

    def ours(pool: Pool) -> list[bool]:
        work = ((None, verify_inline(row, text)) for row, (_, text) in zip(rows, pairs, strict=True))
        return [verdict.status == "correct" for _, verdict in pool.stream(work)]

    def warm(pool: Pool) -> None:
        """sympy is loaded in all workers, and the LaTeX parser has learnt its grammar, as after the first minute."""
        for seed in range(20):
            tasks = [Task("math", f"x^{{2}}-{seed}x+{n}", f"{n}+x^2-{seed}x") for n in range(16)]
            for _ in pool.stream((None, task) for task in tasks):
                pass

    processes = len(os.sched_getaffinity(0))
    plain_times, our_times, starts = [], [], []
    for _ in range(options.rounds):
        begin = time.perf_counter()
        expected = plain()
        plain_times.append(time.perf_counter() - begin)
        # A new pool each round: no round finds the verdicts of the one before it in its workers.
        pool = Pool(processes)
        begin = time.perf_counter()
        warm(pool)
        starts.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        found = ours(pool)
        our_times.append(time.perf_counter() - begin)
        pool.close()
    differ = [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]
    work = [verify_inline(row, text) for row, (_, text) in zip(rows, pairs, strict=True)]
    sent = sum(isinstance(item, Task) for item in work)
    plain_time, our_time = statistics.median(plain_times), statistics.median(our_times)
    print(f"{len(pairs)} pairs, {sum(expected)} correct, {sent} need a worker; {processes} processes")
    print(f"plain math-verify loop  {len(pairs) / plain_time:>9.0f} pairs/s")
    print(
        f"hubkit                  {len(pairs) / our_time:>9.0f} pairs/s   {plain_time / our_time:.1f} times as fast"
    )
    print(f"start of the workers    {statistics.median(starts):>9.1f} s")
    print(f"verdicts that differ    {len(differ):>9}")
    for i in differ[:5]:
        print("  key", pairs[i][0], "| text ends", repr(pairs[i][1][-80:]), "| plain", expected[i])


if __name__ == "__main__":
    main()
