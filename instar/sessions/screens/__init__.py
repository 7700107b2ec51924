"""What a client's screen shows, and what it says of itself."""
