"""The stop gate: whether a session that ends its turn had good reason to."""
