"""Where untrusted text goes: proved over the program and judged over one run."""
