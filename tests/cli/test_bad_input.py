"""Twenty ways to give the commands something wrong: one line, no traceback, nothing made."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import warm
from support import MODELS, NANO, hubkit

from hubkit.cli import main


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """What the command answers, in this process; a traceback fails the test."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["hubkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    signal.signal(signal.SIGTERM, handler)
    out, error = capsys.readouterr()
    return int(ended.value.code or 0), out, error


@pytest.mark.parametrize("command", ["show", "plan", "run", "status", "report"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "seed=[1"], "--set seed: '[1' is not YAML"),
        (["--set", "name=@x"], "--set name: '@x' is not YAML"),
        (["--set", "name=nano--v2"], "name: the Hub does not take the name"),
        (["--set", "students.variants=[compressd-x]"], "students.variants.0: variant 'compressd-x'"),
    ],
)
def test_a_bad_override_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    command: str, arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, error = told(capsys, monkeypatch, "recipe", command, str(NANO), *arguments)
    assert code == 1 and not out
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1, error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nowhere.yaml"], "cannot read nowhere.yaml: No such file"),
        (["show", "."], "cannot read .: Is a directory"),
        (["list", "nowhere"], "no recipes below nowhere"),
        (["report", str(NANO), "--out", "nowhere"], "has no report yet"),
        (["run", str(NANO), "--only", "nonsense"], "no step matches 'nonsense'"),
        (["run", str(NANO), "--only", "report"], "which is not done"),
        (["plan", str(NANO), "--out", str(NANO)], "is not a folder"),
        (["status", str(NANO), "--out", "/dev/null"], "/dev/null is not a folder"),
        (["run", str(NANO), "--set", "teachers.0.model=./none"], "'./none' is not there"),
        (["run", str(NANO), "--set", "teachers.0.model=./recipe.yaml"], "is not a folder"),
        (["run", str(NANO), "--set", "teachers.0.model=./prompts"], "it has no config.json"),
        (["run", str(NANO), "--set", "teachers.0.model=a/b/c"], "'a/b/c' is no"),
        (["run", str(NANO), "--set", "problems.train={source: file, path: prompts}"], "no file is called 'prompts'"),
        (["run", str(NANO), "--set", "problems.train={source: file, path: none.jsonl}"], "'none.jsonl' is not there"),
        (["run", str(NANO), "--set", 'problems.train={source: file, path: "a\\0b"}'], "train.path: cannot read"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = told(capsys, monkeypatch, "recipe", *arguments)
    assert code == 1 and not out
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1, error
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "lock" not in path.name]


@pytest.mark.parametrize("command", [["status"], ["plan"], ["run", "--dry-run"]])
def test_looking_at_a_recipe_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = told(capsys, monkeypatch, "recipe", *command, str(NANO), "--out", "runz")
    assert code == 0 and out and not error
    assert not list(tmp_path.iterdir()), "a typo in --out makes no folder"
    assert command != ["status"] or "there is no folder runz yet" in out


def test_status_sees_a_run_under_way_and_leaves_its_lock_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubkit.store import exclusive

    lock = tmp_path / "locks" / "run-nano.lock"
    arguments = ["recipe", "status", str(NANO), "--out", str(tmp_path), "--json"]
    with exclusive(lock, "nano"):
        assert json.loads(told(capsys, monkeypatch, *arguments)[1])["running"] is True
    assert json.loads(told(capsys, monkeypatch, *arguments)[1])["running"] is False
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [lock]


READ_ONLY = """
import os, sys
from hubkit.cli import main

def call(*arguments):
    sys.argv = ["hubkit", "recipe", *arguments]
    try:
        main()
    except SystemExit as ended:
        return ended.code

command, recipe, folder = sys.argv[1:]
# Once as whoever we are, so that all is loaded: nobody may not read the packages of root.
call(command, recipe, "--out", folder + "/new", *(["--dry-run"] if command == "run" else []))
if os.geteuid() == 0:
    os.seteuid(65534)
sys.exit(call(command, recipe, "--out", folder + "/runs"))
"""


@pytest.mark.parametrize("command", ["run", "status", "plan"])
def test_a_runs_folder_that_cannot_be_written(command: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        runs = Path(name) / "runs"
        runs.mkdir()
        runs.chmod(0o555)
        done = warm.run("-c", READ_ONLY, command, str(NANO), name)
        assert not list(runs.iterdir())
    if command == "run":
        assert done.returncode == 1
        assert done.stderr == f"error: cannot write in {runs} (choose another folder with --out)\n"
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_a_model_without_tokenizer_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe"
    shutil.copytree(NANO.parent, recipe, ignore=shutil.ignore_patterns("README.md"))
    model = recipe / "models" / MODELS.joinpath("teacher").name
    (model / "tokenizer_config.json").unlink()
    (model / "chat_template.jinja").unlink()
    monkeypatch.chdir(tmp_path)
    code, _, error = told(capsys, monkeypatch, "recipe", "run", str(recipe / "recipe.yaml"), "--dry-run")
    assert code == 1 and "the tokenizer of 'nano-teacher' has no chat template" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_locale_without_utf_8_stops_nothing(tmp_path: Path, locale: dict[str, str]) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    shutil.copytree(NANO.parent / "prompts", folder / "prompts")
    text = NANO.read_text(encoding="utf-8").replace("description: ", "description: größer → ", 1)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    listed = hubkit("recipe", "list", str(tmp_path), **locale)
    assert listed.returncode == 0 and "gr" in listed.stdout, listed.stderr
    shown = hubkit(
        "recipe", "show", str(folder / "recipe.yaml"), "--set", "description=größe", "--json", **locale
    )
    assert json.loads(shown.stdout)["description"] == "größe", shown.stderr
    failed = hubkit("recipe", "show", str(folder / "recipe.yaml"), "--set", "größe=1", **locale)
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1, failed.stderr


def test_an_error_about_hostile_names_stays_one_line_of_plain_text(tmp_path: Path) -> None:
    name = "a\x1b[31mred\x07\nsecond"
    done = hubkit(
        "recipe", "plan", str(NANO), "--set", f"students.variants=['{name}']", "--out", str(tmp_path)
    )
    assert done.returncode == 1 and "red" in done.stderr
    assert (
        len(done.stderr.strip().splitlines()) == 1 and "\x1b" not in done.stderr and "\x07" not in done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["release", "check", "local/nano", "--write", "taken"], "taken is not a folder"),
        (["release", "export", "local/nano", "--out", "taken"], "taken is not a folder"),
        (["submit", "org/model", "--results", "none"], "none"),
        (["evaluate", "org/model", "--task", "x|0", "--out", "taken"], "taken"),
        (["space", "open", "local/nano", "--hub", "none"], "there is no local Hub at none"),
        (["recipe", "new", "--from", "org/name", "--out", "taken"], "taken"),
    ],
)
def test_what_lies_here_is_looked_at_before_a_hub_is_asked(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    done = hubkit(*arguments, cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_x")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr and "127.0.0.1" not in done.stderr, done.stderr
