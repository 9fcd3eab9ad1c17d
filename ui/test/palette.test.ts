import { expect, test } from "vitest";
import { matching, runNamed } from "../src/model/palette";

const GOALS = [
  { name: "Runs", told: "page", address: "#/" },
  { name: "refund", told: "program", address: "#/programs/refund" },
  { name: "refund", told: "path map of the program", address: "#/programs/refund/map" },
  { name: "Costs", told: "page", address: "#/costs" },
];

test("all words must be there, and a name that begins with them comes first", () => {
  expect(matching(GOALS, "ref map").map((goal) => goal.address)).toEqual(["#/programs/refund/map"]);
  expect(matching(GOALS, "r").map((goal) => goal.name)).toEqual(["Runs", "refund", "refund"]);
  expect(matching(GOALS, "P").map((goal) => goal.name)).toEqual([
    "Runs",
    "refund",
    "refund",
    "Costs",
  ]);
  expect(matching(GOALS, "nothing")).toEqual([]);
});

test("what can be the id of a run leads to it", () => {
  expect(runNamed(" a/b ").map((goal) => goal.address)).toEqual(["#/run/a%2Fb"]);
  expect(runNamed("two words")).toEqual([]);
  expect(runNamed("")).toEqual([]);
});
