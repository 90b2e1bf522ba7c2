"""`hubkit release check`: a release is confirmed from what is published alone, and what is tampered with is caught."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hub_support import add
from huggingface_hub import HfApi
from small_release import Run, build
from support import hubkit
from typer.testing import CliRunner

from hubkit.cli import app
from hubkit.cli.release import _check
from hubkit.errors import HubError, InputError
from hubkit.hub import Access
from hubkit.localhub import LocalHub
from hubkit.release import publish
from hubkit.release.check import Claims, check_release
from hubkit.release.check.report import files, table
from hubkit.release.manifest import Manifest
from hubkit.store import digest


@pytest.fixture(scope="session", autouse=True)
def _no_bars() -> None:
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run, published on the local Hub in its folder."""
    run = build(tmp_path_factory.mktemp("run"), reported=True)
    run.finish("publish", publish.run, run.root / "p")
    return run


@contextmanager
def copy_of(run: Run, folder: Path) -> Iterator[tuple[LocalHub, HfApi]]:
    """The published release on a Hub of its own, to be tampered with."""
    shutil.copytree(
        run.root / "hub", folder, ignore=shutil.ignore_patterns("users", "endpoint", "server.log")
    )
    with LocalHub(folder) as hub:
        yield hub, HfApi(endpoint=hub.endpoint, token=hub.token)


def checked(hub: LocalHub, work: Path) -> Claims:
    with pytest.MonkeyPatch.context() as patch:
        from huggingface_hub import constants

        patch.setattr(constants, "HF_HUB_CACHE", str(work / "cache"))
        return check_release(Access(hub.endpoint), "local/tiny", work)[1]


def fetch(api: HfApi, repo: str, path: str, folder: Path, kind: str = "dataset") -> bytes:
    return Path(api.hf_hub_download(repo, path, repo_type=kind, cache_dir=folder)).read_bytes()


def changed_rows(data: bytes, change: Callable[[list[dict[str, Any]]], None]) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    rows = table.to_pylist()
    change(rows)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
    return sink.getvalue()


RAW = "data/raw/train-00000-of-00001.parquet"
SHORT = "data/compressed-short/train-00000-of-00001.parquet"
CUT = "data/truncated-short/train-00000-of-00001.parquet"
OUTPUTS = "data/outputs/test-00000-of-00001.parquet"


def test_an_honest_release_is_confirmed(run: Run, tmp_path: Path) -> None:
    with LocalHub(run.root / "hub") as hub:
        claims = checked(hub, tmp_path)
    assert claims.differing() == []
    assert claims.counts()["same"] > 150 and claims.counts()["not checked"] == 0
    what = {claim.what for claim in claims}
    for part in (
        "tag v1",
        "keys of steps: their configuration and inputs",
        "config truncated-short: length is the budget",
        "config raw: answer verified again",
        "contamination: test problems in the training set",
        "s-raw-full on test: answers judged again",
        "results.json: tests",
        "tradeoff.png: made again",
        "report.html: made again",
        "README.md: rendered again",
    ):
        assert part in what, part


def test_what_is_changed_after_the_release_is_caught(run: Run, tmp_path: Path) -> None:
    """One row, one number, one weight, one figure of a card, one of a result file, each by a plain commit."""

    def one_row(rows: list[dict[str, Any]]) -> None:
        rows[3]["reasoning"] = "Blink </pre> or not".ljust(90, ".")

    def one_number(rows: list[dict[str, Any]]) -> None:
        rows[0]["correct"] = not rows[0]["correct"]

    with copy_of(run, tmp_path / "hub") as (hub, api):
        raw = changed_rows(fetch(api, "local/tiny-traces", RAW, tmp_path), one_row)
        outputs = changed_rows(fetch(api, "local/tiny-evals", OUTPUTS, tmp_path), one_number)
        weights = bytearray(fetch(api, "local/tiny-s-raw-full", "model.safetensors", tmp_path, "model"))
        weights[-1] ^= 1
        card = fetch(api, "local/tiny-s-compressed-short-full", "README.md", tmp_path, "model")
        assert b"| 75.0 % |" in card
        result = ".eval_results/tiny-problems-test.yaml"
        better = fetch(api, "local/tiny-s-raw-lora", result, tmp_path, "model").replace(b"75.0", b"95.0")
        add(api, "local/tiny-traces", {RAW: raw}, repo_type="dataset")
        add(api, "local/tiny-evals", {OUTPUTS: outputs}, repo_type="dataset")
        add(api, "local/tiny-s-raw-full", {"model.safetensors": bytes(weights)})
        add(api, "local/tiny-s-compressed-short-full", {"README.md": card.replace(b"75.0 %", b"85.0 %", 1)})
        add(api, "local/tiny-s-raw-lora", {result: better})
        add(api, "local/tiny-s", {"modeling.py": b"raise SystemExit"})
        add(api, "local/tiny-compare", {"gradio.py": b"raise SystemExit"}, repo_type="space")
        found = {
            (claim.repo.removeprefix("local/tiny-"), claim.what)
            for claim in checked(hub, tmp_path).differing()
        }
    for repo in ("traces", "evals", "s-raw-full", "s-compressed-short-full", "s-raw-lora", "s"):
        assert (repo, "main") in found
    assert ("traces", "config raw: sha256 of each file") in found
    assert ("traces", "config truncated-short: made again from raw and compressed lengths") in found
    assert any(repo == "evals" and what.endswith("answers judged again") for repo, what in found)
    assert any(repo == "evals" and "accuracy" in what for repo, what in found)
    assert ("s-raw-full", "student: sha256 of each file") in found
    assert ("s", "model: sha256 of each file") in found
    assert ("s-compressed-short-full", "README.md: rendered again") in found
    assert ("s-raw-lora", f"{result}: value") in found
    # What was left alone is confirmed.
    assert [what for repo, what in found if repo == "compare"] == ["no files but those of the app"]
    assert not [f for f in found if f[0] in ("sage", "short", "problems")]


class Forger:
    """Somebody who may write to all repos, and who signs again whatever names what they changed."""

    def __init__(self, api: HfApi, folder: Path) -> None:
        self.api, self.folder = api, folder
        self.records: dict[str, dict[str, Any]] = {}
        order = json.loads(fetch(api, "local/tiny-evals", "provenance/order.json", folder))
        for step in order:
            name = f"provenance/steps/{step}.json"
            self.records[step] = json.loads(fetch(api, "local/tiny-evals", name, folder))

    def write(self, repo: str, path: str, data: bytes, step: str, file: str, kind: str = "dataset") -> None:
        """Replace a file of a repo and of the step that made it."""
        import hashlib

        add(self.api, repo, {path: data}, repo_type=kind)
        for entry in self.records[step]["files"]:
            if entry["path"] == file:
                entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    def sign(self) -> None:
        """Make keys, outputs, inputs, tags and release.json agree with what is there now."""
        outputs = {}
        for record in self.records.values():
            record["inputs"] = {k: outputs.get(v, v) for k, v in record["inputs"].items()}
            before, record["output"] = record["output"], digest(record["files"])
            outputs[before] = record["output"]
            record["key"] = digest({k: record[k] for k in ("step", "version", "config", "inputs")})
        texts = {f"provenance/steps/{s}.json": json.dumps(r).encode() for s, r in self.records.items()}
        add(self.api, "local/tiny-evals", texts, repo_type="dataset")
        text = fetch(self.api, "local/tiny-compare", "release.json", self.folder, "space")
        release = json.loads(text)
        for repo in release["repos"]:
            head = self.api.repo_info(repo["id"], repo_type=repo["type"]).sha
            if head != repo["sha"]:
                self.api.delete_tag(repo["id"], tag="v1", repo_type=repo["type"])
                self.api.create_tag(repo["id"], tag="v1", revision=head, repo_type=repo["type"])
                repo["sha"] = head
        add(self.api, "local/tiny-compare", {"release.json": json.dumps(release).encode()}, repo_type="space")


def test_figures_are_caught_whoever_signs_them(run: Run, tmp_path: Path) -> None:
    """Digests, keys, tags and release.json all agree; what was counted and drawn does not."""

    def shorter(rows: list[dict[str, Any]]) -> None:
        rows[2] |= {"reasoning_tokens": 6, "ratio": 6 / 90}

    def another_budget(rows: list[dict[str, Any]]) -> None:
        rows[1] |= {
            "reasoning": "Think </pre> and on",
            "reasoning_tokens": 19,
            "reasoning_chars": 19,
            "budget_tokens": 19,
        }

    def wrong_answer(rows: list[dict[str, Any]]) -> None:
        rows[5]["solution"] = "\\boxed{77}"
        rows[5]["messages"][1]["content"] = rows[5]["messages"][1]["content"].replace("{5}", "{77}")

    def doubled(rows: list[dict[str, Any]]) -> None:
        rows[-1] = dict(rows[0])

    with copy_of(run, tmp_path / "hub") as (hub, api):
        forger = Forger(api, tmp_path)
        for path, step, change in (
            (RAW, "raw/sage", wrong_answer),
            (SHORT, "compressed/sage/short", shorter),
            (CUT, "truncated/sage/short", another_budget),
        ):
            data = changed_rows(fetch(api, "local/tiny-traces", path, tmp_path), change)
            forger.write("local/tiny-traces", path, data, step, "data.parquet")
        problems = "data/train/train-00000-of-00001.parquet"
        data = changed_rows(fetch(api, "local/tiny-problems", problems, tmp_path), doubled)
        forger.write("local/tiny-problems", problems, data, "problems/train", "problems.parquet")
        results = json.loads(fetch(api, "local/tiny-evals", "results.json", tmp_path))
        results["tests"][0]["p"] = 0.001
        text = json.dumps(results).encode()
        forger.write("local/tiny-evals", "results.json", text, "report", "results.json")
        figure = bytearray(fetch(api, "local/tiny-evals", "tradeoff.png", tmp_path))
        figure[-20] ^= 1
        forger.write("local/tiny-evals", "tradeoff.png", bytes(figure), "report", "tradeoff.png")
        card = fetch(api, "local/tiny-s-raw-full", "README.md", tmp_path, "model")
        assert b"value: 0.75" in card
        add(api, "local/tiny-s-raw-full", {"README.md": card.replace(b"value: 0.75", b"value: 0.85")})
        forger.sign()
        differing = checked(hub, tmp_path).differing()
        found = {(claim.repo.removeprefix("local/tiny-"), claim.what) for claim in differing}
    whats = {what for _, what in found}
    assert not [
        w for w in whats if "sha256" in w or w in ("main", "tag v1") or w.startswith(("keys", "outputs of"))
    ]
    for what in (
        "config raw: answer verified again",
        "config compressed-short: reasoning tokens",
        "config compressed-short: ratio",
        "config truncated-short: budget is the compressed length",
        "config compressed-short: solution of the raw trace",
        "results.json: tests",
        "tradeoff.png: made again",
    ):
        assert what in whats, what
    assert ("s-raw-full", "model-index: accuracy on test") in found
    assert ("s-raw-full", "README.md: rendered again") in found


@pytest.mark.slow
def test_what_an_earlier_hubkit_did_not_compute_is_not_checked(run: Run, tmp_path: Path) -> None:
    with copy_of(run, tmp_path / "hub") as (hub, api):
        forger = Forger(api, tmp_path)
        results = json.loads(fetch(api, "local/tiny-evals", "results.json", tmp_path))
        del results["seed_tests"]
        for group in results["over_seeds"]:
            del group["ci_low"], group["ci_high"]
        results["headline"] = "As it was said before."
        results["tests"][0]["p"] = 0.001
        forger.records["report"]["environment"]["git_sha"] = "0" * 40
        text = json.dumps(results).encode()
        forger.write("local/tiny-evals", "results.json", text, "report", "results.json")
        forger.sign()
        claims = checked(hub, tmp_path)
    found = {c.what.removeprefix("results.json: "): c.status for c in claims if c.what.startswith("results")}
    assert found["seed tests"] == found["headline"] == "not checked"
    assert found["over seeds"] == found["students"] == "same"
    assert found["tests"] == "differs", "a figure that both compute is compared"


@pytest.mark.slow
def test_cards_of_another_hubkit_are_confirmed_where_they_are_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubkit.release.check.cards._other_code", lambda release: "by another hubkit")
    with copy_of(run, tmp_path / "hub") as (hub, api):
        card = fetch(api, "local/tiny-traces", "README.md", tmp_path)
        add(api, "local/tiny-traces", {"README.md": card + b"As an older one says.\n"}, repo_type="dataset")
        found = [c for c in checked(hub, tmp_path) if c.what == "README.md: rendered again"]
    assert [c.repo for c in found if c.status == "not checked"] == ["local/tiny-traces"]
    assert {c.status for c in found} == {"same", "not checked"} and len(found) > 8


def test_report_badge_and_exit_codes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HF_HOME": str(tmp_path / "home")}
    with copy_of(run, tmp_path / "hub") as (_, api):
        # From nothing but the Hub: no runs folder, no cache, another working folder.
        arguments = ["release", "check", "local/tiny", "--hub", str(tmp_path / "hub")]
        done = hubkit(*arguments, "--push", "--write", str(tmp_path / "r"), cwd=tmp_path, **home)
        assert done.returncode == 0, done.stderr
        assert "0 differ" in done.stdout and "✗" not in done.stdout
        assert (tmp_path / "r" / "badge.svg").read_text().startswith("<svg")
        card = fetch(api, "local/tiny-evals", "README.md", tmp_path).decode()
        (collection,) = api.list_collections(owner="local")
        cards = {"evals": card}
        cards |= {
            n: fetch(api, f"local/tiny-{n}", "README.md", tmp_path).decode() for n in ("traces", "problems")
        }
        cards |= {
            n: fetch(api, f"local/tiny-{n}", "README.md", tmp_path, "model").decode()
            for n in ("s", "s-raw-lora")
        }
        cards["space"] = fetch(api, "local/tiny-compare", "README.md", tmp_path, "space").decode()
        for name, text in cards.items():
            assert "/datasets/local/tiny-evals/resolve/main/.check/badge.svg" in text, name
            assert "/datasets/local/tiny-evals/blob/main/.check/report.md" in text, name
            assert f"/collections/{collection.slug}" in text, name
            assert "/datasets/local/tiny-evals/blob/main/provenance/recipe.json" in text, name
        text = fetch(api, "local/tiny-evals", ".check/report.md", tmp_path).decode()
        assert "0 differ" in text and "<script" not in text
        add(api, "local/tiny-short", {"config.json": b"{}"})
        # A report that was pushed changes nothing that was released; the new configuration does.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HUB_CACHE", "")  # which the command sets, for its process
        done = CliRunner().invoke(app, [*arguments, "--json"])
        said = json.loads(done.stdout)
        assert done.exit_code == 1 and not said["ok"]
        assert {c["repo"] for c in said["claims"] if c["status"] == "differs"} == {"local/tiny-short"}


def test_a_report_is_not_pushed_over_what_was_published_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/tiny-evals", repo_type="dataset")
        then = add(api, "local/tiny-evals", {"a": b"1"}, repo_type="dataset")
        claims = Claims()
        claims.compare("local/tiny-evals", "a", 1, 1)
        checked_then = SimpleNamespace(evals=SimpleNamespace(id="local/tiny-evals", head=then))
        monkeypatch.setattr("hubkit.release.check.check_release", lambda *_: (checked_then, claims))
        monkeypatch.setattr("hubkit.hub._DELAYS", [])
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        with pytest.raises(typer.Exit):
            _check("local/tiny", tmp_path, 0, "cpu", True, None, True, True)
        checked_then.evals.head = add(api, "local/tiny-evals", {"a": b"2"}, repo_type="dataset")
        add(api, "local/tiny-evals", {"a": b"3"}, repo_type="dataset")
        claims.compare("local/tiny-evals", "b", 1, 1)
        with pytest.raises(HubError, match="somebody else keeps committing"):
            _check("local/tiny", tmp_path, 0, "cpu", True, None, True, True)
        checked_then.evals.head = api.dataset_info("local/tiny-evals").sha
        with pytest.raises(InputError, match="a repo of another namespace"):
            _check("mallory/tiny", tmp_path, 0, "cpu", True, None, True, True)


def test_what_is_published_is_not_markup(tmp_path: Path) -> None:
    claims = Claims()
    claims.compare("local/x", "a [red]claim[/red] <b>", "<script>alert(1)</script>|", "[link](x)\n# heading")
    claims.wrong("local/x", "\x1b]0;owned\x07", "\x1b[2J", "\u202e\x9b2J")
    assert all(
        text.isprintable() for claim in claims for text in (claim.what, claim.published, claim.recomputed)
    )
    made = files("local/x", claims, "2026-11-24", "hubkit 0")
    text = made[".check/report.md"].decode()
    assert "<script" not in text and "\n# heading" not in text
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(claims))
    assert "[red]claim[/red]" in console.export_text()


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "not json", json.dumps({"recipe": "x", "version": 1, "evals": "../../x", "repos": []})],
)
def test_a_release_that_cannot_be_read_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"release\.json") as caught:
        Manifest.read(text)
    assert "\n" not in str(caught.value)


def test_no_such_release(run: Run, tmp_path: Path) -> None:
    with LocalHub(run.root / "hub") as hub:
        for name, why in (("local/none", "not on"), ("none", "no release"), ("../x/y", "no release")):
            with pytest.raises((HubError, InputError), match=why):
                check_release(Access(hub.endpoint), name, tmp_path)
    assert "HF_HUB_CACHE" not in os.environ or os.environ["HF_HUB_CACHE"]


def test_its_problems_can_be_evaluated_by_anybody(run: Run, tmp_path: Path) -> None:
    from hubkit.records import read_rows
    from hubkit.release.evaluating import plan_task

    with LocalHub(run.root / "hub") as hub:
        access = Access(hub.endpoint)
        task = plan_task(access, "local/tiny-problems#test", "", tmp_path)
        assert task.folder is not None and task.board.task == "test"
        ids = [row["id"] for row in read_rows(task.folder / "problems.parquet")]
        assert ids == [f"p{i}" for i in range(20)]
        with pytest.raises(HubError, match=r"no eval\.yaml"):
            plan_task(access, "local/tiny-traces#test", "", tmp_path)
