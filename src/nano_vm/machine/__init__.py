"""A `Flow` becomes a `Plan`, outcomes become requests and records. No await, I/O, clock or random
number.
"""
