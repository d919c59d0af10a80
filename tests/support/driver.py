"""A driver as a process of its own, so that a test can kill it: makes the Counter run (or finds it) and feeds every epoch.

Usage: python -m tests.support.driver ADDRESS RUN MODEL JSON     JSON: {"rows": .., "slots": .., "epochs": .., "options": {...}}
Prints one line of JSON for each committed epoch.
"""

from __future__ import annotations

import json
import sys

from ballast.model import read_model
from tests.support.feeder import FeederJob, options
from tests.support.rows import CounterRows


def main() -> int:
    address, run, model, text = sys.argv[1:]
    plan = json.loads(text)
    settings = options(**plan["options"])
    job = FeederJob(address, run, read_model(model), CounterRows(plan["rows"], plan["slots"], settings.partitions), run_options=settings)
    job.create()
    for epoch in range(1, plan["epochs"] + 1):
        report = job.run_epoch(epoch)
        print(json.dumps({"epoch": epoch, "committed": report.committed, "rows_in": report.rows_in, "rows_trained": report.rows_trained}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
