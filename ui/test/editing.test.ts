import { expect, test } from "vitest";
import { linesOf, marksOf } from "../src/model/editing";

const TEXT = `name: refund
steps:
  # - id: old
  - id: judge
    type: llm
    prompt: "what id: other has"
  - {id: pay, type: tool}
  - type: tool
    id: "mail"
`;

test("a line belongs to the step that is named last before it", () => {
  const lines = linesOf(TEXT);
  expect([1, 4, 5, 7, 9].map(lines.stepAt)).toEqual([null, "judge", "judge", "pay", "mail"]);
  expect(["judge", "pay", "mail", "old"].map(lines.lineOf)).toEqual([4, 7, 9, null]);
});

test("a fault without a line has no mark", () => {
  const fault = { code: "V001", severity: "error", message: "what", hint: "do it" };
  expect(marksOf([fault, { ...fault, line: 3 }])).toEqual([
    { line: 3, column: 1, severity: "error", message: "V001: what; do it" },
  ]);
});
