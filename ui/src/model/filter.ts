// The words by which runs are filtered, as they stand in the field and in the address.

import type { RunQuery } from "../api";

export interface Filter {
  query: RunQuery;
  faults: string[];
}

const NAMES =
  "status: program: version: label: by: project: parent: waiting: since: until: cost> text:";
const STATUSES = ["pending", "running", "suspended", "success", "failed", "cancelled"];
const UNITS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400, w: 604_800 };

/** *text* as a query; *now* is in milliseconds. What is no filter is told, and asks for nothing. */
export function parseFilter(text: string, now: number): Filter {
  const query: RunQuery = {};
  const faults: string[] = [];
  const labels: string[] = [];
  for (const part of wordsOf(text)) {
    const [, name = "", written = ""] = /^(\w+)[:>](.*)$/.exec(part) ?? [];
    const value = unquoted(written, name);
    switch (name) {
      case "status": {
        const unknown = value.split(",").filter((one) => !STATUSES.includes(one));
        if (unknown.length === 0) query.status = value;
        else faults.push(`no run has status ${unknown[0]}: ${STATUSES.join(", ")}`);
        break;
      }
      case "label":
        if (value.includes("=")) labels.push(value);
        else faults.push(`a label is label:NAME=VALUE, not ${part}`);
        break;
      case "by":
        query.submitter = value;
        break;
      case "text":
        if (value !== "") query.text = value;
        else faults.push('text: is followed by what is looked for: text:"late parcel"');
        break;
      case "program":
      case "version":
      case "waiting":
      case "project":
      case "parent":
        query[name] = value;
        break;
      case "since":
      case "until": {
        const moment = momentOf(value, now);
        if (moment === null) faults.push(`${part} is no time: 2h (ago), or 2027-01-31`);
        else query[name] = String(moment);
        break;
      }
      case "cost":
        if (/^\d*\.?\d+$/.test(value)) query.min_cost = value;
        else faults.push(`${part} is no cost: cost>0.01`);
        break;
      default:
        faults.push(`${part} is no filter: ${NAMES}`);
    }
  }
  if (labels.length > 0) query.labels = labels.join("\n");
  return { query, faults };
}

function momentOf(text: string, now: number): number | null {
  const age = /^(\d+(?:\.\d+)?)([smhdw])$/.exec(text);
  if (age !== null) return now - Number(age[1]) * (UNITS[age[2] ?? ""] ?? 0) * 1_000;
  const moment = Date.parse(text);
  return Number.isNaN(moment) ? null : moment;
}

/** The words of a filter: between quotes a blank belongs to a word. */
function wordsOf(text: string): string[] {
  return text.match(/(?:"[^"]*"|\S)+/g) ?? [];
}

/** What stands after the name of a word, without the quotes around it, or around the value of a
 * label. All others belong to it.
 */
function unquoted(written: string, name: string): string {
  return written.replace(name === "label" ? /(^|=)"([^"]*)"$/ : /^()"([^"]*)"$/, "$1$2");
}

/** *text* with one word in place of those of its name. */
export function withWord(text: string, name: string, word: string | null): string {
  const rest = wordsOf(text).filter((part) => !part.startsWith(name));
  return (word === null ? rest : [word, ...rest]).join(" ");
}
