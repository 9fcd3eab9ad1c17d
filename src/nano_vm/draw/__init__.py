"""The graph of a program, drawn: Mermaid, DOT, SVG, PNG."""
