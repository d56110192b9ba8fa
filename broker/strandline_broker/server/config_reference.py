"""Writes `docs/configuration.md` from the declarations of `BrokerConfig`, so that the page cannot be wrong.

`make docs` runs it; a test compares the page with what it prints.
"""

from __future__ import annotations

import sys
from dataclasses import fields

from strandline_broker.server.config import BrokerConfig
from strandline_broker.server.config_keys import spec_of
from strandline_broker.server.config_tiering import TieringConfig

_INTRODUCTION = """\
# Configuration of a broker

Written by `make docs`; do not edit. A value comes from `--set key=value`, else from the environment
(`STRANDLINE_<KEY>`), else from the YAML file of `--config`, else it is the default. Where Kafka has a name for the same
setting, that name works too. `strandline dev` passes `--config key=value` on to its brokers. Settings of topics
(`retention.ms`, ...) belong to the Cluster (`spec.config`) or to a Topic (`spec.config`).

| key | default | Kafka's name | meaning |
|---|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = []
    tiering = {field.name for field in fields(TieringConfig)}
    for field in sorted(fields(BrokerConfig), key=lambda field: field.name in tiering):
        spec = spec_of(field.metadata)
        default = (
            ""
            if field.default in (None, "")
            else f"`{str(field.default).lower() if field.type == 'bool' else field.default}`"
        )
        doc = spec.doc.replace("|", "\\|")
        if spec.choices:
            doc += " One of " + ", ".join(f"`{choice}`" for choice in spec.choices) + "."
        kafka = f"`{spec.kafka}`" if spec.kafka else ""
        rows.append(f"| `{field.name}` | {default} | {kafka} | {doc} |\n")
    return _INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(render())
