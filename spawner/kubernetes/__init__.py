"""Runtimes as pods of a Kubernetes cluster."""
