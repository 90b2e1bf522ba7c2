"""What a trace kept of another, and what it dropped or rewrote."""

from __future__ import annotations

import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

from hubkit.release import align
from hubkit.release.align import marked

WORDS = st.lists(st.sampled_from(["so", "a", "1", "+", ".", "\n", " ", "$x$", "\\(", "π"]), max_size=60).map(
    " ".join
)


def kept(parts: list[align.Part]) -> str:
    return "".join(text for kind, text, _ in parts if kind == "kept")


@given(WORDS, WORDS)
@settings(max_examples=300, deadline=None)
def test_the_parts_are_the_texts(raw: str, other: str) -> None:
    left, right = marked(raw, other)
    assert "".join(text for _, text, _ in left) == raw
    assert "".join(text for _, text, _ in right) == other
    assert kept(left).split() == kept(right).split()
    steps = [step for _, _, step in left]
    assert steps == sorted(steps)


def test_words_are_kept_dropped_or_rewritten() -> None:
    raw = "I add the tens: 40 + 30 = 70. Then 7 + 8 = 15."
    left, right = marked(raw, "40 + 30 = 70, 7 + 8 = 15.")
    assert left[0] == ("dropped", "I add the tens:", 0)
    assert ("rewritten", ",", 0) in right
    assert kept(right) == "40 + 30 = 70 7 + 8 = 15."


def test_a_formula_is_one_word() -> None:
    left, _ = marked(r"So \(a + b\) and $c + d$ hold.", r"So \(a + c\) and $c + d$ hold.")
    assert ("rewritten", r" \(a + b\)", 0) in left
    assert not any(kind == "kept" and r"\(" in text for kind, text, _ in left)


def test_what_is_cut_out_of_a_text_is_all_kept() -> None:
    """Words or steps left out anywhere, as pruning does: no word of the rest is called new."""
    dice = random.Random(0)
    words = [str(dice.randrange(30)) + ("." if n % 9 == 8 else "") for n in range(1500)]
    for part in ([w for w in words if dice.random() < 0.4], words[300:600] + words[900:], words[:200]):
        raw, other = " ".join(words), " ".join(part)
        _, right = marked(raw, other)
        # A step that lost its end begins with the next one's words: signs there may be called rewritten.
        assert len(kept(right)) > 0.9 * len(other)


def test_long_texts_take_a_moment() -> None:
    """The longest that the Space shows; the limit is far above what it takes here (0.6 s of processor time)."""
    dice = random.Random(0)
    words = [f"w{int(dice.paretovariate(0.7)) % 3000}" for _ in range(20_000)]
    texts = [
        (" ".join(words), " ".join(w for w in words if dice.random() < 0.4)),
        ("a b " * 15_000, "b a " * 5_000),
        ("\\(" * 30_000, "\\[" * 10_000),
        ("a. b. " * 10_000, "b. a. " * 3_000),
    ]
    for raw, other in texts:
        before = time.process_time()
        marked(raw, other)
        assert time.process_time() - before < 10


def test_report_and_space_hold_the_same_aligner() -> None:
    ours, theirs = ROOT / "hubkit" / "release" / "align.py", ROOT / "spaces" / "compare" / "align.py"
    assert ours.read_bytes() == theirs.read_bytes()
