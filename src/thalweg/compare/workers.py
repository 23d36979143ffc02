"""Many jobs at once: joblib's workers, and a Ctrl-C that lets them finish."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.compare.contender import Contender
from thalweg.compare.errors import BadInput, one_line
from thalweg.compare.plan import Job, cannot_write
from thalweg.compare.record import read, store
from thalweg.compare.solving import run_job

if TYPE_CHECKING:
    from thalweg.compare.problems import Problem

BACKENDS = ("loky", "dask", "ray")


class Interrupt:
    """Ctrl-C once sets `asked`, twice raises KeyboardInterrupt. For use as a context manager.

    Outside the main thread (where Python delivers no signal) nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def run_all(
    jobs: Sequence[Job],
    contenders: Mapping[str, Contender],
    problem: Problem,
    directory: Path,
    interrupt: Interrupt,
    *,
    workers: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
) -> Generator[tuple[Job, dict[str, Any]], None, None]:
    """Run `jobs` and yield each with its end line, in the order in which they finish.

    One worker is this process. After Ctrl-C the jobs that run are finished, and with several
    workers the one that was already sent; no other begins.

    Parameters
    ----------
    jobs
        What to run.
    contenders, problem
        Methods by name, and the problem.
    directory
        The race directory; every run is in it when it is yielded.
    interrupt
        Asked before each job begins.
    workers, backend, scheduler
        Processes, ``"loky"``, ``"dask"`` or ``"ray"``, and the address of the cluster.
    """

    def wanted() -> Iterator[Job]:
        for job in jobs:
            if interrupt.asked:
                return
            yield job

    if workers == 1 and backend == "loky":
        for job in wanted():
            _, text = work(job, contenders[job.method], problem, directory, False)
            yield job, _received(directory, job.id, text)
        return
    by_id = {job.id: job for job in jobs}
    place, send = directory.resolve(), backend != "loky"
    calls = ((job, contenders[job.method], problem, place, send) for job in wanted())
    finished = in_parallel(work, calls, workers, backend, scheduler)
    with contextlib.closing(finished):
        for job_id, text in finished:
            yield by_id[job_id], _received(directory, job_id, text)


def work(
    job: Job, contender: Contender, problem: Problem, directory: Path, send: bool
) -> tuple[str, str | None]:
    """Run a job where the worker is; its text comes back on `send`, or if it cannot be stored."""
    text = run_job(job, contender, problem)
    if send:
        return job.id, text
    try:
        store(directory, job.id, text)
    except OSError:
        return job.id, text
    return job.id, None


def _received(directory: Path, job_id: str, text: str | None) -> dict[str, Any]:
    try:
        if text is not None:
            store(directory, job_id, text)
        lines = read(directory, job_id)
        if lines is None:
            raise OSError(f"the run {job_id} was written but cannot be read")
    except OSError as error:
        raise cannot_write(directory, error) from error
    return lines[-1]


def in_parallel(
    function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]],
    workers: int, backend: str, scheduler: str | None,
) -> Generator[Any, None, None]:  # fmt: skip
    """Call `function` with each of `arguments` in the workers; yield what comes back, when it does.

    Raises
    ------
    BadInput
        If something cannot be sent to the workers, or one was killed.
    """
    import joblib

    remote = backend != "loky"
    calls = (joblib.delayed(function)(*given) for given in arguments)
    with _cluster(backend, scheduler) as options:
        if not remote:
            # Workers are of the terminal's group: only this process listens to Ctrl-C.
            options = {"initializer": _worker, "inner_max_num_threads": 1}
        with joblib.parallel_config(backend=backend, n_jobs=workers, **options):
            # One job waits in line, so that no worker idles while its next one is on the way; an
            # interrupt has to wait for that one too.
            parallel = joblib.Parallel(return_as="generator_unordered", pre_dispatch="n_jobs+1")
            try:
                results = parallel(calls)
                try:
                    # Not `yield from`: the workers must be stopped before `results` is closed.
                    for result in results:  # noqa: UP028
                        yield result
                except (KeyboardInterrupt, GeneratorExit):
                    _stop(backend, results)
                    raise
            except (AttributeError, TypeError, ValueError, OSError) as error:
                raise _cannot_send(error) from error
            except Exception as error:
                # joblib vendors these classes, and which one depends on the backend.
                kind = type(error).__name__
                if kind in ("PicklingError", "BrokenProcessPool"):
                    raise _cannot_send(error) from error
                if kind == "TerminatedWorkerError":
                    raise BadInput(
                        "a worker process was killed, most often for lack of memory: use fewer "
                        "--jobs; what is finished is kept, and the same command goes on from there"
                    ) from error
                raise


def _cannot_send(error: BaseException) -> BadInput:
    return BadInput(
        f"the problem or a method cannot be sent to worker processes ({one_line(error)}): "
        "use jobs=1, or define it in a file"
    )


@contextlib.contextmanager
def _cluster(backend: str, scheduler: str | None) -> Iterator[dict[str, Any]]:
    """Options of joblib's backend, with a connection to the cluster for as long as it is used."""
    if backend == "dask":
        try:
            from distributed import Client, get_client
        except ImportError as error:
            raise BadInput("backend 'dask' needs `pip install distributed`") from error
        if scheduler is None:
            try:
                get_client()
            except ValueError as error:
                raise BadInput(
                    "backend 'dask' needs the address of a scheduler, as in "
                    "--scheduler tcp://host:8786, or a dask Client in this process"
                ) from error
            yield {}
            return
        try:
            client = Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BadInput(
                f"no dask scheduler answers at {scheduler!r}: {one_line(error)}"
            ) from error
        try:
            yield {"client": client}
        finally:
            client.close()
    elif backend == "ray":
        try:
            import ray  # type: ignore[import-not-found]
            from ray.util.joblib import register_ray  # type: ignore[import-not-found]
        except ImportError as error:
            raise BadInput("backend 'ray' needs `pip install ray`") from error
        if not ray.is_initialized():
            ray.init(address=scheduler, log_to_driver=False)
        register_ray()
        yield {}
    else:
        yield {}


def _worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def release(backend: str) -> None:
    """Let the worker processes of a race go.

    They have imported the user's modules as they were: the next race begins with fresh ones.
    """
    if backend == "loky":
        from joblib.externals.loky import reusable_executor

        # `get_reusable_executor` would start a new one where there is none.
        executor = getattr(reusable_executor, "_executor", None)
        if executor is not None:
            executor.shutdown(wait=False, kill_workers=True)


def _stop(backend: str, results: Any) -> None:
    """Stop at once; joblib's warning that tasks are lost says what was asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        release(backend)
        results.close()
