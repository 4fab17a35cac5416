"""The drive plugin: what makes a drive folder appear in a running runtime after consent, and disappear again (docs/storage.md)."""
