"""What a client runs at an event. Standard library only, Python 3.9 and later."""
