"""The `strandline` command: the composition root, which alone may import everything.

Each command lives in a module of its own that is imported when it is called: `strandline broker` must not pay for what
only `strandline dev` needs. Exit codes: 0 done, 1 failed with a message on standard error, 2 wrong usage.
"""

from __future__ import annotations

import importlib

import click

# Command -> (module below this package, attribute, help for the overview).
_COMMANDS = {
    "dev": ("dev", "dev", "Run a cluster on this machine, without Kubernetes."),
    "broker": ("broker", "broker", "Run one broker."),
    "operator": ("operate", "operator", "Run the operator in Kubernetes."),
    "apply": ("apply", "apply", "Apply manifests to a cluster started with `strandline dev`."),
    "topics": ("inspect", "topics", "List topics."),
    "describe": ("inspect", "describe", "Show everything about a topic, broker or cluster."),
    "status": ("inspect", "status", "Show how the cluster is."),
    "users": ("users", "users", "Make and change the users file of brokers with SASL listeners."),
    "tier": ("tier", "tier", "Look after tiered storage."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"strandline_operator.cli.{entry[0]}")
        command: click.Command = getattr(module, entry[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The overview must not import every command.
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from strandline_operator.validation.problems import did_you_mean

            raise click.UsageError(f"there is no command {args[0]!r}{did_you_mean(args[0], _COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="strandline", prog_name="strandline")
def main() -> None:
    """Strandline: a Kafka-compatible event log for Kubernetes."""
