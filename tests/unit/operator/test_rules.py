"""The CEL rules, as `strandline dev` evaluates them. `tests/kubernetes/test_rules.py` asks an API server the same."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.operator.rule_cases import CASES, Case

from strandline_operator.validation import ManifestError, validate
from strandline_operator.validation.definitions import definitions


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rules(case: Case) -> None:
    old = case.base if case.update else None
    if case.refusal is None:
        validate(case.object(), old)
        return
    with pytest.raises(ManifestError) as caught:
        validate(case.object(), old)
    assert case.refusal in str(caught.value)
    if case.update:
        validate(case.object())  # alone it is fine


def test_every_rule_has_a_case_that_it_refuses() -> None:
    def messages(node: Any) -> list[str]:
        if isinstance(node, list):
            return [message for item in node for message in messages(item)]
        if not isinstance(node, dict):
            return []
        own = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
        return own + [message for value in node.values() for message in messages(value)]

    refusals = {case.refusal for case in CASES if case.refusal}
    for kind in ("Cluster", "Topic"):
        for message in messages(definitions()[kind].schema):
            assert any(refusal in message for refusal in refusals), message
