"""What is remembered of peers: small files, each changed as a whole."""
