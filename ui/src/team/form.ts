// A form for a program's inputs: fields of its JSON Schema in, the inputs as JSON out. Numbers stay
// as they were written: those of a browser would round some of them.

import { checkedJson } from "../lib/json";

export interface Field {
  name: string;
  kind: "text" | "number" | "json";
  required: boolean;
  told: string;
  /** What can be chosen, as JSON. */
  choices: string[] | null;
}

interface Schema {
  type?: unknown;
  enum?: unknown;
  description?: unknown;
}

/** The fields of a schema of inputs, in its order. */
export function fieldsOf(schema: unknown): Field[] {
  const { properties, required } = (schema ?? {}) as {
    properties?: Record<string, Schema>;
    required?: string[];
  };
  return Object.entries(properties ?? {}).map(([name, found]) => ({
    name,
    kind: kindOf(found.type),
    required: (required ?? []).includes(name),
    told: typeof found.description === "string" ? found.description : "",
    choices: choicesOf(found),
  }));
}

function kindOf(type: unknown): Field["kind"] {
  if (type === "string") return "text";
  return type === "number" || type === "integer" ? "number" : "json";
}

function choicesOf(schema: Schema): string[] | null {
  if (Array.isArray(schema.enum)) return schema.enum.map((value) => JSON.stringify(value));
  return schema.type === "boolean" ? ["true", "false"] : null;
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** The inputs as a JSON object; what is empty and optional is left out. */
export function inputsOf(fields: Field[], values: Record<string, string>): string {
  const parts: string[] = [];
  for (const field of fields) {
    const text = values[field.name] ?? "";
    if (text === "" && !(field.required && field.kind === "text" && field.choices === null)) {
      if (field.required) throw new Error(`${field.name} is missing`);
      continue;
    }
    parts.push(`${JSON.stringify(field.name)}:${jsonOf(field, text)}`);
  }
  return `{${parts.join(",")}}`;
}

function jsonOf(field: Field, text: string): string {
  if (field.choices !== null) return text;
  if (field.kind === "text") return JSON.stringify(text);
  if (field.kind === "json") return checkedJson(field.name, text);
  const trimmed = text.trim();
  if (!NUMBER.test(trimmed)) throw new Error(`${field.name} is a number, like 12.5`);
  return trimmed;
}
