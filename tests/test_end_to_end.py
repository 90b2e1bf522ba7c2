"""A small run of the nano recipe with all its stages, killed on the way, then used as its users would."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import warm
from support import CHROMIUM, NANO, hubkit, needs_chromium

from hubkit.localhub import LocalHub

SMALL = [
    "problems.train.size=16",
    "problems.test.size=8",
    "students.bases=[{name: s, model: ./models/student-s}]",
    "students.methods.full.sft.num_train_epochs=1",
    "students.methods.lora.sft.num_train_epochs=1",
]
# The first test waits until the run has been killed in every stage, and done: on a busy machine that takes minutes.
pytestmark = pytest.mark.timeout(1200)
ARGUMENTS = [str(NANO), *(part for value in SMALL for part in ("--set", value))]


def plan(root: Path, *more: str) -> dict[str, dict[str, Any]]:
    done = hubkit("recipe", "plan", *ARGUMENTS, "--out", str(root), "--json", *more)
    assert done.returncode == 0, done.stderr
    return {row["step"]: row for row in json.loads(done.stdout)}


def records(root: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (root / "steps").rglob("record.json")]
    return {record["step"]: record for record in found}


def run(root: Path) -> warm.Python:
    return warm.Python("-m", "hubkit", "recipe", "run", *ARGUMENTS, "--out", str(root))


def finish(root: Path) -> str:
    process = run(root)
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    return out


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder of a finished small release, whose run was killed within every stage that takes time."""
    root = tmp_path_factory.mktemp("runs")
    generator = random.Random(1)
    for kind in ("traces", "compress", "student", "evaluation", "publish"):
        process = run(root)
        until = time.monotonic() + 300
        # A step's work folder is there from its start to its end.
        while not list((root / "work" / kind).rglob("*")) and process.poll() is None:
            assert time.monotonic() < until, f"no {kind} step was seen"
            time.sleep(0.02)
        # All is pushed within two seconds.
        time.sleep(generator.uniform(0, 0.3 if kind == "publish" else 1.5))
        polite = kind == "compress"
        if process.poll() is None:
            process.send_signal(signal.SIGINT if polite else signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (130 if polite else -signal.SIGKILL), errors
        if polite:
            assert "run the same command again" in errors
        left = [record["step"] for record in records(root).values()]
        assert "publish" not in left, f"the run was done before it could be killed at {kind}"
    (root / "stdout.txt").write_text(finish(root))
    return root


@pytest.fixture(scope="session")
def hub(root: Path) -> Iterator[LocalHub]:
    with LocalHub(root / "hub") as hub:
        yield hub


def plain(hub: LocalHub, code: str) -> str:
    """Run code in a process that cannot import hubkit, with nothing but HF_ENDPOINT set."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(hub.folder.parent / "hf_home")}
    code = "import sys; sys.modules['hubkit'] = None\n" + code
    done = warm.run("-c", code, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_step_is_done_and_nothing_is_lost_or_doubled(root: Path) -> None:
    assert {row["state"] for row in plan(root).values()} == {"done"}
    found = records(root)
    traces = sum(r["counts"]["traces"] for name, r in found.items() if name.startswith("traces/"))
    assert traces == 16 * 2
    raw = found["raw/nano-teacher"]["counts"]
    assert sum(raw.values()) == traces and raw["kept"] > 0
    short = found["compressed/nano-teacher/nano-compressor"]["counts"]
    assert short["kept"] + sum(n for name, n in short.items() if name.startswith("dropped_")) == raw["kept"]
    for path in (root / "steps").rglob("data.parquet"):
        keys = pq.read_table(path, columns=["id", "sample"]).to_pylist()
        assert len({(k["id"], k["sample"]) for k in keys}) == len(keys)
    assert not list((root / "tmp").iterdir())
    assert not [p for p in (root / "work").rglob("*") if p.is_file()]


def test_a_run_that_was_killed_ends_as_one_that_was_not(root: Path, tmp_path: Path) -> None:
    finish(tmp_path)
    killed, whole = records(root), records(tmp_path)
    assert killed.keys() == whole.keys()
    for name, record in whole.items():
        if name != "publish":
            assert killed[name]["counts"] == record["counts"], name
    # What the killed run had pushed was not pushed again.
    assert sum(killed["publish"]["counts"].values()) == whole["publish"]["counts"]["pushed"]
    for path in (tmp_path / "steps" / "raw").rglob("data.parquet"):
        (twin,) = (root / "steps" / "raw").rglob("data.parquet")
        assert pq.read_table(path).equals(pq.read_table(twin))


def test_the_notebook_runs(root: Path) -> None:
    """Its code cells in order, on this release, as a kernel would run them."""
    notebook = json.loads((NANO.parents[2] / "examples" / "nano.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    environment = os.environ | {
        "HUBKIT_RUNS": str(root),
        "HUBKIT_OVERRIDES": json.dumps(SMALL),
    }
    done = warm.run("-c", "\n".join(cells), cwd=NANO.parents[2], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()
    assert "['correct', 'wrong', 'unparseable']" in said and "tokens:" in said[-2]


def test_the_run_ends_with_the_table_and_commands_that_work(root: Path) -> None:
    text = (root / "stdout.txt").read_text()
    table, closing = text.split("\nreport: ")
    students = {name.removeprefix("student/") for name in records(root) if name.startswith("student/")}
    assert len(students) == 6 and all(f"{name} " in table for name in students)
    report, *lines = closing.splitlines()
    assert Path(report).name == "report.html" and Path(report).is_file()
    commands = [line.strip() for line in lines if line.startswith("  ")]
    assert len(commands) == 3 and " space open " in commands[2]
    # As pasted into a shell in the folder of the run. The Space is opened by a test of its own.
    said = [
        subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=250)
        for command in commands[:2]
    ]
    assert [done.returncode for done in said] == [0, 0], [done.stderr[-2000:] for done in said]
    assert "'reasoning': " in said[0].stdout and "ForCausalLM(" in said[1].stdout


def test_a_second_run_does_nothing_and_says_so(root: Path) -> None:
    done = hubkit("recipe", "run", *ARGUMENTS, "--out", str(root))
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
    shown = json.loads(hubkit("recipe", "status", *ARGUMENTS, "--out", str(root), "--json").stdout)
    assert {step["state"] for step in shown["steps"]} == {"done"} and not shown["running"]


@pytest.mark.parametrize(
    ("override", "reruns", "stays"),
    [
        ("run.engines.default.batch_size=7", [], ["traces", "student", "publish"]),
        (
            "students.methods.lora.sft.learning_rate=1e-3",
            ["student/s-raw-lora", "report"],
            ["student/s-raw-full", "raw"],
        ),
        ("compressors.0.sampling.max_tokens=90", ["compress/"], ["traces", "raw", "evaluation/s/"]),
        ("teachers.0.sampling.temperature=0.5", ["traces/"], ["problems", "contamination", "evaluation/s/"]),
        ("benchmarks.0.sampling.max_tokens=300", ["evaluation/"], ["student", "compressed"]),
        ("description=other", ["publish"], ["student", "evaluation"]),
    ],
)
def test_changing_a_field_reruns_what_depends_on_it(
    root: Path, override: str, reruns: list[str], stays: list[str]
) -> None:
    rows = plan(root, "--set", override)
    for name, row in rows.items():
        if any(name.startswith(prefix) for prefix in reruns):
            assert row["state"] != "done", name
            if row["state"] == "ready":
                assert override.split("=")[0].split(".")[-1] in row["why"]
        if any(name.startswith(prefix) for prefix in stays):
            assert row["state"] == "done", name


def test_load_dataset(hub: LocalHub) -> None:
    code = """
from datasets import load_dataset
variants = ("raw", "compressed-nano-compressor", "truncated-nano-compressor")
for streaming in (False, True):
    raw, short, cut = (
        {(row["id"], row["sample"]): row for row in rows}
        for rows in (
            load_dataset("local/nano-traces", name, split="train", streaming=streaming) for name in variants
        )
    )
    assert raw.keys() >= short.keys() == cut.keys() and short
    for key, row in cut.items():
        assert row["reasoning_tokens"] == min(short[key]["reasoning_tokens"], raw[key]["reasoning_tokens"])
        assert raw[key]["reasoning"].startswith(row["reasoning"])
        assert row["messages"][1]["role"] == "assistant"
    print(len(raw), len(short), streaming)
"""
    assert len(plain(hub, code).splitlines()) == 2


def test_students_load_and_answer(hub: LocalHub) -> None:
    code = """
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
for repo, loader in (
    ("local/nano-s-raw-full", AutoModelForCausalLM),
    ("local/nano-s-raw-lora", AutoModelForCausalLM),
    ("local/nano-s-compressed-nano-compressor-lora", AutoPeftModelForCausalLM),
):
    tokenizer, model = AutoTokenizer.from_pretrained(repo), loader.from_pretrained(repo)
    chat = [{"role": "user", "content": "State the final answer to the following arithmetic problem: 4 + 5 ="}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    assert out.shape[1] > inputs["input_ids"].shape[1]
    print(tokenizer.decode(out[0]))
"""
    assert plain(hub, code)


def test_messages_train_in_trl_as_they_are(hub: LocalHub, tmp_path: Path) -> None:
    options = {
        "model_name_or_path": "local/nano-s",
        "dataset_name": "local/nano-traces",
        "dataset_config": "compressed-nano-compressor",
        "assistant_only_loss": "true",
        "max_steps": "2",
        "use_cpu": "true",
        "bf16": "false",
        "report_to": "none",
        "output_dir": str(tmp_path / "out"),
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    # What `trl sft` runs; by itself it starts a process that imports everything once more.
    plain(
        hub,
        f"arguments = {arguments!r}\nfrom trl.scripts.sft import main, make_parser\n"
        "main(*make_parser().parse_args_and_config(arguments, fail_with_unknown_args=False))",
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_cards_parse_and_every_repo_is_tied(root: Path, hub: LocalHub) -> None:
    code = """
from huggingface_hub import DatasetCard, HfApi, ModelCard, get_collection
api = HfApi()
cards = [ModelCard.load(m.id) for m in api.list_models(author="local")]
cards += [DatasetCard.load(d.id) for d in api.list_datasets(author="local")]
assert len(cards) >= 9, len(cards)
for card in cards:
    assert card.data.license == "apache-2.0" and "hubkit" in card.data.tags
    assert "arxiv.org/abs/2606.05988" in card.text
student = ModelCard.load("local/nano-s-raw-lora").data
assert student.base_model == "local/nano-s" and student.base_model_relation == "adapter"
assert "local/nano-traces" in student.datasets
(collection,) = api.list_collections(owner="local")
items = {i.item_id for i in get_collection(collection.slug).items}
assert {"local/nano-traces", "local/nano-evals", "local/nano-compare", "local/nano-s-raw-full"} <= items
"""
    plain(hub, code)


@needs_chromium
def test_the_space_in_a_browser(root: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    command = [sys.executable, "-m", "hubkit", "space", "open", "--hub", str(root / "hub")]
    space = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    asked: list[str] = []
    try:
        assert space.stdout is not None
        address = space.stdout.readline().split()[0]
        with sync_playwright() as play:
            page = play.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
            ).new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            # Six students, all three variants, each with its number of tokens.
            expect(page.locator("#side .card")).to_have_count(6, timeout=60_000)
            for text in (
                "s-raw-full",
                "s-compressed-nano-compressor-lora",
                "s-truncated-nano-compressor-full",
            ):
                expect(page.locator("#side").get_by_text(text, exact=True)).to_be_visible()
            assert page.locator("#side .card").filter(has_text="tokens").count() == 6
            page.get_by_role("tab", name="Traces").click()
            expect(page.locator("#trace .card")).to_have_count(3, timeout=60_000)
            page.get_by_role("tab", name="Results").click()
            expect(page.locator("#results table").first.locator("tbody tr")).to_have_count(7)
            page.get_by_role("tab", name="Ask").click()
            page.locator("#question textarea").fill("What is 4 + 5?")
            page.locator("#question textarea").press("Enter")
            expect(page.locator("#live .card")).to_have_count(2, timeout=60_000)
    finally:
        space.send_signal(signal.SIGTERM)
        space.wait(30)
    with pytest.raises(OSError, match="refused"):  # the app has ended too
        urllib.request.urlopen(address, timeout=5)
    assert all(url.startswith((address, "data:", "blob:")) for url in asked), asked


def held(lock: Path) -> bool:
    """Whether a process holds this lock, without taking it even for a moment."""
    inode = f":{lock.stat().st_ino} "
    return inode in Path("/proc/locks").read_text()


WHEN = """
import os, runpy, sys, time
gate, *sys.argv = sys.argv[1:]
while not os.path.exists(gate):
    time.sleep(0.02)
runpy.run_module("hubkit", run_name="__main__")
"""
"""Runs `hubkit` as soon as there is a file."""


def test_two_runs_at_once(root: Path, tmp_path: Path) -> None:
    command = ["hubkit", "recipe", "run", *ARGUMENTS, "--set", "seed=7", "--out", str(root)]
    command += ["--until", "traces"]
    lock, gate = root / "locks" / "run-nano.lock", tmp_path / "gate"
    assert not held(lock)
    # Both are there before one is stopped: that may be asking the fork server for a worker, which then waits for it.
    second = warm.Python("-c", WHEN, str(gate), *command)
    first = warm.Python("-m", *command)
    while not held(lock):
        assert first.poll() is None, "the first run ended before it held the folder"
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # it cannot be done before the second has asked
    gate.touch()
    _, told = second.communicate(timeout=300)
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == 0, errors
    assert second.returncode == 1 and "another process is at work" in told
    assert len(told.strip().splitlines()) == 1
