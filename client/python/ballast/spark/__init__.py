"""Training and scoring from PySpark. `connect` is all there is to import."""

from ballast.spark.cluster import Cluster, connect
from ballast.spark.result import TrainResult

__all__ = ["Cluster", "TrainResult", "connect"]
