"""What a client writes down of a conversation."""
