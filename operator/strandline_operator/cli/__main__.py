"""`python -m strandline_operator.cli`: how the supervisor starts its brokers."""

from __future__ import annotations

from strandline_operator.cli import main

main(prog_name="strandline")
