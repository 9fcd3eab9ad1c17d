"""Observers of runs for the tools that others have: spans, metrics, logs.

Each is given as ``ExecutionVM(observers=[...])``. What is said in a run, its inputs, prompts, answers
and results, leaves the process only where that is asked for, and through a `Redaction`.
"""
