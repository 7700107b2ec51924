"""The end of a session, and the way back."""
