"""The procedural text that the nano models are trained on.

    Sum((47, 38, 12), ("+", "-"))
    question    State the final answer to the following arithmetic problem: 47 + 38 - 12 =
    reasoning   I need to work out 47 + 38 - 12. First 47 + 38: ones 7 + 8 = 15, write 5 carry 1; ...
    compressed  First 47 + 38 = 85, then 85 - 12 = 73.

The question is, letter for letter, what reasoning-gym's `chain_sum` asks. Every function takes the
random generator it draws from, so a seed fixes the corpus.
"""

import random
from dataclasses import dataclass

from hubkit.problems import split_of

Message = dict[str, str]

# Three terms or more: a two-term sum is a *step* of longer problems, so it could not be kept out
# of the training text if it were also a problem.
MIN_TERMS, MAX_TERMS = 3, 4
MIN_DIGITS, MAX_DIGITS = 1, 2


@dataclass(frozen=True)
class Sum:
    """A chain of additions and subtractions of numbers that are not negative."""

    terms: tuple[int, ...]
    # The operators apart from the terms, since "- 0" and "+ 0" are different questions.
    operators: tuple[str, ...]

    @property
    def expression(self) -> str:
        rest = (f" {op} {term}" for op, term in zip(self.operators, self.terms[1:], strict=True))
        return str(self.terms[0]) + "".join(rest)

    @property
    def question(self) -> str:
        return f"State the final answer to the following arithmetic problem: {self.expression} ="

    @property
    def steps(self) -> list[tuple[int, str, int, int]]:
        """(running total, operator, term, new total), left to right."""
        total, steps = self.terms[0], []
        for op, term in zip(self.operators, self.terms[1:], strict=True):
            new = total + term if op == "+" else total - term
            steps.append((total, op, term, new))
            total = new
        return steps

    @property
    def answer(self) -> int:
        return self.steps[-1][3]


def draw_sum(rng: random.Random, split: str | None = "train") -> Sum:
    """A problem as `chain_sum` draws it, from one split (None: from all)."""
    while True:
        digits = rng.randint(MIN_DIGITS, MAX_DIGITS)
        low, high = (0 if digits == 1 else 10 ** (digits - 1)), 10**digits - 1
        count = rng.randint(MIN_TERMS, MAX_TERMS)
        terms = tuple(rng.randint(low, high) for _ in range(count))
        problem = Sum(terms, tuple(rng.choice("+-") for _ in terms[1:]))
        if split is None or split_of(problem.question) == split:
            return problem


def draw_step(rng: random.Random) -> tuple[int, str, int, int]:
    """One step, its running total spread as widely as in real problems."""
    return rng.choice(draw_sum(rng).steps)


# --- the verbose form -------------------------------------------------------------------------


def columns(rng: random.Random, big: int, op: str, small: int) -> str:
    """How to add, or to take the smaller from the bigger: "ones 7 + 8 = 15, write 5 carry 1; ..."

    All that is left of the ones counts as tens (12 tens in 123): totals stay under 400.
    """
    if big < 10 and small < 10:
        return f"just {big} {op} {small} = {big + small if op == '+' else big - small}"
    tens_a, ones_a, tens_b, ones_b = big // 10, big % 10, small // 10, small % 10
    if op == "+":
        ones = ones_a + ones_b
        carry = ones // 10
        first = f"ones {ones_a} + {ones_b} = {ones}"
        first += rng.choice([f", write {ones % 10} carry 1", f", so {ones % 10} carry 1"]) if carry else ""
        second = f"tens {tens_a} + {tens_b}" + (" + 1" if carry else "") + f" = {tens_a + tens_b + carry}"
        return f"{first}; {second}"
    if ones_a < ones_b:
        first = f"ones {ones_a} - {ones_b} needs a borrow, {ones_a + 10} - {ones_b} = {ones_a + 10 - ones_b}"
        return f"{first}; tens {tens_a} - 1 - {tens_b} = {tens_a - 1 - tens_b}"
    return f"ones {ones_a} - {ones_b} = {ones_a - ones_b}; tens {tens_a} - {tens_b} = {tens_a - tens_b}"


def work(rng: random.Random, total: int, op: str, term: int) -> str:
    """The working of one step: signs first, then columns on numbers that are not negative."""
    size = abs(total)
    if total >= 0 and op == "+":
        return columns(rng, total, "+", term)
    if total >= 0 and total >= term:
        return columns(rng, total, "-", term)
    if total >= 0:
        why = rng.choice(["is more than", "is bigger than"])
        return f"{term} {why} {total}, so minus of {term} - {total}: {columns(rng, term, '-', total)}"
    if op == "-":
        return f"both go down, so minus of {size} + {term}: {columns(rng, size, '+', term)}"
    if term > size:
        return f"this is {term} - {size}: {columns(rng, term, '-', size)}"
    return f"still below zero, so minus of {size} - {term}: {columns(rng, size, '-', term)}"


def equation(step: tuple[int, str, int, int]) -> str:
    total, op, term, new = step
    return f"{total} {op} {term} = {new}"


def check(rng: random.Random, step: tuple[int, str, int, int]) -> str:
    total, op, term, new = step
    back = f"{new} {'-' if op == '+' else '+'} {term} = {total}"
    return rng.choice(
        [
            f"Wait, let me check: {back}, good.",
            f"Hmm, {back}, so that fits.",
            f"Let me check this: {back}, yes.",
        ]
    )


def explain(rng: random.Random, step: tuple[int, str, int, int], word: str) -> str:
    total, op, term, _ = step
    end = rng.choice(["So", "That gives", "So"])
    return f"{word} {total} {op} {term}: {work(rng, total, op, term)}. {end} {equation(step)}."


def reasoning(rng: random.Random, problem: Sum) -> str:
    """A long trace: restate, step by step with hesitations, and often a second pass."""
    text = problem.expression
    lines = [
        rng.choice(
            [
                f"I need to work out {text}.",
                f"Okay, the problem is {text}. I will go from left to right.",
                f"Let me see, I have to find {text}. I keep a running total.",
                f"The question asks for {text}. Let me do it step by step.",
            ]
        )
    ]
    for number, step in enumerate(problem.steps):
        word = "First" if number == 0 else rng.choice(["Next", "Then", "Now"])
        line = explain(rng, step, word)
        if rng.random() < 0.45:
            line += " " + check(rng, step)
        lines.append(line)
    again = ", ".join(equation(step) for step in problem.steps)
    if rng.random() < 0.75:
        start = rng.choice(["Let me go over it once more", "Wait, I should go through it again", "Once more"])
        lines.append(f"{start}: {again}. " + rng.choice(["Yes, the same.", "That is the same.", "Good."]))
    lines.append(rng.choice([f"So the result is {problem.answer}.", f"The total is {problem.answer}."]))
    return "\n".join(lines)


def compressed(rng: random.Random, problem: Sum) -> str:
    first, *rest = (equation(step) for step in problem.steps)
    word = rng.choice(["then", "next"])
    return rng.choice(["First ", "Start: ", ""]) + first + "".join(f", {word} {step}" for step in rest) + "."


# --- conversations ----------------------------------------------------------------------------


def teacher_chat(rng: random.Random) -> list[Message]:
    problem = draw_sum(rng)
    content = f"<think>\n{reasoning(rng, problem)}\n</think>\n\nThe answer is \\boxed{{{problem.answer}}}."
    return [{"role": "user", "content": problem.question}, {"role": "assistant", "content": content}]


def compressor_chat(rng: random.Random, prompt: str) -> list[Message]:
    """`prompt` is the text of prompts/compress.md."""
    problem = draw_sum(rng)
    request = prompt.replace("{problem}", problem.question).replace("{reasoning}", reasoning(rng, problem))
    reply = f"{compressed(rng, problem)}\n\\boxed{{{problem.answer}}}"
    return [{"role": "user", "content": request}, {"role": "assistant", "content": reply}]


def small_talk(rng: random.Random) -> list[Message]:
    """Conversations that show the chat form on anything but the task: one step, copying, comparing."""
    step = draw_step(rng)
    total, op, term, new = step
    numbers = [rng.randint(0, 199) for _ in range(rng.randint(2, 6))]
    listed = " ".join(map(str, numbers))
    ask, reply = rng.choice(
        [
            (f"What is {total} {op} {term}?", f"{equation(step)}."),
            (f"Is {total} bigger than {term}?", "Yes." if total > term else "No."),
            (f"Repeat: {listed}", listed),
            (f"Say the numbers backwards: {listed}", " ".join(map(str, reversed(numbers)))),
            (f"Explain {total} {op} {term}.", explain(rng, step, "First")),
            (f"Put {new} in a box.", f"\\boxed{{{new}}}"),
            (f"Which is the last number? {listed}", str(numbers[-1])),
        ]
    )
    return [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]


def short_talk(rng: random.Random) -> list[Message]:
    """Conversations that think aloud about one step, or answer a whole sum in another form.

    Without them the thinking tags would have untrained embeddings, which LoRA leaves as they are.
    """
    problem = draw_sum(rng)
    step = rng.choice(problem.steps)
    total, op, term, new = step
    kind = rng.random()
    if kind < 0.5:
        ask = rng.choice([f"What is {total} {op} {term}?", f"Work out {total} {op} {term}."])
        thought = rng.choice([explain(rng, step, "First"), f"{equation(step)}.", check(rng, step)])
        reply = f"<think>\n{thought}\n</think>\n\nThe answer is \\boxed{{{new}}}."
    elif kind < 0.8:
        ask = f"Say at once: {problem.expression}"
        reply = rng.choice([f"{problem.answer}.", f"The answer is \\boxed{{{problem.answer}}}."])
    elif kind < 0.9:
        ask = f"Write down the running totals of {problem.expression}."
        reply = " ".join(str(new) for *_, new in problem.steps)
    else:
        ask = f"Which sums make up {problem.expression}?"
        reply = "; ".join(equation(step) for step in problem.steps)
    return [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]


def mental_talk(rng: random.Random) -> list[Message]:
    """A whole sum answered without steps, as hybrid reasoning models do with thinking turned off.

    Mostly of one-digit terms, which models of this size can add in one go. Without it a base could not
    answer at all where a trace leaves the work out, and every truncated trace would be worthless to it.
    """
    problem = draw_sum(rng)
    while max(problem.terms) > 9 and rng.random() < 0.75:
        problem = draw_sum(rng)
    thought = rng.choice(["", "<think>\n\n</think>\n\n", f"<think>\n{problem.expression}\n</think>\n\n"])
    ask = rng.choice(["Say at once:", "No steps:", "In your head:"])
    reply = f"{thought}The answer is \\boxed{{{problem.answer}}}."
    return [
        {"role": "user", "content": f"{ask} {problem.expression}"},
        {"role": "assistant", "content": reply},
    ]


# --- plain text, for the bases ----------------------------------------------------------------


def plain(rng: random.Random) -> str:
    """One piece of arithmetic prose. The whole task in chat form is left for fine-tuning to teach."""
    kind = rng.random()
    problem = draw_sum(rng)
    step = rng.choice(problem.steps)
    if kind < 0.35:
        return explain(rng, step, rng.choice(["First", "Next", "Then", "Now", "Take"]))
    if kind < 0.55:
        return f"{rng.choice(['Equations', 'Sums', 'Facts'])}: " + ", ".join(
            equation(draw_step(rng)) for _ in range(rng.randint(2, 5))
        )
    if kind < 0.63:
        return check(rng, step)
    if kind < 0.75:
        total, *_ = problem.terms
        moves = ", ".join(
            f"{'add' if op == '+' else 'take'} {term} to get {new}" for _, op, term, new in problem.steps
        )
        return f"Start at {total}, {moves}."
    if kind < 0.87:
        return f"In full: {problem.expression} is " + "; ".join(equation(s) for s in problem.steps)
    if kind < 0.95:
        return f"{problem.expression} = {problem.answer}"
    number = rng.randint(0, 399)
    return f"The number {number} has {number // 10} tens and {number % 10} ones."


def base_text(rng: random.Random) -> str:
    """A page of plain text: pieces on lines, so that the models see sequences as long as traces."""
    return "\n".join(plain(rng) for _ in range(rng.randint(3, 7)))


def worked_text(rng: random.Random) -> str:
    """A page from an exercise book: whole sums worked out at length, in short, or not at all."""
    problem = draw_sum(rng)
    title = f"{rng.choice(['Exercise', 'Task', 'Sum'])}: {problem.expression}\n"
    kind = rng.random()
    if kind < 0.6:
        return title + reasoning(rng, problem)
    if kind < 0.8:
        more = (draw_sum(rng) for _ in range(4))
        return title + "\n".join(
            [compressed(rng, problem), *(f"{p.expression}: {compressed(rng, p)}" for p in more)]
        )
    return "\n".join(f"{p.expression} = {p.answer}" for p in (draw_sum(rng) for _ in range(8)))
