"""What runs beside the clients."""

__version__ = "0.1.0"
