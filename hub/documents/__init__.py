"""The always-on documents service: Drive, notebook pages, live co-editing. `python -m hub.documents --state DIR`."""
