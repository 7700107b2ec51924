"""What runs beside the clients."""

__version__ = "0.2.0"
