"""Runtime backends behind one interface, the runtime catalogue, and the Spawner that JupyterHub calls."""
