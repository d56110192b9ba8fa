"""What the API server would refuse, refused the same way without one.

`strandline dev` and `strandline apply` validate manifests against the CustomResourceDefinitions that Kubernetes uses:
the same structural schemas, the same defaults, the same CEL rules with the same messages.
"""

from __future__ import annotations

from strandline_operator.validation.manifests import (
    Document,
    FolderContent,
    load_path,
    load_text,
    validate,
)
from strandline_operator.validation.problems import ManifestError, Problem

__all__ = ["Document", "FolderContent", "ManifestError", "Problem", "load_path", "load_text", "validate"]
