"""What jobs install for hubkit: built, installed by uv, and asked back from what uv wrote down."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from hubkit.errors import InputError
from hubkit.executors import installation
from hubkit.executors.installation import BOOTSTRAP, from_here

ASK = "from hubkit.executors.installation import from_here; from pathlib import Path; print(from_here(Path('built')))"


def uv(*arguments: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("uv")), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def ask(python: Path) -> subprocess.CompletedProcess[str]:
    """What from_here says where `python` runs; the packages that it needs come from this interpreter."""
    here = Path(installation.__file__).parents[2]
    own = [p for p in sys.path if p.endswith("site-packages")]
    code = f"import sys; sys.path += {own!r}; assert {str(here)!r} not in sys.path; {ASK}"
    return subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, cwd=python.parent)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a Git repository with one commit."""
    folder = tmp_path_factory.mktemp("source") / "hubkit"
    for name in ("hubkit", "spaces"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for command in ("init -q", "add -A", "-c user.name=x -c user.email=x@localhost commit -qm x"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_a_checkout_becomes_a_wheel_and_a_wheel_stays_one(checkout: Path, tmp_path: Path) -> None:
    uv("venv", "--seed", "--python", sys.executable, str(tmp_path / "a"))
    python = tmp_path / "a/bin/python"
    uv("pip", "install", "--python", str(python), "--no-deps", "--editable", str(checkout))
    done = ask(python)
    assert done.returncode == 0, done.stderr
    wheel = python.parent / done.stdout.strip()
    assert wheel.is_file() and wheel.name.endswith("-py3-none-any.whl")

    uv("pip", "install", "--python", str(python), "--no-deps", str(wheel))
    done = ask(python)
    assert done.returncode == 0 and Path(done.stdout.strip()).samefile(wheel), done.stderr
    wheel.unlink()
    done = ask(python)
    assert "InputError" in done.stderr and "which is gone" in done.stderr


def test_a_git_address_is_given_with_its_commit(checkout: Path, tmp_path: Path) -> None:
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True).strip()
    uv("venv", "--python", sys.executable, str(tmp_path / "b"))
    python = tmp_path / "b/bin/python"
    uv("pip", "install", "--python", str(python), "--no-deps", f"git+{checkout.as_uri()}")
    done = ask(python)
    assert done.stdout.strip() == f"git+{checkout.as_uri()}@{commit}", done.stderr


def test_the_bootstrap_can_be_an_argument_of_run_uv_job() -> None:
    assert not Path(BOOTSTRAP).is_file()  # OSError where it is longer than a file's name may be


def test_a_source_that_does_not_build_is_one_line(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken)
    (broken / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "nothing"\n')

    class Told:
        def read_text(self, name: str) -> str:
            return f'{{"url": "{broken.as_uri()}", "dir_info": {{}}}}'

    monkeypatch.setattr(installation.metadata, "distribution", lambda name: Told())
    with pytest.raises(InputError, match="cannot be built") as told:
        from_here(tmp_path / "wheels")
    assert "\n" not in str(told.value) and "run.jobs.dependencies" in str(told.value)
