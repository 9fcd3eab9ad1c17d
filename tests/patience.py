"""How long a test waits for what must come.

A test never passes because something was quick: a machine that does much else makes everything
slow. It fails after this time, which only a hang reaches.
"""

HANGS_SECONDS = 240.0
