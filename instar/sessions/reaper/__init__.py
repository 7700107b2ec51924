"""Who is parked, and when."""
