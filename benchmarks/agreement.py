"""hubkit's math verifier, math-verify and mathruler on one corpus of answers: where they agree, and who is right.

    python benchmarks/agreement.py [--mathruler PYTHON] > docs/agreement.md

benchmarks/answers.jsonl has the pairs: a key, a text with an answer, and the verdict that was decided by hand.
math-verify is the installed version, called as its README says. mathruler (PyPI: mathruler 0.1.0, sympy, pylatexenc
and tqdm) is called with another Python, so that it need not be installed beside hubkit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import math_verify

from hubkit.verifiers import verify

CORPUS = Path(__file__).parent / "answers.jsonl"

DECIDED = {
    "around the box": "What stands beside a box in its formula belongs to the answer, but not around a filled blank.",
    "bases": "Digits and base are both compared; digits without a base are a number in base ten.",
    "both sides of = and \\in": "Names that both have are compared, and every value; a name that one has is left out.",
    "clock times, dates": "Hours, minutes and the half of the day are all compared; dates are no quotients.",
    "complex numbers": "Real and imaginary part are compared.",
    "currency": "A sign of money that only one has is left out; two currencies are different answers.",
    "decimals": "A decimal is its exact value, except that six digits or more may round what has no finite decimals.",
    "equations up to a factor": "An equation is equal to its multiples and no other; 2x + 6y - 5 is no equation.",
    "expressions": "Expressions are equal where their values are, also for negative letters; letters have a case.",
    "inequalities and intervals": "Inequalities of one letter are intervals; ends are compared, and if they belong.",
    'lists with "and", every item': "Every item counts; lists and sets have no order, tuples have one.",
    "matrices and vectors": "Every cell is compared, and the shape; a determinant is no matrix.",
    "mixed numbers": "3 1/4 is three and a quarter.",
    "modular answers": "The modulus is part of the answer, and residues may differ by it.",
    "no box": "One clear answer in the last sentence counts; of several none is guessed.",
    "percent": "50% is 0.5, and not 50.",
    "ratios": "2 : 3 is 4 : 6, and no number.",
    "renamed variables and parameters": "Another letter may be another thing.",
    "repeating decimals": "What is under the bar repeats without end.",
    "separators": "Groups of three digits are one number; a comma is no decimal point.",
    "several boxes": "Boxes in one sentence are one answer, unless a word takes the first one back.",
    "signs": "A sign with two values is two values.",
    "small and large numbers": "Numbers are compared exactly, or relative to their size.",
    "spelling of the box": "A box is a box in all these spellings; one that is not closed holds nothing.",
    "tags": "An <answer> tag and #### mark the answer, as a box does.",
    "units": "A unit that only one has is left out; two are different answers; million is part of the number.",
    "what cannot be read whole": "What is not read whole is never correct.",
    "words": "Words are compared as words and not as products of letters; case and \\text do not count.",
}
"""What was decided by hand for each kind of answers, and is why the others are wrong where they differ."""

MATHRULER = """
import json, sys
from mathruler.grader import extract_boxed_content, grade_answer
for line in sys.stdin:
    row = json.loads(line)
    try:
        print(int(bool(grade_answer(extract_boxed_content(row["text"]), row["answer"]))), flush=True)
    except Exception:
        print(0, flush=True)
"""


def by_math_verify(row: dict[str, Any]) -> bool:
    try:
        key = math_verify.parse(f"\\boxed{{{row['answer']}}}")
        return bool(math_verify.verify(key, math_verify.parse(row["text"])))
    except Exception:  # what it cannot read
        return False


def by_mathruler(python: str, rows: list[dict[str, Any]]) -> list[bool]:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run([python, "-c", MATHRULER], input=lines, capture_output=True, text=True, check=True)
    return [line == "1" for line in done.stdout.split()]


def code(text: str) -> str:
    text = text.replace("\n", " ⏎ ").replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def mark(said: bool, right: bool) -> str:
    return "" if said == right else "**too kind**" if said else "too strict"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mathruler", default="", help="a Python that has mathruler")
    options = parser.parse_args()
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    right = [row["right"] == "correct" for row in rows]
    ours = [one.correct for one in verify([r["text"] for r in rows], answer=[r["answer"] for r in rows])]
    columns = {
        "hubkit": ours,
        f"math-verify {importlib.metadata.version('math-verify')}": [by_math_verify(row) for row in rows],
    }
    if options.mathruler:
        columns["mathruler 0.1.0"] = by_mathruler(options.mathruler, rows)
    print("# Agreement of verifiers\n")
    print(
        f"`python benchmarks/agreement.py` printed this page: {len(rows)} pairs of key and answer, decided by hand.\n"
        "Too kind: a wrong answer is taken for correct. Too strict: a correct one is not. hubkit was made to fit this\n"
        "corpus, so its zeros say that it does what was decided, and not how it does on other answers.\n"
    )
    if not options.mathruler:
        print("mathruler was not asked.\n")
    print("| kind | pairs | " + " | ".join(f"{name}: too kind | too strict" for name in columns) + " |")
    print("|---|---|" + "---|---|" * len(columns))
    places = defaultdict(list)
    for place, row in enumerate(rows):
        places[row["kind"]].append(place)
    for kind, found in [*sorted(places.items()), ("**all**", list(range(len(rows))))]:
        cells = []
        for said in columns.values():
            cells.append(str(sum(said[i] and not right[i] for i in found)))
            cells.append(str(sum(right[i] and not said[i] for i in found)))
        print(f"| {kind} | {len(found)} | " + " | ".join(cells) + " |")
    print("\n## Every disagreement\n")
    for kind, found in sorted(places.items()):
        differ = [i for i in found if any(said[i] != right[i] for said in columns.values())]
        if not differ:
            continue
        print(f"### {kind}\n\n{DECIDED[kind]}\n")
        print("| key | answer | decided | " + " | ".join(columns) + " |")
        print("|---|---|---|" + "---|" * len(columns))
        for i in differ:
            said = [mark(column[i], right[i]) for column in columns.values()]
            cells = [code(rows[i]["answer"]), code(rows[i]["text"]), rows[i]["right"], *said]
            print("| " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    sys.exit(main())
