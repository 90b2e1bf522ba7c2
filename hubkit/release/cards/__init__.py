"""Cards: the README.md of every repo of a release, rendered from the records of its steps and nothing else.

    Record(step="raw/nano-teacher", counts={"kept": 870, "dropped_wrong": 91}, …)
        -> "| raw | 870 | … | wrong 91 |" in the dataset's card

The YAML on top goes through huggingface_hub's card classes; the text below it through the templates
in `release/templates`, which escape every value: a recipe's description, a model's name or a prompt may hold anything.
"""

from hubkit.release.cards.context import CardContext
from hubkit.release.cards.evaluations import evals_card
from hubkit.release.cards.models import model_card, student_card
from hubkit.release.cards.problems import problems_card
from hubkit.release.cards.space import space_card
from hubkit.release.cards.traces import dataset_card

__all__ = [
    "CardContext",
    "dataset_card",
    "evals_card",
    "model_card",
    "problems_card",
    "space_card",
    "student_card",
]
