import { expect, test } from "vitest";
import { reconciled } from "../src/model/reconciled";
import { run, step } from "./made";

const steps = [
  step("each[0]/pay", { status: "in_doubt" }),
  step("each[0]/pay/reconcile", { beside: "reconcile", output: '"of the first"' }),
  step("each[1]/pay/reconcile", { beside: "reconcile", output: '"once"' }),
  step("each[1]/pay/reconcile#2", { beside: "reconcile", output: '"twice"' }),
  step("each[1]/pay/undo", { beside: "undo" }),
  step("each[1]/payment/reconcile", { beside: "reconcile" }),
];

test("what its reconcile said last of a call in doubt", () => {
  const view = run([], steps);
  expect(reconciled(view, "each[0]/pay")?.output).toBe('"of the first"');
  expect(reconciled(view, "each[1]/pay")?.output).toBe('"twice"');
});

test("a call whose reconcile was not asked, or is itself a step's name", () => {
  expect(reconciled(run([], steps), "each[2]/pay")).toBe(null);
  expect(reconciled(run([], [step("pay/reconcile")]), "pay")).toBe(null);
});
