"""Drive files: identities, paths that never leave their folder, trash; and what to mount where."""
