import { expect, test } from "vitest";
import type { Arrow, Box, ChartData, StepDifference } from "../src/api/types";
import { mergeVersions } from "../src/model/versions";
import { arrow, box } from "./made";

function chart(boxes: Box[], arrows: Arrow[] = []): ChartData {
  return { name: "p", digest: "d", inputs: [], entry: "a", boxes, arrows };
}

function step(path: string, more: Partial<StepDifference> = {}): StepDifference {
  return { path, side: "", differs: false, fields: {}, ...more };
}

const END = box("$end", { step: "end", type: "end", look: "end" });

test("what both have stands once, and the rest says whose it is", () => {
  const found = mergeVersions(
    chart([box("a"), box("b"), END], [arrow("a", "b"), arrow("b", "$end")]),
    chart([box("a"), box("c"), END], [arrow("a", "c"), arrow("c", "$end")]),
    [
      step("a", { differs: true, fields: { args: ["1", "2"] } }),
      step("b", { side: "a", differs: true }),
      step("c", { side: "b", differs: true }),
    ],
  );
  expect(Object.fromEntries(found.sides)).toEqual({ a: "changed", b: "a", c: "b", $end: "same" });
  expect(Object.fromEntries(found.taken)).toEqual({
    "a > b": "a",
    "b > $end": "a",
    "a > c": "b",
    "c > $end": "b",
  });
  expect(found.steps.get("a")?.fields.args).toEqual(["1", "2"]);
});

test("a step that moves from one way of a decision to another is one box", () => {
  // the path of a step names the decision whose block it stands in, and no container
  const found = mergeVersions(
    chart([box("if"), box("if/x")], [arrow("if", "if/x", "then")]),
    chart([box("if"), box("x")], [arrow("if", "x", "then")]),
    [step("if"), step("x", { differs: true, fields: { inside: ['"if.then"', "null"] } })],
  );
  expect(found.boxes.map((one) => one.id)).toEqual(["if", "if/x"]);
  expect(found.sides.get("if/x")).toBe("changed");
  expect([...found.taken]).toEqual([["if > if/x : then", "same"]]);
});

test("a step that moves into another container stands in both, and is one step", () => {
  const loop = box("loop", { type: "loop", bound: 3 });
  const found = mergeVersions(
    chart([loop, box("loop/x", { parent: "loop" })]),
    chart([loop, box("x")]),
    [step("loop"), step("x", { differs: true, fields: { inside: ['"loop.steps"', "null"] } })],
  );
  expect(Object.fromEntries(found.sides)).toEqual({ loop: "same", "loop/x": "a", x: "b" });
  expect(found.steps.get("loop/x")).toBe(found.steps.get("x"));
});

test("boxes of the same id in different containers are two", () => {
  const found = mergeVersions(
    chart([box("it"), box("it/x")], [arrow("it", "it/x")]),
    chart([box("it", { type: "loop" }), box("it/x", { parent: "it" })]),
    [step("it", { differs: true }), step("x", { differs: true })],
  );
  expect(found.boxes.map(({ id, parent }) => [id, parent])).toEqual([
    ["it", ""],
    ["it/x", ""],
    ["it/x of the second", "it"],
  ]);
});

test("steps of a program that is called are told apart by the call", () => {
  const called = (call: string, more: Partial<Box> = {}) =>
    box(`${call}/x`, { parent: call, scope: call, ...more });
  const found = mergeVersions(
    chart([box("one"), called("one"), box("two"), called("two")]),
    chart([box("one"), called("one"), box("two"), called("two")]),
    [step("one"), step("one/x"), step("two"), step("two/x", { differs: true })],
  );
  expect([found.sides.get("one/x"), found.sides.get("two/x")]).toEqual(["same", "changed"]);
});

test("a version without a graph leaves that of the other", () => {
  const found = mergeVersions(null, chart([box("a")]), [step("a")]);
  expect(Object.fromEntries(found.sides)).toEqual({ a: "b" });
  expect(mergeVersions(null, null, []).boxes).toEqual([]);
});
