"""How fast students train: hubkit's trainer beside plain TRL, in one run, on random weights in real shapes.

    python benchmarks/train.py --table                                           # on a GPU: all rows of TABLE
    python benchmarks/train.py --shape qwen3-0.6b --length 8192                  # one of them
    python benchmarks/train.py --shape tiny --length 64 --steps 4 --device cpu   # what the tests run

Prints one line of JSON per trainer: tokens/s, tokens per second of CPU (which other work on the machine leaves as it
is), MFU (of --peak-tflops, by default an H100's 989 in bfloat16; a token is 6 x parameters floating-point operations,
4 x for an adapter), the peak of memory in GiB, attention, layout and precision. Needs no internet: weights and tokens
are random, the tokenizer is one of the nano models'. Rows are of --length tokens, or of --length and --short in turn.
The first --warm steps, in which kernels tune themselves, are not counted.

Plain TRL is SFTTrainer with its own packing of the same rows and the same precision; its weights are float32, too.
Each trainer has a process of its own, so that memory of one is not counted for the other.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

TOKENIZER: Final = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "student-s"
DENSE: Final = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
LINEAR: Final = {
    "vocab_size": 248320,
    "head_dim": 256,
    "max_position_embeddings": 65536,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}
SHAPES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "tiny": (
        "qwen3",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "vocab_size": 600,
        },
    ),
    "smollm2-135m": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        "qwen3",
        DENSE
        | {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-1.7b": (
        "qwen3",
        DENSE
        | {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3.5-0.8b": (
        "qwen3_5_text",
        LINEAR
        | {
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "linear_num_value_heads": 16,
            "tie_word_embeddings": True,
        },
    ),
    "8b": (
        "qwen3",
        DENSE
        | {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "tie_word_embeddings": False,
        },
    ),
}

TABLE: Final = (
    ("--shape", "qwen3-0.6b", "--length", "8192"),
    ("--shape", "qwen3-1.7b", "--length", "16384"),
    ("--shape", "qwen3.5-0.8b", "--length", "16384"),
    ("--shape", "qwen3.5-0.8b", "--length", "32768"),
    ("--shape", "8b", "--method", "lora", "--length", "4096"),
    ("--shape", "qwen3-0.6b", "--length", "700", "--examples", "96"),
)
"""What is measured on one GPU of 80 GB; other arguments are added to each row, and are stronger."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", action="store_true", help="all rows of TABLE, one after the other")
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--short", type=int, help="every second row is of this many tokens")
    parser.add_argument("--examples", type=int, default=8, help="per optimizer step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--tokens-per-device", type=int)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="hubkit's run.precision")
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="default: on GPUs")
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument("--only", choices=["hubkit", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_base(options: argparse.Namespace, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, shape = SHAPES[options.shape]
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for path in TOKENIZER.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)


def make_rows(options: argparse.Namespace, folder: Path) -> None:
    import random

    import pyarrow as pa

    from hubkit.records import write_rows
    from hubkit.students.tokens import KEYS, SCHEMA

    drawn = random.Random(0)
    rows = []
    for number in range(options.examples * options.steps):
        length = options.short if options.short and number % 2 else options.length
        ids = [drawn.randrange(5, 500) for _ in range(length)]
        rows.append({"id": str(number), "sample": 0, "input_ids": ids, "trained": [length // 10, length]})
    with pa.ipc.new_stream(folder / "tokens-00000.arrow", SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    write_rows(folder / "rows.parquet", [{"id": row["id"], "sample": 0} for row in rows], KEYS)


def trainer_of(options: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """The trainer, rows, and what hubkit says of the layout that it chose."""
    import torch

    from hubkit.store import StepContext
    from hubkit.students.gates import open_tokenizer
    from hubkit.students.loading import open_trainer
    from hubkit.students.rows import TokenRows
    from hubkit.students.watch import watcher

    base, folder = options.folder / "base", options.folder
    cpu = options.device == "cpu" or not torch.cuda.is_available()
    rows = TokenRows(folder, folder, None, 1.0)
    sft = {
        "learning_rate": 1e-5,
        "num_train_epochs": 1,
        "per_device_train_batch_size": options.examples,
        "gradient_accumulation_steps": 1,
        "max_length": options.length,
        "gradient_checkpointing": not cpu if options.checkpointing is None else options.checkpointing,
    }
    lora = {"r": 64, "lora_alpha": 128, "target_modules": "all-linear"} if options.method == "lora" else None
    work = folder / options.only
    work.mkdir(exist_ok=True)
    if options.only == "hubkit":
        context = StepContext(
            step="benchmark",
            config={"seed": 0, "sft": sft, "lora": lora},
            runtime={
                "device": options.device,
                "tokens_per_device": options.tokens_per_device,
                "attention": options.attention,
                "precision": options.precision,
            },
            inputs={},
            models={},
            out=work,
            work=work,
        )
        trainer, _ = open_trainer(context, base, open_tokenizer(base), rows)
        trainer.add_callback(
            watcher(context, trainer, [rows.dataset[i]["input_ids"] for i in (0, -1)], False)
        )
        return trainer, rows, context.metrics
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **sft | {"per_device_train_batch_size": 1 if not cpu else options.examples},
        output_dir=str(work),
        use_cpu=cpu,
        bf16=not cpu,
        packing=not cpu,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    if not cpu:
        config.gradient_accumulation_steps = options.examples
    dtype = torch.float32 if lora is None or cpu else torch.bfloat16
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=dtype),
        args=config,
        train_dataset=datasets.Dataset.from_list([dict(rows.dataset[i]) for i in range(len(rows))]),
        processing_class=open_tokenizer(base),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **lora) if lora else None,
    )
    chosen = {"attention": trainer.model.config._attn_implementation, "layout": "TRL's"}
    return trainer, rows, chosen | {"precision": "bfloat16" if config.bf16 else "float32"}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import PrinterCallback, TrainerCallback

    trainer, rows, chosen = trainer_of(options)
    times: list[float] = []
    spent: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.monotonic())
            spent.append(time.process_time())

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    # Rows are alike on average in every step, however many steps a trainer's packing makes of them.
    share = (len(times) - options.warm) / len(times)
    counted = sum(rows.lengths) * share
    rate = counted / (times[-1] - times[options.warm - 1])
    parameters = sum(p.numel() for p in trainer.model.parameters())
    cuda = torch.cuda.is_available() and options.device != "cpu"
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    work = (4 if options.method == "lora" else 6) * parameters * rate
    return {
        "trainer": options.only,
        "shape": options.shape,
        "method": options.method,
        "length": options.length,
        "steps": len(times),
        "tokens_per_s": round(rate, 1),
        "tokens_per_cpu_s": None if cuda else round(counted / (spent[-1] - spent[options.warm - 1]), 1),
        "mfu": round(work / (options.peak_tflops * 1e12), 4) if cuda else None,
        "peak_gib": round(peak / 2**30, 2),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "attention": chosen.get("attention"),
        "layout": chosen.get("layout"),
        "precision": chosen.get("precision"),
    }


def main() -> None:
    options = arguments()
    if options.table:
        given = [argument for argument in sys.argv[1:] if argument != "--table"]
        done = [subprocess.run([sys.executable, __file__, *row, *given]).returncode for row in TABLE]
        sys.exit(max(done))
    if options.only:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_base(options, Path(folder) / "base")
        make_rows(options, Path(folder))
        for name in ("hubkit", "trl"):
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr[-2000:], file=sys.stderr)
                sys.exit(f"{name} failed")
            print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
