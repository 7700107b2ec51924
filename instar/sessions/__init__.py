"""The sessions of a project: what is on record, and what can be seen of them."""
