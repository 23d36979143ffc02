"""One run of ``thalweg solve``: from where it was, to its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from thalweg.cli.errors import INTERRUPTED
from thalweg.cli.progress_line import ProgressLine
from thalweg.cli.solve_arguments import FAMILIES

if TYPE_CHECKING:
    from thalweg.solve.tasks import Task


class Solving:
    """One run of a solver: from where it was, to its page."""

    def __init__(
        self, task: Task, family: str, folder: Path, progress: Any, given: Mapping[str, Any]
    ) -> None:
        from thalweg.compare.entrants import entrants
        from thalweg.solve.resume import identity, read

        self.task, self.family, self.folder, self.given = task, family, folder, given
        self.progress = progress
        asked = given["method"] or task.solver.__name__

        def this_file(seed: int) -> Any:
            return task.problem

        this_file.__name__ = self.title = folder.name.removeprefix(f"solve-{family}-")
        _, (self.contender,) = entrants(this_file, [asked])
        folder.mkdir(parents=True, exist_ok=True)
        from thalweg.compare.solving import tensors_of

        tensors = {str(i): t for i, t in enumerate(tensors_of(task.problem))}
        self.of = identity(tensors, {"family": family, **task.options})
        self.path = folder / "point.safetensors"
        self.before = read(self.path, self.of)

    def run(self) -> dict[str, Any]:
        """Solve, write answer and page, and return what is told of it."""
        import torch

        from thalweg.compare.signatures import parameters_of
        from thalweg.core import Reason
        from thalweg.solve.resume import Keeper, joined

        known, before = parameters_of(self.contender.target), self.before
        arguments = dict(self.contender.fixed)
        line = ProgressLine(self.progress, before.steps if before else 0)
        keeper = Keeper(
            self.path, self.of, self.task.take_apart, every=self.given["save_every"],
            before=before, also=line,
        )  # fmt: skip
        given = {name: self.given[name] for name in ("tol", "max_steps", "max_seconds")}
        if before is not None:
            typer.echo(
                f"goes on from iteration {before.steps:,}, saved in {self.path}", file=self.progress
            )
            arguments["start"] = self.task.put_together(before.point)
            default = known["max_steps"].default if "max_steps" in known else None
            steps = given["max_steps"] if given["max_steps"] is not None else default
            given["max_steps"] = None if steps is None else max(0, steps - before.steps)
            if given["max_seconds"] is not None:
                given["max_seconds"] = max(1e-3, given["max_seconds"] - before.seconds)
        arguments |= {name: value for name, value in given.items() if value is not None}
        if "generator" in known:
            arguments["generator"] = torch.Generator().manual_seed(self.given["seed"])
        for name in arguments:
            if name not in known:
                raise ValueError(f"{self.contender.name} has no {name}")
        result = self.contender.target(self.task.problem, callback=keeper, **arguments)
        line.end()
        keeper.write(result.trace)  # whatever happens to the files below, the point is not lost
        found = self._found(result, joined(before, result.trace))
        self._page(found, result.x, joined(before, result.trace))
        if result.reason not in (Reason.INTERRUPTED, Reason.MAX_STEPS, Reason.MAX_SECONDS):
            self.path.unlink(missing_ok=True)  # there is nothing left to go on with
        return found

    def _found(self, result: Any, trace: Mapping[str, list[float]]) -> dict[str, Any]:
        import datetime

        import torch

        import thalweg
        from thalweg.core import Reason

        task, problem = self.task, self.task.problem
        residual = float(problem.residual(result.x).max())
        numbers: dict[str, float] = {"relative residual": residual}
        if getattr(problem, "truth", None) is not None:
            numbers["relative error"] = float(problem.error(result.x).max())
        numbers |= self._write(result.x)
        _, spectrum = task.spectrum(result.x)
        numbers["largest of the spectrum"] = float(spectrum[0])
        numbers["smallest of the spectrum"] = float(spectrum[-1])
        answer = f"{self.contender.name} reached a relative residual of {residual:.2g}"
        if "RMSE on what was held out" in numbers:
            answer += (
                f"; on {len(task.held_out[2]):,} entries held out its RMSE is "  # type: ignore[index]
                f"{numbers['RMSE on what was held out']:.4g}, against "
                f"{numbers['RMSE of the mean']:.4g} of the mean"
            )
        code = {Reason.INTERRUPTED: INTERRUPTED, Reason.NONFINITE: 3}.get(result.reason, 0)
        return {
            "title": f"{self.family}: {self.title}",
            "question": FAMILIES[self.family],
            "answer": f"{answer}.",
            "family": self.family,
            "problem": task.said,
            "method": self.contender.name,
            "converged": result.converged,
            "cut_short": not result.converged and result.reason is not Reason.STALLED,
            "reason": str(result.reason),
            "steps": int(trace["step"][-1]),
            "seconds": float(trace["seconds"][-1]),
            "resumed": self.before.steps if self.before else 0,
            "numbers": numbers,
            "spectrum": [float(v) for v in spectrum[:100]],
            "out": str(self.given["out"]) if self.given["out"] else None,
            "report": str(self.folder / "index.html"),
            "command": _command(),
            "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {"thalweg": thalweg.__version__, "torch": str(torch.__version__)},
            "exit_code": code,
        }

    def _write(self, x: Any) -> dict[str, float]:
        """Write the answer; of a completion also what was held out is judged."""
        from thalweg.solve.files import write_array, write_predictions

        task, out = self.task, self.given["out"]
        if task.triples is None:
            if out is not None:
                write_array(out, task.answer(x))
            return {}
        judged: dict[str, float] = {}
        if task.held_out is not None:
            rows, cols, values = task.held_out
            predicted = _entries(x, rows, cols)
            mean = task.problem.values.mean()
            judged["RMSE on what was held out"] = float((predicted - values).square().mean().sqrt())
            judged["RMSE of the mean"] = float((mean - values).square().mean().sqrt())
        if out is not None:
            rows, cols = self.given["pairs"]
            write_predictions(out, task.triples, rows, cols, _entries(x, rows, cols))
        return judged

    def _page(self, found: Mapping[str, Any], x: Any, trace: Mapping[str, list[float]]) -> None:
        from thalweg.solve import page

        page.write(
            found,
            self.folder,
            trace=dict(trace),
            spectrum=self.task.spectrum(x),
            images=self.task.images(x),
            single_file=self.given["single_file"],
        )


def _entries(x: Any, rows: Any, cols: Any) -> Any:
    """Entries of :math:`U V^T`."""
    return (x.U[rows] * x.V[cols]).sum(-1)


def _command() -> str:
    import shlex
    import sys

    return shlex.join(["thalweg", *sys.argv[1:]])
