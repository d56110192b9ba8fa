from __future__ import annotations

import itertools
import subprocess
import sys

import kopf
import pytest

from strandline_operator.kopf_app.handlers import Backoffs, configure, run_operator
from strandline_operator.kubernetes.settings import OperatorSettings


def test_kopf_is_told_what_was_measured() -> None:
    settings = kopf.OperatorSettings()
    configure(settings, "shop")
    assert settings.peering.standalone
    assert settings.scanning.disabled
    assert settings.queueing.worker_limit is None, "with one, a thousand Topics come in at a crawl"
    assert settings.persistence.finalizer == "strandline.io/cluster"
    assert max(settings.queueing.error_delays) <= 5
    configure(settings, "")
    assert not settings.scanning.disabled


def test_the_operator_outlives_an_api_server_that_is_away() -> None:
    pauses = list(itertools.islice(Backoffs(), 200))
    assert sum(pauses) > 300
    assert max(pauses) <= 5
    assert list(itertools.islice(Backoffs(), 3)) == pauses[:3]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_only_kopfs_own_process_pays_for_it() -> None:
    code = "import sys, strandline_operator.cli.broker; print('kopf' in sys.modules)"
    assert run(code) == "False"


def test_kopf_finds_its_handlers_in_the_package() -> None:
    code = (
        "import kopf.cli, strandline_operator; from kopf._core.intents import registries; "
        "registry = registries.get_default_registry(); "
        "print(*sorted(str(h.id) for h in registry._spawning.get_all_handlers()))"
    )
    assert run(code) == "operate"


def test_kopf_need_not_ask_for_the_name_of_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    async def operator(**arguments: object) -> None:
        given.update(arguments)

    monkeypatch.setattr(kopf, "operator", operator)
    run_operator(OperatorSettings(identity="strandline-operator-x"), None)
    assert given["identity"] == "strandline-operator-x", "a pod's user has none, and Kopf fails without"
