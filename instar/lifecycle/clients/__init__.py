"""The clients that peers run in: started in panes, told messages, and read."""
