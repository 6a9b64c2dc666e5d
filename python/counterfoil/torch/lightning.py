"""Records what Lightning's `Trainer` does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer, callbacks

from counterfoil.torch.attach import check_options
from counterfoil.torch.data import contents

if TYPE_CHECKING:
    from counterfoil import Run
    from counterfoil.torch.attach import Recorder


class Callback(callbacks.Callback):
    """Records each step of a trainer into a run, with the batches as `training_step` is given them.

    Args:
        run: An open run; its `with` block stands around `trainer.fit()`.
        options: As of `counterfoil.torch.attach`.

    Raises:
        InvalidInput: An option is unknown; when training begins or steps, as `counterfoil.torch.attach`.
    """

    def __init__(self, run: Run, **options: Any) -> None:
        check_options(options)
        self._run, self._options = run, options

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attaches the run."""
        self._recorder: Recorder = self._run.attach(pl_module, trainer.optimizers, **self._options)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Records what the step will be given."""
        self._recorder.feed(batch, partial(contents, self._run, batch))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Closes the batch: what is drawn from now on belongs to the loader."""
        self._recorder.consumed()
