"""The control service: runtimes, sessions and their limits, mounts and consent."""
