// Who writes a name and who reads it. Names belong to a program: `scope` is the box of its call.

import type { Box, Reading } from "../api";

export interface Name {
  scope: string;
  name: string;
}

export interface Lineage extends Name {
  writers: string[];
  readers: string[];
  given: boolean; // by the inputs
}

export function lineage(boxes: Iterable<Box>, inputs: string[], { scope, name }: Name): Lineage {
  const found: Lineage = { scope, name, writers: [], readers: [], given: false };
  for (const box of boxes) {
    if (box.scope !== scope) continue;
    if (box.writes.includes(name)) found.writers.push(box.id);
    if (box.reads.some((reading) => reading.name === name)) found.readers.push(box.id);
  }
  found.given = found.writers.length === 0 && (scope !== "" || inputs.includes(name));
  return found;
}

export interface Part {
  text: string;
  reading: Reading | null;
}

/** *text* of a program in parts, those that read a name apart; `$$` is no name. */
export function parts(text: string, readings: Reading[]): Part[] {
  const spelled = new Map(readings.map((reading) => [bare(reading.text), reading]));
  const found: Part[] = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    if (text.startsWith("$$", at)) {
      plain += "$$";
      at += 2;
      continue;
    }
    const match = text[at] === "$" ? longest(text, at, spelled) : null;
    if (match === null) {
      plain += text[at];
      at += 1;
      continue;
    }
    if (plain) found.push({ text: plain, reading: null });
    plain = "";
    found.push(match);
    at += match.text.length;
  }
  if (plain) found.push({ text: plain, reading: null });
  return found;
}

function bare(text: string): string {
  return text.startsWith("${") ? text.slice(2, -1) : text.slice(1);
}

function longest(text: string, at: number, spelled: Map<string, Reading>): Part | null {
  let best: Part | null = null;
  for (const [name, reading] of spelled) {
    for (const form of [`\${${name}}`, `$${name}`]) {
      if (!text.startsWith(form, at) || form.length <= (best?.text.length ?? 0)) continue;
      const next = text[at + form.length] ?? "";
      if (!form.endsWith("}") && /[A-Za-z0-9_]/.test(next)) continue;
      best = { text: form, reading };
    }
  }
  return best;
}
