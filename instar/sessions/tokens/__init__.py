"""What sessions used."""
