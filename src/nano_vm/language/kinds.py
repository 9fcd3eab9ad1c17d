"""The names of the types of steps, for those who need no more of a program than that.

It imports nothing, so that a store can number types without the language's models.
"""

from __future__ import annotations

from enum import Enum


class StepType(str, Enum):
    """The types of steps, in the order by which stores number them: a new one comes last.

    Examples:
        >>> from nano_vm import Program, StepType
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> program.steps[0].type is StepType("set")
        True
    """

    TOOL = "tool"
    LLM = "llm"
    CONDITION = "condition"
    SWITCH = "switch"
    PARALLEL = "parallel"
    MAP = "map"
    LOOP = "loop"
    CALL = "call"
    SET = "set"
    APPROVAL = "approval"
    WAIT = "wait"
    ASSERT = "assert"
    FAIL = "fail"


TYPES = tuple(kind.value for kind in StepType)
