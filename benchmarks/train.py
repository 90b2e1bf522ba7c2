"""How fast students train: hubkit's trainer beside plain TRL, in one run, on random weights in real shapes.

    python benchmarks/train.py --table --json table.json    # on a GPU: all rows of TABLE, 8 minutes on an H100
    python benchmarks/train.py --table --trial              # the same loop in small, on any machine: what the tests run
    python benchmarks/train.py --shape qwen3-0.6b --length 8192              # one row
    python benchmarks/train.py --base recipes/nano/models/student-s --tokens RUNS/steps/tokens/VARIANT/KEY \\
        --examples 16 --device cpu                          # a base and the tokens of a step that a run has made

Prints one line of JSON per trainer as soon as it is measured: tokens/s, tokens per second of CPU (which other work on
the machine does not change), MFU (of --peak-tflops, by default an H100's 989 in bfloat16; a token is 6 x parameters
floating-point operations, 4 x for an adapter), the peak of memory in GiB beside what hubkit estimated, attention,
layout and precision; `error` if it could not be measured, such as without enough memory; then the next one follows. A
table ends with its goals. With --json the lines are kept in a file, and a second call measures what is not in it.

Needs no internet: weights and tokens are random, the tokenizer is one of the nano models'. A table's bases take 22 GB.
(HF_HUB_OFFLINE=0 lets `kernels` fetch flash attention.) Rows are of --length tokens, or of --length and --short in
turn. The first --warm steps, in which kernels tune themselves, are not counted; it stops after --steps steps or
--seconds that count. Nothing is saved meanwhile.

Plain TRL is SFTTrainer with its own packing of the same rows and the same precision; its weights are float32, too. On
a GPU one process measures all, since imports and the kernels' tuning take longer than the steps; on a CPU each
trainer has its own, so that memory of one is not counted for the other.

How long a table takes: a trainer loads for 3 to 9 s and warms up for as long (an 8B for 40), and is measured for 15.
Fourteen are some 7 minutes on an H100; the first call of fla's kernels is over a minute more.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from train_shapes import SHAPES, SMALL, TABLE

TOKENIZER: Final = Path(__file__).parent.parent / "recipes" / "nano" / "models" / "student-s"
OURS: Final = ("goal", "goal_gib", "goal_share")
TRAINERS: Final = ("hubkit", "trl")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", action="store_true", help="all rows of TABLE, one after the other")
    parser.add_argument("--trial", action="store_true", help="small shapes: whether everything runs")
    parser.add_argument("--json", type=Path, help="a file that keeps the lines, and is gone on with")
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--base", type=Path, help="a model's folder in place of a shape")
    parser.add_argument("--tokens", type=Path, help="folder of tokens-*.arrow in place of random rows")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--short", type=int, help="every second row is of this many tokens")
    parser.add_argument("--examples", type=int, default=8, help="per optimizer step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=15.0, help="of steps that count, at most")
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument(
        "--limit", type=float, default=240.0, help="seconds after which a trainer is given up"
    )
    parser.add_argument("--minutes", type=float, help="no further trainer begins after this time")
    parser.add_argument("--tokens-per-device", type=int)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="hubkit's run.precision")
    parser.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        help="default: hubkit if memory is short, TRL on GPUs",
    )
    parser.add_argument("--sft", type=json.loads, default={}, help="more of SFTConfig, for both, as JSON")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument(
        "--profile", action="store_true", help="one more step, whose kernels are told: which took how long"
    )
    parser.add_argument("--peak-tflops", type=float, default=989.0)
    parser.add_argument(
        "--apart", action=argparse.BooleanOptionalAction, help="a process per trainer; default: on CPUs"
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_base(job: argparse.Namespace, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, shape = SHAPES[job.shape]
    if job.trial:
        shape = shape | {name: value for name, value in SMALL.items() if name in shape}
    torch.manual_seed(0)
    with torch.device("cpu" if on_cpu(job) else "cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape), dtype=torch.bfloat16)
    parts = folder.with_suffix(".parts")
    shutil.rmtree(parts, ignore_errors=True)
    model.save_pretrained(parts)
    for path in TOKENIZER.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, parts)
    parts.rename(folder)


def make_rows(job: argparse.Namespace, folder: Path) -> Path:
    """Write rows.parquet, and tokens where none are given; returns the folder of the tokens."""
    import random

    import pyarrow as pa

    from hubkit.records import write_rows
    from hubkit.students.rows import open_shard
    from hubkit.students.tokens import KEYS, SCHEMA

    count = job.examples * job.steps
    if job.tokens:
        shards = [open_shard(path).select(KEYS.names) for path in sorted(Path(job.tokens).glob("*.arrow"))]
        write_rows(folder / "rows.parquet", pa.concat_tables(shards).slice(0, count).to_pylist(), KEYS)
        return Path(job.tokens)
    drawn, rows = random.Random(0), []
    for number in range(count):
        length = max(8, (job.short if job.short and number % 2 else job.length) // (64 if job.trial else 1))
        ids = [drawn.randrange(5, 500) for _ in range(length)]
        rows.append({"id": str(number), "sample": 0, "input_ids": ids, "trained": [length // 10, length]})
    with pa.ipc.new_stream(folder / "tokens-00000.arrow", SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    write_rows(folder / "rows.parquet", [{"id": row["id"], "sample": 0} for row in rows], KEYS)
    return folder


def on_cpu(job: argparse.Namespace) -> bool:
    import torch

    return job.device == "cpu" or not torch.cuda.is_available()


def trainer_of(job: argparse.Namespace, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The trainer, rows, and what hubkit says of the layout that it chose."""
    import torch

    from hubkit.store import StepContext
    from hubkit.students.gates import open_tokenizer
    from hubkit.students.loading import open_trainer
    from hubkit.students.rows import TokenRows
    from hubkit.students.watch import watcher

    base, cpu = Path(job.base) if job.base else folder.parent / f"base-{job.shape}", on_cpu(job)
    if not base.is_dir():
        make_base(job, base)
    rows = TokenRows(make_rows(job, folder), folder, None, 1.0)
    sft = {
        "learning_rate": 1e-5,
        "num_train_epochs": 1,
        "per_device_train_batch_size": job.examples,
        "gradient_accumulation_steps": 1,
        "max_length": max(rows.lengths),
        "gradient_checkpointing": job.checkpointing,
    } | job.sft
    if sft["gradient_checkpointing"] is None:
        sft["gradient_checkpointing"] = "auto" if job.trainer == "hubkit" else not cpu
    lora = {"r": 64, "lora_alpha": 128, "target_modules": "all-linear"} if job.method == "lora" else None
    work = folder / job.trainer
    work.mkdir(exist_ok=True)
    if job.trainer == "hubkit":
        context = StepContext(
            step="benchmark",
            config={"seed": 0, "sft": sft, "lora": lora},
            runtime={
                "device": job.device,
                "tokens_per_device": job.tokens_per_device,
                "attention": job.attention,
                "precision": job.precision,
            },
            inputs={},
            models={},
            out=work,
            work=work,
        )
        trainer, _ = open_trainer(context, base, open_tokenizer(base), rows)
        examples = [rows.dataset[i]["input_ids"] for i in (0, -1)]
        trainer.add_callback(watcher(context, trainer, examples, False))
        return trainer, rows, context.metrics
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **sft | {"per_device_train_batch_size": 1 if not cpu else job.examples},
        output_dir=str(work),
        use_cpu=cpu,
        bf16=not cpu,
        packing=not cpu,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    if not cpu:
        config.gradient_accumulation_steps = job.examples
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


def measure(job: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch
    from transformers import PrinterCallback, TrainerCallback

    from hubkit.students import memory

    cuda, begun = not on_cpu(job), time.monotonic()
    memory.begin_peak()
    trainer, rows, chosen = trainer_of(job, folder)
    times: list[float] = []
    spent: list[float] = []
    kind = torch.profiler.ProfilerActivity
    profiler = torch.profiler.profile(activities=[kind.CUDA if cuda else kind.CPU])
    kernels: list[str] = []

    class Clock(TrainerCallback):  # type: ignore[misc,unused-ignore]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not times:
                self.note()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = False
            if profiler.profiler is not None:
                profiler.stop()
                kernels.extend(most_time(profiler, cuda))
                control.should_training_stop = True
                return
            self.note()
            done = len(times) - 1
            counted = times[-1] - times[min(job.warm, done)]
            # What is so slow that it is still warming up is measured from its second step.
            slow = done > 1 and times[-1] - times[0] >= 4 * job.seconds
            if job.profile and (counted >= job.seconds or slow or done == state.max_steps - 1):
                profiler.start()
            elif counted >= job.seconds or slow:
                control.should_training_stop = True

        def note(self) -> None:
            if cuda:
                torch.cuda.synchronize()
            times.append(time.monotonic())
            spent.append(time.process_time())

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    done = len(times) - 1
    first = min(job.warm, done - 1)
    # Rows are alike on average in every step, however many steps a trainer's packing makes of them.
    counted = sum(rows.lengths) * (done - first) / trainer.state.max_steps
    rate = counted / (times[-1] - times[first])
    parameters = sum(p.numel() for p in trainer.model.parameters())
    work = (4 if job.method == "lora" else 6) * parameters * rate
    return {
        "steps": done,
        "tokens_per_s": round(rate, 1),
        "tokens_per_cpu_s": None if cuda else round(counted / (spent[-1] - spent[first]), 1),
        "mfu": round(work / (job.peak_tflops * 1e12), 4) if cuda else None,
        "peak_gib": round(memory.peak_bytes("cuda" if cuda else "cpu") / 2**30, 2),
        "estimated_gib": round(chosen["memory_bytes"] / 2**30, 2) if chosen.get("memory_bytes") else None,
        "setup_s": round(times[0] - begun, 1),
        "counted_s": round(times[-1] - times[first], 1),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "checkpointing": trainer.args.gradient_checkpointing,
        "tokens_at_once": getattr(trainer, "layout", None) and trainer.layout.tokens,
        "attention": chosen.get("attention"),
        "layout": chosen.get("layout"),
        "precision": chosen.get("precision"),
    } | ({"kernels": kernels} if job.profile else {})


def most_time(profiler: Any, cuda: bool) -> list[str]:
    """Returns lines "ms  share  calls  name" of what took most time in a step, ascending by time."""
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = [(getattr(event, key) / 1e3, event.count, event.key) for event in profiler.key_averages()]
    total = sum(time for time, _, _ in events) or 1
    return [
        f"{time:9.2f} ms {time / total:6.1%} {count:6} {name[:90]}"
        for time, count, name in sorted(events)[-25:]
    ]


def work() -> None:
    """Measure the jobs that stand on stdin, a line each; a line of JSON for each goes to stdout."""
    import torch

    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print, too
    for line in sys.stdin:
        job = argparse.Namespace(**json.loads(line))
        try:
            found = measure(job, Path(job.folder))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:300]}"}
        torch.compiler.reset()  # it compiles a function for so many shapes and no more
        gc.collect()  # outside: an exception holds its frames, and so all their tensors
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        told.write(json.dumps(found) + "\n")


def results(jobs: list[dict[str, Any]], apart: bool, until: float) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each job with what was measured. Where its process ends, or takes longer than its `limit`, there is an `error`,
    and another process goes on. After `until` (a monotonic time) no further job begins."""
    process: Any = None
    with tempfile.TemporaryFile("w+") as log:
        try:
            for job in jobs:
                if time.monotonic() > until:
                    return
                if process is None:
                    process = subprocess.Popen(
                        [sys.executable, __file__, "--work"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                timer, began = threading.Timer(job["limit"], process.kill), time.monotonic()
                timer.start()
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                timer.cancel()
                if line:
                    yield job, json.loads(line)
                else:
                    log.seek(0, os.SEEK_END)
                    log.seek(max(0, log.tell() - 2000))
                    last = (log.read().strip().splitlines() or ["nothing"])[-1]
                    late = time.monotonic() - began >= job["limit"]
                    why = f"no result in {job['limit']:.0f} s" if late else f"its process ended: {last}"
                    yield job, {"error": why}
                if apart or not line:
                    process.kill()
                    process.wait()
                    process = None
        finally:
            if process is not None:
                process.kill()
                process.wait()


def goals(lines: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown: what was measured, beside TRL and the goals."""
    at = {(row["shape"], row["length"], row["trainer"]): row for row in lines}
    made = ["| shape | method | tokens | goal | hubkit | plain TRL | MFU | GiB |", "|" + "---|" * 8]
    for row in TABLE:
        shape, length = row["shape"], row["length"]
        ours, theirs = (at.get((shape, length, name), {"error": "not measured"}) for name in TRAINERS)
        first = next(other["length"] for other in TABLE if other["shape"] == shape)
        long = at.get((shape, first, "hubkit"), {}).get("tokens_per_s")
        goal = row.get("goal") or (round(row["goal_share"] * long) if long else None)
        rates = [each.get("error") or f"{each['tokens_per_s']:,.0f}" for each in (ours, theirs)]
        most = f" (at most {row['goal_gib']})" if "goal_gib" in row else ""
        wanted = f"{goal:,}" if goal else f"{row['goal_share']} of {first:,} tokens'"
        made.append(
            f"| {shape} | {row.get('method', 'full')} | {length:,} | {wanted} | {rates[0]} | {rates[1]} "
            f"| {ours.get('mfu')} | {ours.get('peak_gib')}{most} |"
        )
    return made


def main() -> None:
    options = arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.work:
        work()
        return
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    if options.trial:
        given |= {"steps": 4, "warm": 1}
    if options.base:
        given["shape"] = None
    rows = [{k: v for k, v in row.items() if k not in OURS} for row in TABLE] if options.table else [{}]
    lines: list[dict[str, Any]] = []
    if options.json and options.json.is_file():
        found = map(json.loads, options.json.read_text().splitlines())
        lines = [line for line in found if "error" not in line]
    names = ("shape", "base", "tokens", "method", "length", "short", "examples", "sft", "trainer")
    had = [[line.get(name) or None for name in names] for line in lines]
    apart = options.apart if options.apart is not None else not options.trial and on_cpu(options)
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, row in enumerate(rows):
            (place := Path(folder) / str(number)).mkdir()
            both = [given | row | {"folder": str(place), "trainer": trainer} for trainer in options.trainers]
            jobs += [job for job in both if [job[name] or None for name in names] not in had]
        until = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
        for job, measured in results(jobs, apart, until):
            lines.append({name: job[name] for name in names if job[name]} | measured)
            print(json.dumps(lines[-1]), flush=True)
            if options.json:
                options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
            if job["trainer"] == options.trainers[-1]:
                shutil.rmtree(job["folder"])
    if options.table:
        print("\n".join(goals(lines)))
    sys.exit(any("error" in line for line in lines))


if __name__ == "__main__":
    main()
