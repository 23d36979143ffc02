"""A `Tracker` inside other people's trainers; Lightning and transformers are imported if used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from thalweg.inspect.tracker import Tracker


def lightning_callback(
    tracker: Tracker, directory: str | os.PathLike[str] | None = None, *, budget: int = 200
) -> Any:
    """A ``Callback`` for ``lightning.Trainer(callbacks=[...])``.

    Parameters
    ----------
    tracker
        Of the module being trained. With gradient accumulation an optimizer step counts once.
    directory
        Where its page goes when the fit ends. Default: no page.
    budget
        Of the page's inspection.

    Returns
    -------
    lightning.pytorch.Callback

    Raises
    ------
    ImportError
        If lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError as error:
        raise ImportError("this callback needs `pip install lightning`") from error

    class Tracking(Callback):
        def __init__(self) -> None:
            self.seen = 0

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.seen = int(trainer.global_step)

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.global_step > self.seen:  # a batch that only accumulates makes no step
                self.seen = int(trainer.global_step)
                if trainer.is_global_zero:
                    tracker.step()

        def on_fit_end(self, trainer: Any, module: Any) -> None:
            if directory is not None and trainer.is_global_zero:
                tracker.page(directory, budget=budget)

    return Tracking()


def transformers_callback(
    tracker: Tracker, directory: str | os.PathLike[str] | None = None, *, budget: int = 200
) -> Any:
    """A ``TrainerCallback`` for ``transformers.Trainer(callbacks=[...])``.

    Parameters
    ----------
    tracker
        Of the model being trained.
    directory
        Where its page goes when training ends. Default: no page.
    budget
        Of the page's inspection.

    Returns
    -------
    transformers.TrainerCallback

    Raises
    ------
    ImportError
        If transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise ImportError("this callback needs `pip install transformers`") from error

    class Tracking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                tracker.step()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if directory is not None and state.is_world_process_zero:
                tracker.page(Path(directory), budget=budget)

    return Tracking()
