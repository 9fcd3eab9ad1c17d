import { expect, test } from "vitest";
import { compact, field, parse, pretty, words } from "../src/lib/json";

test("numbers stay as they are written", () => {
  for (const text of ["12345678901234567890", "1.0", "-0.0", "1e300", "0.1"]) {
    expect(compact(parse(text))).toBe(text);
  }
});

test("keys keep their order and names that a browser's objects treat apart", () => {
  const text = '{"b": 1, "10": 2, "2": 3, "__proto__": {"x": 4}}';
  expect(compact(parse(text))).toBe(text);
});

test("strings may hold anything", () => {
  const hostile = 'a"b\\c</script>\u202e\n\u{1f600}';
  const node = parse(JSON.stringify({ k: hostile }));
  expect(words(field(node, "k"))).toBe(hostile);
});

test("short values stay on one line and long ones are indented", () => {
  expect(pretty(parse('{"a":[1,2]}'))).toBe('{"a": [1, 2]}');
  expect(pretty(parse('{"a":[1,2],"b":{}}'), 7)).toBe(
    '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {}\n}',
  );
});

test.each(["", "{", "[1,]", "nul", "1 2", '"a', "{'a':1}"])("%j is no JSON", (text) => {
  expect(() => parse(text)).toThrow(SyntaxError);
});
