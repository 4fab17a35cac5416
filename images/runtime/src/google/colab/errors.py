"""Errors of google.colab."""

from __future__ import annotations


class Error(Exception):
    """Base class of this package's errors."""


class AuthorizationError(Error):
    """Access was not granted."""


class RuntimeManagementError(Error):
    """The runtime could not be managed from inside it."""


class WidgetException(Error):
    """A widget was used in a way it cannot work."""
