"""Makes a project's files what they should be."""
