"""Clients that are no part of the environment: installed for the test, which takes minutes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_support import run
from huggingface_hub import HfApi
from support import needs_npm

from hubkit.localhub import LocalHub

pytestmark = pytest.mark.slow


@needs_npm
@pytest.mark.timeout(600)
def test_javascript(local_hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    """npm's @huggingface/hub, which shares no code with Python's."""
    api.create_repo("local/seen")
    shutil.copy(Path(__file__).with_name("client.mjs"), tmp_path)
    subprocess.run(
        ["npm", "install", "--no-audit", "@huggingface/hub@2"], cwd=tmp_path, check=True, timeout=500
    )
    command = ["node", "client.mjs", local_hub.endpoint, local_hub.token, str(tmp_path / "cache")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stderr
    assert list((local_hub.folder / "xorbs").glob("*/*"))  # it did use xet
    api.delete_repo("local/seen")


@pytest.mark.timeout(600)
def test_polars_and_duckdb(
    local_hub: LocalHub, api: HfApi, client_environment: dict[str, str], tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(packages),
        "polars",
        "duckdb",
    ]
    subprocess.run(install, check=True, timeout=500)
    code = """
import duckdb, polars as pl, pyarrow as pa, pyarrow.parquet as pq, sys
sys.path.append(sys.argv[1])
from huggingface_hub import HfApi, HfFileSystem
fs = HfFileSystem()
HfApi().create_repo("local/columns", repo_type="dataset")
with fs.open("datasets/local/columns/x.parquet", "wb") as file:
    pq.write_table(pa.table({"x": range(100)}), file)
assert pl.read_parquet(fs.open("datasets/local/columns/x.parquet"))["x"].sum() == 4950
duckdb.register_filesystem(fs)
assert duckdb.sql("SELECT sum(x) FROM 'hf://datasets/local/columns/x.parquet'").fetchall() == [(4950,)]
"""
    environment = client_environment | {"HF_TOKEN": local_hub.token, "PYTHONPATH": str(packages)}
    run(code, environment, str(packages))
