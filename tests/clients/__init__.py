"""Programs of the exports' real clients, each run in an environment with the client's own packages."""
