"""Federated training with Flower: every party's answer signed, checked, and aggregated again by anybody.

Clients add `receipts` to their app, the server wraps its strategy in `Recorded`; `recompute` needs the server's
folder alone. Needs flwr and numpy, no torch. docs/trainers.md, section "Federated".
"""

from counterfoil.flower.client import receipts
from counterfoil.flower.recompute import recompute
from counterfoil.flower.server import Recorded, Refused

__all__ = ["Recorded", "Refused", "receipts", "recompute"]
