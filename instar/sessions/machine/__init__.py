"""What runs on this machine: its processes, and the panes of its tmux servers."""
