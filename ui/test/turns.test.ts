import { expect, test } from "vitest";
import { Turns } from "../src/lib/turns";

test("an answer counts unless a newer one came before it", () => {
  const turns = new Turns();
  const [first, second, third] = [turns.ask(), turns.ask(), turns.ask()];
  expect(second()).toBe(true);
  expect(first()).toBe(false);
  expect(third()).toBe(true);
});

test("an answer does not count after its question was given up", () => {
  const turns = new Turns();
  const old = turns.ask();
  turns.forget();
  const current = turns.ask();
  expect(old()).toBe(false);
  expect(current()).toBe(true);
});
