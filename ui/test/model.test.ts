import { expect, test } from "vitest";
import { axis } from "../src/model/axis";
import { differingIn, folded, words } from "../src/model/compare";
import { parseFilter, withWord } from "../src/model/filter";
import { foldChains } from "../src/model/fold";
import { layout } from "../src/model/layout";
import { lineage, parts } from "../src/model/lineage";
import {
  errorBrief,
  errorText,
  firstToSee,
  foldedAtFirst,
  index,
  keysAround,
  rows,
  type State,
} from "../src/model/run";
import { choose, shown } from "../src/model/shown";
import { standing } from "../src/model/standing";
import { arrow, box, run, step } from "./made";

const MAP = [
  box("items", { type: "map" }),
  box("items/price", { parent: "items" }),
  box("items/inner", { parent: "items", type: "map" }),
  box("items/inner/x", { parent: "items/inner" }),
];

function mapped() {
  return index(
    run(
      MAP,
      [
        step("items[0]/price"),
        step("items[0]/inner[0]/x"),
        step("items[0]/inner[1]/x", {
          status: "failed",
          error: { kind: "tool", type: "E", message: "m" },
        }),
        step("items[0]/inner", { type: "map" }),
        step("items[1]/price", { status: "suspended", end: null }),
      ],
      { status: "suspended", duration: null },
    ),
  );
}

test("an error without a message is named by its class", () => {
  const error = { kind: "tool", type: "MemoryError", message: "" };
  expect([errorText(error), errorBrief(error)]).toEqual(["MemoryError", "MemoryError"]);
  expect(errorText({ ...error, message: "no room" })).toBe("MemoryError: no room");
  expect(errorBrief({ ...error, message: "no room" })).toBe("no room");
});

test("items are instances, of the item around them too", () => {
  const found = mapped();
  expect([...found.instances.keys()]).toEqual([
    "items[0]",
    "items[0]/inner[0]",
    "items[0]/inner[1]",
    "items[1]",
  ]);
  expect(found.instances.get("items[0]/inner[1]")?.state).toBe("failed");
  expect(found.instances.get("items[0]")?.state).toBe("done"); // its map went on
  expect(found.instances.get("items[1]")?.state).toBe("waiting");
});

test("boxes show the item that wants to be seen, or the one that is chosen", () => {
  const found = mapped();
  const first = shown(found, new Map());
  expect(first.get("items/price")?.steps.map((one) => one.path)).toEqual(["items[1]/price"]);
  expect(first.get("items/inner/x")?.state).toBe("untaken");
  const failed = found.byPath.get("items[0]/inner[1]/x");
  if (failed === undefined) throw new Error("it is there");
  const chosen = shown(found, choose(found, new Map(), failed));
  expect(chosen.get("items/inner/x")?.steps).toEqual([failed]);
  expect(chosen.get("items/price")?.steps.map((one) => one.path)).toEqual(["items[0]/price"]);
});

test("rows stand as a tree, containers before what is in them", () => {
  const found = mapped();
  expect(rows(found, new Set()).map((row) => [row.depth, row.key])).toEqual([
    [0, "items"],
    [1, "@items[0]"],
    [2, "items[0]/price"],
    [2, "items[0]/inner"],
    [3, "@items[0]/inner[0]"],
    [4, "items[0]/inner[0]/x"],
    [3, "@items[0]/inner[1]"],
    [4, "items[0]/inner[1]/x"],
    [1, "@items[1]"],
    [2, "items[1]/price"],
  ]);
});

test("what is folded at first hides nothing that waits or failed", () => {
  const found = mapped();
  const closed = foldedAtFirst(found, 0);
  expect([...closed]).toEqual(["@items[0]/inner[0]"]);
  const step1 = found.byPath.get("items[0]/inner[0]/x");
  if (step1 === undefined) throw new Error("it is there");
  expect(keysAround(found, step1)).toContain("@items[0]/inner[0]");
});

test("what a run waits for is seen before a failure that it went on from", () => {
  expect(firstToSee(mapped())?.path).toBe("items[1]/price");
});

test("ten thousand items are indexed in a moment", () => {
  const steps = Array.from({ length: 10_000 }, (_, i) => step(`items[${i}]/price`));
  const began = performance.now();
  const found = index(run(MAP, steps));
  expect(found.instancesOf.get("items")?.length).toBe(10_000);
  rows(found, foldedAtFirst(found, 60));
  expect(performance.now() - began).toBeLessThan(5_000);
});

test("a chain of finished steps folds, and opens", () => {
  const boxes = "abcdef".split("").map((id) => box(id));
  const arrows = boxes.slice(1).map((one, i) => arrow(boxes[i]?.id ?? "", one.id));
  const state = (id: string): State => (id === "f" ? "failed" : "done");
  const all = foldChains(boxes, arrows, state, new Set(), new Set());
  expect(all.boxes.map((one) => one.id)).toEqual(["chain:a", "f"]);
  expect(all.chains.get("chain:a")?.boxes).toEqual(["a", "b", "c", "d", "e"]);
  expect(all.arrows.map((one) => [one.source, one.target])).toEqual([["chain:a", "f"]]);
  expect(foldChains(boxes, arrows, state, new Set(), new Set(["chain:a"])).boxes.length).toBe(6);
  const kept = foldChains(boxes, arrows, state, new Set(["b"]), new Set());
  expect(kept.boxes.map((one) => one.id)).toEqual(["a", "b", "c", "d", "e", "f"]);
});

test("boxes of a layout do not overlap and stand in their containers", () => {
  const boxes = [
    box("a"),
    box("items", { type: "map" }),
    box("items/x", { parent: "items" }),
    box("items/y", { parent: "items" }),
    box("b"),
    box("c"),
  ];
  const arrows = [
    arrow("a", "items"),
    arrow("items/x", "items/y"),
    arrow("items", "b"),
    arrow("a", "c", "otherwise"),
    arrow("b", "c"),
  ];
  const found = layout(boxes, arrows, new Set(), () => 0);
  const at = new Map(found.nodes.map((node) => [node.box.id, node]));
  const outer = at.get("items");
  const inner = at.get("items/y");
  if (outer === undefined || inner === undefined) throw new Error("they are placed");
  expect(inner.y + inner.height).toBeLessThanOrEqual(outer.height);
  expect(inner.x + inner.width).toBeLessThanOrEqual(outer.width);
  const top = ["a", "items", "b", "c"].flatMap((id) => at.get(id) ?? []);
  for (const one of top) {
    for (const other of top) {
      if (one === other) continue;
      const apart =
        one.x + one.width <= other.x ||
        other.x + other.width <= one.x ||
        one.y + one.height <= other.y ||
        other.y + other.height <= one.y;
      expect(apart, `${one.box.id} and ${other.box.id}`).toBe(true);
    }
  }
  expect(found.arrows.every((one) => one.points !== null)).toBe(true);
});

test("a closed container stands for what is in it", () => {
  const boxes = [box("a"), box("l", { type: "loop" }), box("l/x", { parent: "l" }), box("b")];
  const arrows = [arrow("a", "l"), arrow("l/x", "b", "otherwise")];
  const found = layout(boxes, arrows, new Set(["l"]), () => 0);
  expect(found.nodes.map((node) => node.box.id)).toEqual(["a", "l", "b"]);
  expect(found.arrows.map((one) => [one.arrow.source, one.arrow.target])).toEqual([
    ["a", "l"],
    ["l", "b"],
  ]);
});

test("a name's writers and readers are those of its own program", () => {
  const reads = [{ text: "$a.x", name: "a", field: "args" }];
  const boxes = [
    box("a"),
    box("b", { reads }),
    box("c/a", { scope: "c" }),
    box("c/d", { scope: "c", reads }),
  ];
  expect(lineage(boxes, ["i"], { scope: "", name: "a" })).toMatchObject({
    writers: ["a"],
    readers: ["b"],
    given: false,
  });
  expect(lineage(boxes, ["i"], { scope: "", name: "i" }).given).toBe(true);
});

const C = ["$", "{c}"].join(""); // a template of ours, and none of this language

test("names in a text are found as they are spelled", () => {
  const readings = [
    { text: "$a", name: "a", field: "prompt" },
    { text: "$a.b", name: "a", field: "prompt" },
    { text: C, name: "c", field: "prompt" },
  ];
  expect(
    parts(`x $a.b, $ab, $$a ${C}d $5 $a.`, readings).map((part) => [part.text, part.reading?.text]),
  ).toEqual([
    ["x ", undefined],
    ["$a.b", "$a.b"],
    [", $ab, $$a ", undefined],
    [C, C],
    ["d $5 ", undefined],
    ["$a", "$a"],
    [".", undefined],
  ]);
});

test("an hour of waiting does not squeeze the steps", () => {
  const hour = 3_600_000;
  const steps = [
    step("a", { start: 0, end: 1_000 }),
    step("ok", { type: "approval", start: 1_000, end: hour }),
    step("b", { start: hour, end: hour + 1_000 }),
  ];
  const found = axis(steps, hour + 1_000);
  expect(found.breaks.map((cut) => cut.label)).toEqual(["59 m 59 s waiting"]);
  expect(found.at(1_000)).toBeGreaterThan(0.4);
  expect(found.at(hour)).toBeGreaterThan(found.at(1_000));
  expect(found.at(hour + 1_000)).toBe(1);
});

test("filters are words, and what is none is told", () => {
  const now = 1_000_000_000;
  expect(
    parseFilter("status:failed,running label:a=b label:c=d since:1h cost>0.5 by:mia", now),
  ).toEqual({
    query: {
      status: "failed,running",
      labels: "a=b\nc=d",
      since: String(now - 3_600_000),
      min_cost: "0.5",
      submitter: "mia",
    },
    faults: [],
  });
  const { query, faults } = parseFilter("status:nope color:red label:x since:soon cost>much", now);
  expect(query).toEqual({});
  expect(faults.length).toBe(5);
  expect(parseFilter('text:"late parcel" label:"team=my shop"', now).query).toEqual({
    text: "late parcel",
    labels: "team=my shop",
  });
  expect(parseFilter("program:p version:3 waiting:approval:manager", now)).toEqual({
    query: { program: "p", version: "3", waiting: "approval:manager" },
    faults: [],
  });
  expect(parseFilter('text: text:""', now).faults.length).toBe(2);
  expect(parseFilter('status:"failed" program:"my p" label:team="my shop"', now)).toEqual({
    query: { status: "failed", program: "my p", labels: "team=my shop" },
    faults: [],
  });
  expect(withWord('status:failed text:"a  b"', "status:", null)).toBe('text:"a  b"');
  expect(withWord("status:failed program:p", "status:", null)).toBe("program:p");
  expect(withWord("program:p", "status:", "status:failed")).toBe("status:failed program:p");
});

test("quotes around a word keep its blanks, and those inside are searched for", () => {
  const searched = (text: string) => parseFilter(text, 0).query.text;
  for (const text of ['{"a":1}', '"a":1', 'x="y"', '"a","b"', 'say"', '"{"a": 1}"']) {
    expect(searched(`text:${text}`)).toBe(text);
  }
  expect(searched('text:"a"')).toBe("a");
  expect(parseFilter('label:said="so" label:said=a"b', 0).query.labels).toBe('said=so\nsaid=a"b');
});

test("a run stands as what it waits for", () => {
  const asks = { path: "p", kind: "approval", role: "manager" };
  expect(standing("suspended", [asks])).toEqual({ state: "waiting", text: "waiting for manager" });
  expect(standing("suspended", [asks, { path: "q", kind: "in_doubt" }]).state).toBe("doubt");
  expect(standing("running", [], false).text).toBe("left behind");
  expect(standing("success", []).text).toBe("done");
});

test("texts are compared by their words, whole and in order", () => {
  const found = words("the cat sat", "the dog sat down");
  expect(found).toEqual([
    { text: "the ", side: "" },
    { text: "cat", side: "a" },
    { text: "dog", side: "b" },
    { text: " sat", side: "" },
    { text: " down", side: "b" },
  ]);
  for (const side of ["a", "b"] as const) {
    const text = found.filter((word) => word.side === "" || word.side === side);
    expect(text.map((word) => word.text).join("")).toBe(
      side === "a" ? "the cat sat" : "the dog sat down",
    );
  }
});

test("two differ in what they were given and made, and not in what that cost", () => {
  const pair: [string, string] = ["1", "2"];
  expect(differingIn({ inputs: pair, duration_ms: pair, cost_usd: pair, retries: pair })).toBe(
    "inputs, failed attempts",
  );
});

test("one word that changes in a long text is found, and nothing else", () => {
  const text = (word: string) => `${"a line of it\n".repeat(900)}${word}${" and more".repeat(900)}`;
  expect(words(text("old"), text("new")).map(({ text, side }) => side && text)).toEqual([
    "",
    "old",
    "new",
    "",
  ]);
  expect(
    words("a a", "a a a")
      .map(({ text }) => text)
      .join(""),
  ).toBe("a a a");
  expect(words("", "x")).toEqual([{ text: "x", side: "b" }]);
  expect(words("same", "same")).toEqual([{ text: "same", side: "" }]);
});

test("equal steps and long stretches of one side stand in one row", () => {
  const of = (path: string, side: "" | "a" | "b", differs: boolean) => ({
    path,
    side,
    differs,
    fields: {},
  });
  const steps = [
    of("a", "", false),
    of("b", "", false),
    of("c", "", true),
    ...["d", "e", "f", "g"].map((path) => of(path, "a", true)),
    of("h", "b", true),
  ];
  expect(
    folded(steps, false).map((row) => ("group" in row ? `${row.group} ${row.count}` : row.path)),
  ).toEqual(["same 2", "c", "a 4", "h"]);
  expect(folded(steps, true)).toEqual(steps);
});
