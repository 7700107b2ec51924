"""The commands of a build. Standard library only, Python 3.9 and later."""
