"""Limits, sessions, the ledger, tickets; and the value types every other package shares."""
