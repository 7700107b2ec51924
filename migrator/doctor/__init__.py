"""`instar-migrate doctor`: what keeps the hooks of a project from doing their work, and what mends it."""

from migrator.doctor.examination import examine

__all__ = ["examine"]
