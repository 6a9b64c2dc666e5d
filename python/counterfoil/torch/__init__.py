"""Recording and re-executing PyTorch training steps; the only place that imports torch.

`attach` turns what an optimiser does into step receipts, `batches` records what was fed,
`replay` executes recorded steps again and compares. All three read a training step through
`counterfoil.torch.collect`, so that a recorded name means the same thing in each.
"""

from counterfoil.torch.attach import Recorder, attach
from counterfoil.torch.calibrate import calibrate
from counterfoil.torch.data import batches, commit_dataset, sample_digest
from counterfoil.torch.determinism import deterministic
from counterfoil.torch.distributed import open_lane
from counterfoil.torch.live import diff_live
from counterfoil.torch.rehearsal import rehearse
from counterfoil.torch.replay import replay
from counterfoil.torch.tolerance import Calibration
from counterfoil.torch.weights import commit_parameters

__all__ = [
    "Calibration",
    "Recorder",
    "attach",
    "batches",
    "calibrate",
    "commit_dataset",
    "commit_parameters",
    "deterministic",
    "diff_live",
    "open_lane",
    "rehearse",
    "replay",
    "sample_digest",
]
