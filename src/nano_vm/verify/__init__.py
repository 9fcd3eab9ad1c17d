"""Static passes: a `Flow` in; diagnostics, proofs, the worst case and flows out. No tool and no
model is called.

Prover and judge are pairs of independent definitions: `order.proof` and `trust.proof` say what
holds of every run, `order.of_run` and `trust.of_run` apply the same definitions to the records of
one.
"""

from __future__ import annotations

from .examine import verify
from .report import Finding, Influence, Move, Proof, Report

__all__ = ["Finding", "Influence", "Move", "Proof", "Report", "verify"]
