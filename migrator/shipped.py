"""The templates as this release ships them, and how a file of any release is recognised."""

from __future__ import annotations

import json

from migrator.inlined import TEMPLATES
from migrator.manifest import MANIFEST, sha256


def text(template: str) -> str:
    """Return a template as it is installed."""
    return TEMPLATES[template]


def known_hashes(template: str) -> frozenset[str]:
    """Return the hashes of a template in this version and in all that were released."""
    entry = json.loads(TEMPLATES[MANIFEST])[template]
    return frozenset({entry["contentHash"], *entry["shippedHashes"]})


def is_shipped(template: str, data: bytes) -> bool:
    """Say whether `data` is the template as some release shipped it, unedited."""
    return sha256(data) in known_hashes(template)
