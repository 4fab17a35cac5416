"""The command `minicolab`. One module a group of commands; exit codes in hub.cli.common."""
