"""What several hooks and the commands of a build need."""
