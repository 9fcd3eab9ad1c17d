"""Text in, a `Program` and its one `Flow` out. Reads, checks and lowers; evaluates nothing that a
run gives.
"""
