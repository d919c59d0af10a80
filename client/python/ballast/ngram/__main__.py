"""python -m ballast.ngram train --config lm.toml, or this file under spark-submit.

Exit status: 0; 1 for an error; 2 for a wrong configuration.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional

from ballast.errors import BallastError


def main(arguments: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ballast.ngram", description="N-gram language models on Spark: docs/NGRAM.md")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("train", help="train the models of a configuration")
    command.add_argument("--config", required=True, metavar="FILE", help="a TOML file")
    command.add_argument("--explain", action="store_true", help="only say what would be done")
    command.add_argument("--master", default="", help='as of spark-submit, for example "local[2]"')
    command.add_argument("--remote", default="", help='a server of Spark Connect, "sc://host:port"')
    options = parser.parse_args(arguments)
    from ballast.ngram import config as configuration
    from ballast.ngram import engine, train

    try:
        config = configuration.load(options.config)
        if options.explain:
            print("\n".join(train.steps(config)))
            return 0
        session = engine.start_session(config.spark, options.master, options.remote)
        try:
            train.train(config, session)
        finally:
            session.stop()
        return 0
    except BallastError as e:
        print(f"ballast.ngram: {e.message}", file=sys.stderr)
        return 2 if e.reason == "BAD_CONFIG" else 1


if __name__ == "__main__":
    sys.exit(main())
