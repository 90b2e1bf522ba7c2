"""Where steps run. An executor only places calls; their outputs do not depend on it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from hubkit.executors.call import StepCall
from hubkit.recipe.config import Recipe
from hubkit.store import Record

__all__ = ["Executor", "StepCall", "open_executor"]


class Executor(Protocol):
    """Runs steps somewhere. Leaving it on an error stops what it started; a later run goes on from there."""

    max_concurrent: int
    """The most calls that it takes at the same time."""

    def submit(self, call: StepCall) -> Future[Record]:
        """Carry out a call somewhere. The future raises HubkitError when that fails."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


def open_executor(recipe: Recipe, root: Path) -> Executor:
    """Returns the executor that a recipe names. Raises StepError if its cluster cannot be used from here."""
    run = recipe.run
    if run.executor == "slurm":
        from hubkit.executors.slurm import SlurmExecutor

        return SlurmExecutor(run, root)
    if run.executor == "ray":
        from hubkit.executors.ray import RayExecutor

        return RayExecutor(run)
    if run.executor == "hf-jobs":
        from hubkit.executors.hf_jobs import HfJobsExecutor

        return HfJobsExecutor(recipe, root)
    from hubkit.executors.local import LocalExecutor

    return LocalExecutor(run.workers, run.device)
