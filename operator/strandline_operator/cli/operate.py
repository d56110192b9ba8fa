"""`strandline operator`: the operator's process in Kubernetes. Imports nothing that only other commands need."""

from __future__ import annotations

import logging
import os
import sys

import click


@click.command()
@click.option(
    "--liveness",
    default="http://0.0.0.0:8080/healthz",
    show_default=True,
    metavar="URL",
    help="Where to answer liveness probes once this process is the active operator; empty: nowhere.",
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    default="INFO",
    show_default=True,
    help="What is logged.",
)
def operator(liveness: str, log_level: str) -> None:
    """Run the operator until SIGTERM: for every Cluster its brokers, for every Topic its partitions.

    Settings come from STRANDLINE_OPERATOR_<NAME> (docs/kubernetes.md). The API server is the pod's, or else that of
    $KUBECONFIG.
    """
    from strandline_broker.cluster.kubernetes_access import AccessError, find_access
    from strandline_operator.kubernetes.settings import OperatorSettings, SettingsError

    logging.basicConfig(
        level=log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        settings = OperatorSettings.from_environment(os.environ)
        find_access()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except AccessError as error:
        raise click.ClickException(str(error)) from error
    from strandline_operator.kopf_app.handlers import run_operator

    run_operator(settings, liveness or None)
