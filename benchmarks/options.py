"""The options that every command line of the benchmarks has: which experiments, where the data go, how warm the cache is.

Callers: `benchmarks.run`, `benchmarks.replication`, `benchmarks.tiering`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable


def add_shared(parser: argparse.ArgumentParser, experiments: Iterable[str]) -> None:
    """Add them to a parser: `only` (names of experiments, or None), `dir`, `keep`, `fill_page_cache`."""
    parser.add_argument("--only", action="append", choices=list(experiments))
    parser.add_argument(
        "--dir", help="where the brokers keep their data (default: .cache/ of the repository)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the data and the output of the brokers")
    parser.add_argument(
        "--fill-page-cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fill the page cache before every run, see benchmarks/page_cache.py",
    )
