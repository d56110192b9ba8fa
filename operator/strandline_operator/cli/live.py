"""The live table of `strandline dev` in a terminal: brokers, topics, and what is wrong. Imported when it is shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from strandline_operator.cli import summary
from strandline_operator.controller.conditions import Reason

if TYPE_CHECKING:
    from rich.console import RenderableType

    from strandline_operator.cli.dev_session import DevSession
    from strandline_operator.controller.loop import Controller

REFRESH_S = 1.0
_MAX_TOPICS = 20


async def show(session: DevSession) -> None:
    """Show the table until cancelled; lines that the session prints meanwhile appear above it."""
    console = Console()
    before = session.note
    with Live(render(session.controller), console=console, auto_refresh=False, transient=True) as live:
        session.note = lambda text: console.print(text, markup=False, highlight=False)
        try:
            while True:
                live.update(render(session.controller), refresh=True)
                await asyncio.sleep(REFRESH_S)
        finally:
            session.note = before


def render(controller: Controller) -> RenderableType:
    """Return the tables for what the controller knows now."""
    view = controller.view
    slices = list(view.partition_sets())
    leads = summary.leads(slices)
    brokers = _table(summary.BROKER_COLUMNS)
    for broker_id in sorted(view.leases):
        lease = view.leases[broker_id]
        alive = controller.holds(broker_id)
        row = summary.broker_row(lease, leads.get(broker_id, 0), supervised=True, process=alive)
        brokers.add_row(*row)
    topics = _table(("TOPIC", "READY", "PARTITIONS", "UNDER-REPLICATED", "OFFLINE", "REASON"))
    found = sorted(view.topic_objects(), key=lambda topic: topic.name)
    for topic in found[:_MAX_TOPICS]:
        ready = summary.condition(topic.status, "Ready")
        reason = ready.get("reason", Reason.CREATING)
        topics.add_row(
            topic.topic_name,
            str(ready.get("status", "Unknown")),
            str(topic.status.get("partitions", "")),
            str(topic.status.get("underReplicated", "")),
            str(topic.status.get("offline", "")),
            "" if reason == Reason.READY else str(ready.get("message", reason)),
        )
    parts: list[RenderableType] = [brokers, topics]
    if len(found) > _MAX_TOPICS:
        parts.append(Text(f"and {len(found) - _MAX_TOPICS} more topics (strandline topics shows all)"))
    bucket = summary.bucket_line(view.cluster.status) if view.cluster is not None else ""
    if bucket:
        parts.append(Text(bucket))
    return Group(*parts)


def _table(columns: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column)
    return table
