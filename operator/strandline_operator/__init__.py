"""Kopf handlers, the controller, Kubernetes manifests and the command line."""

from __future__ import annotations

import sys

# `kopf run -m strandline_operator` finds its handlers by importing this package. Kopf is loaded then, and in no other
# process: brokers and the command line must not pay for it.
if "kopf.cli" in sys.modules:
    import strandline_operator.kopf_app.handlers  # noqa: F401 - it registers them
