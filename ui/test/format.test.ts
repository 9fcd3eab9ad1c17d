import { expect, test } from "vitest";
import { cost, duration, plural, tokens } from "../src/lib/format";
import { pieces } from "../src/lib/visible";

test.each([
  [0, "0 ms"],
  [0.0124, "0.012 ms"],
  [12.4, "12 ms"],
  [999.6, "1 s"],
  [1234, "1.2 s"],
  [46_910, "46.9 s"],
  [192_000, "3 m 12 s"],
  [4_380_000, "1 h 13 m"],
  [3_600_000, "1 h"],
  [200_000_000, "2 d 7 h"],
])("%d ms is told as %s", (ms, text) => {
  expect(duration(ms)).toBe(text);
});

test.each([
  ["0.000078", "$0.000078"],
  ["0.0000001234", "$0.00000012"],
  ["0", "$0"],
  ["12.345", "$12.35"],
  [null, "no price"],
])("a cost of %s is told as %s, and never as nothing", (usd, text) => {
  expect(cost(usd)).toBe(text);
});

test("many tokens are told in thousands", () => {
  expect(tokens(431)).toBe("431 tok");
  expect(tokens(23_456)).toBe("23.5k tok");
});

test("what no screen shows is told as its code point", () => {
  expect(pieces("a\u202eb\u{1f600}\ud800")).toEqual([
    { text: "a", hidden: false },
    { text: "U+202E", hidden: true },
    { text: "b\u{1f600}", hidden: false },
    { text: "U+D800", hidden: true },
  ]);
  expect(pieces("line\nline\ttab")).toEqual([{ text: "line\nline\ttab", hidden: false }]);
});

test.each([
  [1, "box", "1 box"],
  [601, "box", "601 boxes"],
  [0, "branch", "0 branches"],
  [2, "step", "2 steps"],
])("%d of a %s is %s", (count, word, text) => {
  expect(plural(count, word)).toBe(text);
});
