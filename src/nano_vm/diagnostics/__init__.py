"""A fault in a program or policy, with its place; and the register of what faults there are."""

from .code import Severity
from .diagnostic import Diagnostic, Loc, format_loc, summary

__all__ = ["Diagnostic", "Loc", "Severity", "format_loc", "summary"]
