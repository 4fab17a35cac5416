"""Runtimes in containers: the supervisor that is their first process, and what docker and kubernetes have in common."""
