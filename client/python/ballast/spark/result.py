"""What `train` returns. Prints the same lines after success, retry and resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class TrainResult:
    run_id: str
    address: str  # of server 0: ballast.state_dict(result) needs no more
    epochs: int
    rows_in: int  # over all epochs, as the driver counted them
    rows_trained: int
    rows_skipped: int
    duplicates_dropped: int  # batches that came again (retries, speculation, resumption): answered DUPLICATE, or not even sent
    duplicate_ids: int  # rows of this call whose id another row has too
    loss: float  # mean per row over the last 50 steps; NaN when unknown
    steps: int
    version: int
    manifest: int  # version of the newest checkpoint
    resumed: bool  # the run existed before this call
    seconds: float  # of this call
    accuracy: Optional[float] = None  # with eval_df: share of right rows (cross_entropy, bce_with_logits)
    eval_loss: Optional[float] = None  # with eval_df: mean squared error (mse)
    eval_rows: int = 0
    plan: Sequence[str] = ()
    timing: dict[str, float] = field(default_factory=dict)  # seconds by phase: spark, pack, feed (tasks); the rest from the workers' sessions

    @property
    def complete(self) -> bool:
        """Every row that came in is trained, or skipped on the record."""
        return self.rows_in == self.rows_trained + self.rows_skipped

    def __str__(self) -> str:
        lines = [f"{self.run_id}: {self.epochs} epoch{'s' if self.epochs != 1 else ''}, {self.steps:,} steps, checkpoint {self.manifest}"]
        sign = "=" if self.complete else "!="
        skipped = f" + rows skipped {self.rows_skipped:,}" if self.rows_skipped or not self.complete else ""
        lines.append(f"rows in {self.rows_in:,} {sign} rows trained {self.rows_trained:,}{skipped}   duplicates dropped: {self.duplicates_dropped:,} batches")
        if self.rows_skipped:
            lines.append("skipped rows could not be trained: the workers' logs name each batch and the reason (\"batch skipped\")")
        if self.duplicate_ids:
            lines.append(f"warning: {self.duplicate_ids:,} rows share an id with another row; ids must be unique")
        if not math.isnan(self.loss):
            lines.append(f"loss {self.loss:.4f}")
        if self.accuracy is not None:
            lines.append(f"accuracy {self.accuracy:.4f} on {self.eval_rows:,} rows")
        if self.eval_loss is not None:
            lines.append(f"mean squared error {self.eval_loss:.6g} on {self.eval_rows:,} rows")
        return "\n".join(lines)


def make_result(run: Any, address: str, counts: Sequence[Any], resumed: bool, seconds: float, plan: Sequence[str]) -> TrainResult:
    """`run`: a Run message after the last commit; `counts`: rows of the feeds of this call."""
    timing = {t.phase: float(t.seconds) for t in run.timing}
    for phase in ("spark", "pack", "worker"):
        timing["feed" if phase == "worker" else phase] = sum(float(c[f"{phase}_s"]) for c in counts)
    committed = [e for e in run.epochs if e.committed]
    return TrainResult(
        run_id=run.spec.name,
        address=address,
        epochs=len(committed),
        rows_in=sum(e.rows_in for e in committed),
        rows_trained=run.rows_trained,
        rows_skipped=run.rows_skipped,
        duplicates_dropped=run.duplicates + sum(int(c["unsent"]) for c in counts),
        duplicate_ids=sum(int(c["duplicate_ids"]) for c in counts),
        loss=run.loss if run.steps else math.nan,
        steps=run.steps,
        version=run.version,
        manifest=run.manifest_version,
        resumed=resumed,
        seconds=seconds,
        plan=tuple(plan),
        timing=timing,
    )
