"""The command line: `main` reads it, and each command has a module in `commands`."""

from .main import main

__all__ = ["main"]
