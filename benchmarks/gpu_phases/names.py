"""Names of the files that a slot leaves and the next one takes up."""

from __future__ import annotations

ARCHIVES = ("records.tar.gz", "resume-1.tar.gz", "resume-2.tar.gz")
