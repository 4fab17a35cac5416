"""Composition: settings, wiring, command line, JupyterHub configuration, and the documents and control web services."""
