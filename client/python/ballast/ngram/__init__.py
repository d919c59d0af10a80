"""N-gram language models on Spark: interpolated modified Kneser-Ney, estimated by `ballast-ngram` in shards of any number of machines.

    python -m ballast.ngram train --config lm.toml

docs/NGRAM.md is the method, the configuration and the formats. Executors need numpy, pyarrow and nothing of this package: the functions
of the tasks and the estimator's binary travel with the application.
"""
