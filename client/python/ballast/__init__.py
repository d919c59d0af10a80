"""The Python client of Ballast, a parameter server for teams whose data lives in Spark.

    ballast.export(module, "model.pt", inputs={"x": ("float32", (8,))}, label=("int64", ()))
    cluster = ballast.spark.connect("localhost:7070")
    result = cluster.train(df, "model.pt", features=["x"], label="y", id_col="id", optimizer=ballast.Adam(1e-3))
    weights = ballast.state_dict(result)

Neither torch nor PySpark is imported until something needs them.
"""

from typing import Any

from ballast.errors import BallastError
from ballast.export import export
from ballast.optim import SGD, Adam, AdamW, Constant, Group, WarmupCosine
from ballast.runs import arrays, state_dict
from ballast.version import RELEASE as __version__

__all__ = ["SGD", "Adam", "AdamW", "BallastError", "Constant", "Group", "WarmupCosine", "__version__", "arrays", "export", "state_dict"]


def __getattr__(name: str) -> Any:
    """`ballast.spark` without a second import statement."""
    if name == "spark":
        import importlib

        return importlib.import_module("ballast.spark")
    raise AttributeError(f"module 'ballast' has no attribute {name!r}")
