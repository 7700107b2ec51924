"""The templates as this release ships them, and how a file of any release is recognised."""

from __future__ import annotations

import hashlib
import json

from migrator.inlined import TEMPLATES
from migrator.manifest import MANIFEST


def text(template: str) -> str:
    """Return a template as it is installed."""
    return TEMPLATES[template]


def sha256(data: bytes) -> str:
    """Return the hex digest that the manifest names a file by."""
    return hashlib.sha256(data).hexdigest()


def known_hashes(template: str) -> frozenset[str]:
    """Return the hashes of a template in this version and in all that were released."""
    entry = json.loads(TEMPLATES[MANIFEST])[template]
    return frozenset({entry["contentHash"], *entry["shippedHashes"]})


def is_shipped(template: str, data: bytes) -> bool:
    """Say whether `data` is the template as some release shipped it, unedited."""
    return sha256(data) in known_hashes(template)
