"""What a migration consists of: each step reads the project and says what has to change."""
