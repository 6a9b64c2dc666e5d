"""Records what Hugging Face's `Trainer` does, and TRL's trainers, which are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from counterfoil.torch.attach import check_options
from counterfoil.torch.budget import STATE

if TYPE_CHECKING:
    from counterfoil import Run


class Callback(TrainerCallback):
    """Records each step of a trainer into a run, and the files of each checkpoint that it saves.

    The batches are what the model's forward pass is given, under the names of its arguments, so that
    prefetching, padding and columns that the trainer drops leave no trace. They name no samples.

    Args:
        run: An open run; its `with` block stands around `trainer.train()`.
        options: As of `counterfoil.torch.attach`.

    Raises:
        InvalidInput: An option is unknown. When training begins or steps, as `counterfoil.torch.attach`; or an
            argument of the forward pass is no tensor, number or string.
    """

    def __init__(self, run: Run, **options: Any) -> None:
        check_options(options)
        self._run, self._options = run, options
        self._watched: torch.nn.Module | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Attaches the run."""
        options = self._options
        if self._run.ranks > 1:
            # What reduces gradients stands around this model, and a recorder does not see it.
            every = options.get("every", 50)
            parts = every if isinstance(every, Mapping) else dict.fromkeys(STATE, every)
            options = options | {"every": {"contribution": 1} | dict(parts)}
        recorder = self._run.attach(model, optimizer, **options)
        if self._watched is model:
            return  # trained before, and now further

        def is_trained(module: torch.nn.Module) -> bool:
            # Copies of the model carry these hooks too.
            return module is model and module.training and torch.is_grad_enabled()

        def before(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            if is_trained(module):
                recorder.feed({str(place): each for place, each in enumerate(given)} | named)

        def behind(module: torch.nn.Module, _given: Any, _output: Any) -> None:
            if is_trained(module):
                recorder.consumed()

        handles = [
            model.register_forward_pre_hook(before, with_kwargs=True),
            model.register_forward_hook(behind),
        ]
        self._run.on_close(lambda _: any(handle.remove() for handle in handles))
        self._watched = model

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Binds the files of a saved checkpoint to the step."""
        self._run.record_files(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"))
