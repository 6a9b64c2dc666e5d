"""What other systems read: safetensors, OpenSSF Model Signing bundles, C2SP checkpoints.

Needs `cryptography`: pip install 'counterfoil[interop]'.
"""

from counterfoil.interop.checkpoint import Report, export_checkpoint, verify_checkpoint
from counterfoil.interop.keys import signing_public_key
from counterfoil.interop.note import CheckpointNote, checkpoint_note, read_checkpoint_note, verifier_key

__all__ = [
    "CheckpointNote",
    "Report",
    "checkpoint_note",
    "export_checkpoint",
    "read_checkpoint_note",
    "signing_public_key",
    "verifier_key",
    "verify_checkpoint",
]
