"""The commands of what runs beside the clients, a module each."""
