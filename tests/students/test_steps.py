"""Which examples make a step, and how they are laid out."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hubkit.students.steps import MICRO_BATCH, Layout, collate, micro_batches, steps_of_epoch, total_steps


def test_an_epoch_is_every_example_once_in_an_order_of_its_own() -> None:
    first, again, second = (steps_of_epoch(50, 16, 7, epoch) for epoch in (0, 0, 1))
    assert first == again != second
    assert [len(step) for step in first] == [16, 16, 16, 2]
    for steps in (first, second):
        assert sorted(i for step in steps for i in step) == list(range(50))
    assert steps_of_epoch(50, 16, 8, 0) != first
    assert steps_of_epoch(5, 2, 7, 3, shuffled=False) == [[0, 1], [2, 3], [4]]


def test_steps_are_counted_as_trainer_counts_them() -> None:
    assert total_steps(50, 16, 3) == 12
    assert total_steps(50, 16, 0.3) == 2
    assert total_steps(50, 16, 3, max_steps=5) == 5


@given(
    lengths=st.lists(st.integers(2, 400), min_size=1, max_size=40),
    packed=st.booleans(),
    tokens=st.integers(1, 2000),
    processes=st.integers(1, 9),
)
def test_every_example_is_laid_out_once_and_fits(
    lengths: list[int], packed: bool, tokens: int, processes: int
) -> None:
    layout = Layout(packed, tokens, processes)
    dealt = micro_batches(lengths, layout)
    assert len(dealt) == processes
    assert len({len(batches) for batches in dealt}) == 1, "processes wait for each other in each micro-batch"
    every = [batch for batches in dealt for batch in batches]
    assert sorted(i for batch in every for i in batch) == list(range(len(lengths)))
    for batch in every:
        cost = layout.cost([lengths[i] for i in batch])
        assert cost <= tokens or len(batch) == 1
        assert cost == (
            sum(lengths[i] for i in batch)
            if packed
            else len(batch) * max((lengths[i] for i in batch), default=0)
        )
    empty = sum(not batch for batch in every)
    assert empty < processes and (not empty or max(map(len, every)) == 1)


def test_work_is_even_over_processes() -> None:
    lengths = [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100] * 4
    layout = Layout(packed=True, tokens=2000, processes=4)
    sums = [sum(lengths[i] for batch in batches for i in batch) for batches in micro_batches(lengths, layout)]
    assert max(sums) < 1.25 * min(sums)


@given(
    lengths=st.lists(st.integers(2, 400), min_size=1, max_size=8),
    tokens=st.integers(400, 2000),
)
def test_padding_costs_least(lengths: list[int], tokens: int) -> None:
    """No other cut of the sorted lengths has less padding and micro-batches together."""
    layout = Layout(False, tokens)

    def cost(batches: list[list[int]]) -> int:
        return sum(layout.cost(batch) + MICRO_BATCH for batch in batches)

    ordered = sorted(lengths)
    others = []
    for cuts in itertools.product((False, True), repeat=len(ordered) - 1):
        batches = [[ordered[0]]]
        for length, cut in zip(ordered[1:], cuts, strict=True):
            batches = [*batches, [length]] if cut else [*batches[:-1], [*batches[-1], length]]
        others += [batches] if all(layout.cost(batch) <= tokens for batch in batches) else []
    [dealt] = micro_batches(lengths, layout)
    assert cost([[lengths[i] for i in batch] for batch in dealt]) == min(map(cost, others))


def test_a_first_token_is_never_predicted_from_the_example_before() -> None:
    examples = [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8, 9], "labels": [8, 9]}]
    made = collate(examples, Layout(packed=True, tokens=9), pad=0)
    assert made["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert made["labels"].tolist() == [[-100, 6, 7, -100, 9]]
    assert made["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    padded = collate(examples, Layout(packed=False, tokens=9), pad=0)
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert padded["labels"].tolist() == [[-100, 6, 7], [-100, 9, -100]]
    without_mask = collate(examples, Layout(packed=False, tokens=9, masked=False), pad=0)
    assert without_mask["position_ids"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert "attention_mask" not in without_mask
    assert without_mask["labels"].tolist() == padded["labels"].tolist()
