"""Callables in, `ToolContract` out: what a tool takes, what it gives, and how it is to be
called.
"""
