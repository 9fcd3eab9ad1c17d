"""Reliability: processes that are killed, frozen and starved, and what must hold of their runs
afterwards.

`make test` runs the short versions in `test_soak`, `make soak` the long ones (``python -m soak``);
reliability.md holds their figures.
"""
