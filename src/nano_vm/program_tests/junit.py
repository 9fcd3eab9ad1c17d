"""Verdicts come in, the XML that CI servers read goes out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from .suite import Verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def junit_xml(verdicts: Mapping[str, Sequence[Verdict]], errors: Mapping[str, str]) -> str:
    """A report by file; *errors* are of files that could not be read."""
    counts = {
        "tests": sum(map(len, verdicts.values())) + len(errors),
        "failures": sum(not one.passed for found in verdicts.values() for one in found),
        "errors": len(errors),
    }
    root = ElementTree.Element("testsuites", {"name": "nano-vm", **_texts(counts)})
    for file, found in verdicts.items():
        failed = sum(not one.passed for one in found)
        suite = _suite(root, file, {"tests": len(found), "failures": failed})
        suite.set("time", f"{sum(one.seconds for one in found):.3f}")
        for one in found:
            _add(suite, file, one)
    for file, message in errors.items():
        suite = _suite(root, file, {"tests": 1, "errors": 1})
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(file), name="the file can be read"
        )
        first = message.partition("\n")[0]
        fault = ElementTree.SubElement(case, "error", message=_clean(first))
        fault.text = _clean(message)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(root: ElementTree.Element, file: str, counts: Mapping[str, int]) -> ElementTree.Element:
    return ElementTree.SubElement(root, "testsuite", {"name": _clean(file), **_texts(counts)})


def _add(suite: ElementTree.Element, file: str, verdict: Verdict) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_clean(file),
        name=_clean(verdict.test.name),
        file=_clean(file),
        line=str(verdict.test.line),
        time=f"{verdict.seconds:.3f}",
    )
    if not verdict.passed:
        failure = ElementTree.SubElement(case, "failure", message=_clean(verdict.faults[0]))
        failure.text = _clean("\n".join(verdict.faults))


def _texts(counts: Mapping[str, int]) -> dict[str, str]:
    return {name: str(count) for name, count in counts.items()}


def _clean(text: str) -> str:
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
