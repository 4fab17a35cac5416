"""Runtimes as sandboxed process trees on this machine."""
