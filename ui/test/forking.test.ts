import { describe, expect, test } from "vitest";
import type { RunView } from "../src/api";
import {
  changed,
  type Drafts,
  forkBody,
  inputChanges,
  keyOf,
  stepChanges,
  stepsToFork,
} from "../src/model/forking";

const view = {
  inputs: { amount: "12345678901234567890", note: '"5"' },
  chart: {
    boxes: [{ id: "judge", written: '{"id":"judge","prompt":"Is it $order?","type":"llm"}' }],
  },
  steps: [
    { path: "judge", box: "judge", step: "judge", type: "llm", output: '"yes"' },
    { path: "broken", box: "broken", step: "broken", type: "condition" },
    { path: "pay/undo", box: "pay", step: "pay", type: "tool", beside: "undo" },
  ],
} as unknown as RunView;

function drafts(texts: Record<string, string>): Drafts {
  const [judge] = stepsToFork(view);
  if (judge === undefined) throw new Error("no step");
  const all = [...inputChanges(view), ...stepChanges(view, judge)];
  return new Map(
    all
      .filter((one) => `${one.name}.${one.field}` in texts)
      .map((one) => [keyOf(one), { change: one, text: texts[`${one.name}.${one.field}`] ?? "" }]),
  );
}

describe("a fork", () => {
  test("changes what came from outside, and no computed step", () => {
    expect(stepsToFork(view).map((step) => step.path)).toEqual(["judge"]);
  });

  test("does not change what a person decided", () => {
    const asked = { path: "ask", box: "ask", step: "ask", type: "approval", output: "{}" };
    expect(stepChanges(view, asked as RunView["steps"][number])).toEqual([]);
  });

  test("sends values as they were written", () => {
    const body = forkBody(
      drafts({ "inputs.amount": "98765432109876543210", "inputs.note": "6", "judge.output": "no" }),
      null,
      false,
    );
    expect(body).toBe(
      '{"edit":{"inputs":{"amount":98765432109876543210,"note":"6"},"judge":{"output":"no"}},' +
        '"at":null,"effects":false}',
    );
  });

  test("sends only what differs, and says what is no JSON", () => {
    const same = drafts({ "judge.prompt": "Is it $order?" });
    expect(changed(same)).toEqual([]);
    expect(forkBody(same, "judge", true)).toBe('{"edit":{},"at":"judge","effects":true}');
    expect(() => forkBody(drafts({ "inputs.amount": "12,5" }), null, false)).toThrow(
      "amount of inputs is JSON",
    );
    for (const text of ["007", "-01", '["a\tb"]', ""]) {
      expect(() => forkBody(drafts({ "inputs.amount": text }), null, false)).toThrow(
        "amount of inputs is JSON",
      );
    }
  });
});
