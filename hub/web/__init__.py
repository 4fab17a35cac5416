"""Shared parts of the documents and control web services: identity, errors, strict JSON, page templates."""
