"""Pruning of words by a token classifier of LLMLingua-2's architectures, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compressing import compressing, outcome, real_traces, save_classifier
from hypothesis import given
from hypothesis import strategies as st

from hubkit.errors import InputError
from hubkit.traces.compressors import COMPRESSORS, prune_tokens
from hubkit.traces.compressors.prune import added_word
from hubkit.traces.compressors.prune_tokens import _Classifier, join_words, words_of


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp(request.param), request.param)


def config(**more: Any) -> dict[str, Any]:
    given = {"kind": "prune-tokens", "name": "c", "ratio": 0.5} | more
    return COMPRESSORS["prune-tokens"].model_validate(given).identity()


def test_words_of_real_traces_are_left_out_and_digits_stay(model: Path, tmp_path: Path) -> None:
    step = compressing(tmp_path, config(ratio=0.6, reserve=["="]), model=model)
    prune_tokens.run(step)
    kept, rejected = outcome(step)
    assert len(kept) == 8 and not rejected
    for raw in real_traces():
        row = kept[raw["id"]]
        assert added_word(raw["reasoning"], row["reasoning"]) is None
        always = [word for word in raw["reasoning"].split() if "=" in word or any(map(str.isdigit, word))]
        assert [w for w in row["reasoning"].split() if "=" in w or any(map(str.isdigit, w))] == always
        assert row["ratio"] == pytest.approx(0.6, abs=0.04) or row["ratio"] > 0.6, (
            "more only for what must stay"
        )
        assert row["reasoning"].count("\n") > 2


def test_a_word_has_the_mean_of_its_tokens_wherever_its_window_ends(model: Path) -> None:
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    text = real_traces()[0]["reasoning"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    with _Classifier(model, "cpu", 1) as classifier:
        words = words_of(text)
        (scores,) = classifier.scores([({}, words)])
        assert scores is not None and len(scores) == len(words) and 0 < min(scores) < max(scores) < 1
        again = classifier.scores([({}, words_of("Short.")), ({}, words)])[1]
        assert again == pytest.approx(scores, abs=1e-5)
    first = words_of(text)[:12]
    encoded = tokenizer("".join(first), return_tensors="pt", return_offsets_mapping=True)
    spans = encoded.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        kept = AutoModelForTokenClassification.from_pretrained(model)(**encoded).logits[0].softmax(-1)[:, 1]
    with _Classifier(model, "cpu", 1) as classifier:
        (alone,) = classifier.scores([({}, first)])
    at = 0
    for word, score in zip(first, alone or [], strict=True):
        own = [float(p) for (a, b), p in zip(spans, kept, strict=True) if a < b and at < b <= at + len(word)]
        assert score == pytest.approx(sum(own) / len(own), abs=1e-5)
        at += len(word)


def test_what_is_no_token_classifier_of_two_classes_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForTokenClassification

    folder = save_classifier(tmp_path, "bert")
    wrong = AutoConfig.from_pretrained(folder, num_labels=3)
    AutoModelForTokenClassification.from_config(wrong).save_pretrained(folder)
    with pytest.raises(InputError, match="3 classes"), _Classifier(folder, "cpu", 1):
        pass


@given(st.text(alphabet="ab1.\n \t"), st.data())
def test_what_is_left_are_words_in_order_and_the_lines_stay_apart(text: str, data: st.DataObject) -> None:
    words = words_of(text)
    assert "".join(words) == text
    stay = [data.draw(st.booleans()) for _ in words]
    left = join_words(words, stay)
    assert left.split() == [w.strip() for w, kept in zip(words, stay, strict=True) if kept and w.strip()]
    assert join_words(words, [True] * len(words)) == text
    # Words of two lines of the text never come to stand on one.
    lines = [line.split() for line in text.split("\n")]
    for line in left.split("\n"):
        assert not line.strip() or any(added_word(" ".join(of), line) is None for of in lines)
