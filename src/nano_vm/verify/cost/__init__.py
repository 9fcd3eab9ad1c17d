"""The worst case of a program: steps, calls, tokens, dollars, sizes."""
