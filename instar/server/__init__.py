"""The local server of a project: what hooks and commands ask, on this machine alone."""
