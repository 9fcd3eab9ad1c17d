// JSON as it was written: integers beyond 2^53, `1.0`, and the order of keys survive, which they do
// not in a browser's own values. What comes in was written by the VM; what is no JSON is an error.

export type Node =
  | { kind: "string"; value: string }
  | { kind: "number" | "literal"; text: string }
  | { kind: "list"; items: Node[] }
  | { kind: "object"; entries: [string, Node][] };

const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/y;
const STRING = /"(?:[^"\\]|\\.)*"/y;
const LITERAL = /true|false|null/y;

export function parse(text: string): Node {
  let at = 0;

  function match(pattern: RegExp): string | null {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found === null) return null;
    at += found[0].length;
    return found[0];
  }

  function space(): void {
    while (at < text.length && " \n\r\t".includes(text.charAt(at))) at += 1;
  }

  function expect(char: string): void {
    if (text[at] !== char) throw new SyntaxError(`no JSON: ${char} expected at ${at}`);
    at += 1;
  }

  function string(): string {
    const found = match(STRING);
    if (found === null) throw new SyntaxError(`no JSON: a string expected at ${at}`);
    return JSON.parse(found) as string;
  }

  // the members of a list or an object, up to its closing bracket
  function members(close: string, member: () => void): void {
    at += 1;
    space();
    if (text[at] === close) {
      at += 1;
      return;
    }
    for (;;) {
      space();
      member();
      space();
      if (text[at] === close) break;
      expect(",");
    }
    at += 1;
  }

  function value(): Node {
    space();
    const first = text[at];
    if (first === '"') return { kind: "string", value: string() };
    if (first === "[") {
      const items: Node[] = [];
      members("]", () => items.push(value()));
      return { kind: "list", items };
    }
    if (first === "{") {
      const entries: [string, Node][] = [];
      members("}", () => {
        const key = string();
        space();
        expect(":");
        entries.push([key, value()]);
      });
      return { kind: "object", entries };
    }
    const literal = match(LITERAL);
    if (literal !== null) return { kind: "literal", text: literal };
    const number = match(NUMBER);
    if (number !== null) return { kind: "number", text: number };
    throw new SyntaxError(`no JSON at ${at}`);
  }

  const found = value();
  space();
  if (at !== text.length) throw new SyntaxError(`no JSON: more text at ${at}`);
  return found;
}

/** What was typed as *label*, without the space around it; raises where it is no JSON. */
export function checkedJson(label: string, text: string): string {
  const trimmed = text.trim();
  try {
    JSON.parse(trimmed); // which takes no `007`; what is sent is the text
  } catch (error) {
    throw new Error(`${label} is JSON: ${(error as Error).message}`);
  }
  return trimmed;
}

/** Over several lines, two spaces a level; what fits in *width* stays on one. */
export function pretty(node: Node, width = 60, pad = ""): string {
  const line = compact(node);
  if (line.length + pad.length <= width) return line;
  const inner = `${pad}  `;
  if (node.kind === "list" && node.items.length > 0) {
    return `[\n${node.items.map((item) => inner + pretty(item, width, inner)).join(",\n")}\n${pad}]`;
  }
  if (node.kind === "object" && node.entries.length > 0) {
    const lines = node.entries.map(
      ([key, item]) => `${inner}${JSON.stringify(key)}: ${pretty(item, width, inner)}`,
    );
    return `{\n${lines.join(",\n")}\n${pad}}`;
  }
  return line;
}

export function compact(node: Node): string {
  switch (node.kind) {
    case "string":
      return JSON.stringify(node.value);
    case "list":
      return `[${node.items.map(compact).join(", ")}]`;
    case "object":
      return `{${node.entries.map(([k, v]) => `${JSON.stringify(k)}: ${compact(v)}`).join(", ")}}`;
    default:
      return node.text;
  }
}

/** A field of an object. */
export function field(node: Node | undefined, key: string): Node | undefined {
  if (node?.kind !== "object") return undefined;
  return node.entries.find(([name]) => name === key)?.[1];
}

/** What a person reads: a string without quotes, anything else as JSON on one line. */
export function words(node: Node | undefined): string {
  if (node === undefined) return "";
  return node.kind === "string" ? node.value : compact(node);
}
