"""The harness's errors."""

from __future__ import annotations


class ClusterError(Exception):
    """Something about the cluster failed; the text says what and where to look."""


class Unavailable(ClusterError):
    """This machine cannot run a cluster; the text says what is missing."""
