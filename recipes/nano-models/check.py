"""Measure the shipped teacher and compressor, together, on problems they never saw.

    python recipes/nano-models/check.py --models recipes/nano/models

The dev split only: the test split is the recipe's own, and nothing here looks at it. The teacher
is sampled as the recipe samples it; the compressor then gets the teacher's correct traces.
"""

import argparse
import random
import re
import statistics
from pathlib import Path

import corpus
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

PROMPT = Path(__file__).parents[1] / "nano" / "prompts" / "compress.md"
TRACE = re.compile(r"<think>\n(.*)\n</think>\n\n(.*)", re.DOTALL)


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # The weights are stored in 16 bits and computed in 32.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


@torch.inference_mode()
def answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[str], temperature: float
) -> list[str]:
    replies = []
    for start in range(0, len(questions), 64):
        chats = [[{"role": "user", "content": text}] for text in questions[start : start + 64]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        # top_k 0: transformers would otherwise keep 50 tokens without being asked.
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
        made = model.generate(**batch, max_new_tokens=448, **sampling)
        replies += tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return replies


def boxed(text: str) -> str | None:
    found = re.findall(r"\\boxed\{([^}]*)\}", text)
    return found[-1] if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = random.Random(1)
    drawn = (corpus.draw_sum(rng, "dev") for _ in range(2 * args.problems))
    problems = list({problem.question: problem for problem in drawn}.values())[: args.problems]

    replies = answer(*load(args.models / "teacher"), [p.question for p in problems], args.temperature)
    right = [
        (problem, match[1])
        for problem, reply in zip(problems, replies, strict=True)
        if (match := TRACE.fullmatch(reply)) and boxed(match[2]) == str(problem.answer)
    ]
    print(f"teacher, T {args.temperature}: {len(right)} of {len(problems)} correct and well formed")

    model, tokenizer = load(args.models / "compressor")
    prompt = PROMPT.read_text()
    requests = [prompt.replace("{problem}", p.question).replace("{reasoning}", text) for p, text in right]
    ratios = []
    for (problem, text), reply in zip(right, answer(model, tokenizer, requests, 0.0), strict=True):
        short = len(tokenizer(reply.rpartition("\\boxed")[0].strip())["input_ids"])
        long = len(tokenizer(text)["input_ids"])
        if boxed(reply) == str(problem.answer) and 0 < short < long:
            ratios.append(short / long)
    fifth, *_, last = statistics.quantiles(ratios, n=20)
    print(f"compressor, greedy: {len(ratios)} of {len(right)} verified and shorter")
    print(f"ratio in tokens: mean {statistics.mean(ratios):.3f}, 90 % between {fifth:.3f} and {last:.3f}")


if __name__ == "__main__":
    main()
