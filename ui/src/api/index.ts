// All data of the pages comes through here: embedded in the file itself, or from a server.

import { exchange, refusal } from "./refusal";
import type {
  Answer,
  AskedList,
  Cancelled,
  Comparison,
  Current,
  Day,
  ForkMade,
  ForkPreview,
  ForkTree,
  Hit,
  RunList,
  RunRow,
  RunView,
  Verified,
  View,
} from "./types";

export type * from "./types";

/** What a list of runs can be asked for. */
export type RunQuery = Partial<
  Record<
    | "status"
    | "program"
    | "version"
    | "waiting"
    | "project"
    | "submitter"
    | "parent"
    | "labels"
    | "since"
    | "until"
    | "min_cost"
    | "text"
    | "after",
    string
  >
>;

/** Some runs; of those that were searched for text, with the places where it stands. */
export type Listed = RunList & { runs: (RunRow & { hits?: Hit[] })[]; searched?: number };

/** What a server's list of runs has beside the runs. */
export interface ListOfTeam {
  views(): Promise<View[]>;
  keepView(view: View): Promise<void>;
  removeView(name: string): Promise<void>;
  days(query: RunQuery): Promise<Day[]>;
  /** Null for who may cancel none. */
  cancel: ((ids: string[]) => Promise<Cancelled[]>) | null;
}

/** How runs are forked; a body is JSON as text. */
export interface ForksOfSource {
  /** What makes the calls of a fork. */
  readonly driver: string;
  preview(id: string, body: string): Promise<ForkPreview>;
  make(id: string, body: string): Promise<ForkMade>;
  tree(id: string): Promise<ForkTree>;
}

export interface Source {
  readonly list: ListOfTeam | null;
  /** Whether it is a file: nothing can change, and nothing can be asked. */
  readonly still: boolean;
  /** Whether it is a server of several people, whose pages a bar above leads to. */
  readonly shared: boolean;
  /** Null where no run can be forked from a page. */
  readonly forks: ForksOfSource | null;
  /** Whether runs can be searched for text. */
  readonly searches: boolean;
  /** The one run that a file shows. */
  readonly only: string | null;
  runs(query: RunQuery): Promise<Listed>;
  /** With *graph* `later` a run may come without it, which is made meanwhile, see `isDrawn`. */
  run(id: string, seen?: string, graph?: "later"): Promise<Current>;
  /** Calls *changed* whenever the run does, until what it returns is called; null where it cannot. */
  follow(id: string, changed: () => void): (() => void) | null;
  verify(id: string): Promise<Verified>;
  compare(a: string, b: string): Promise<Comparison>;
  asked(): Promise<AskedList>;
  answer(answer: Answer): Promise<void>;
}

class FileSource implements Source {
  readonly still = true;
  readonly shared = false;
  readonly forks = null;
  readonly searches = false;
  readonly list = null;

  constructor(private readonly data: { runs: RunView[] }) {}

  get only(): string | null {
    return this.data.runs[0]?.id ?? null;
  }

  async runs(): Promise<RunList> {
    return { runs: [], after: null, damaged: [], now: Date.now() };
  }

  async run(id: string): Promise<Current> {
    const found = this.data.runs.find((run) => run.id === id);
    if (found === undefined) throw new Error(`this file does not hold run ${id}`);
    return { version: "file", run: found };
  }

  follow(): null {
    return null;
  }

  async verify(): Promise<Verified> {
    throw new Error("a file cannot recompute a run; nano-vm replay does");
  }

  async compare(): Promise<Comparison> {
    throw new Error("a file holds one run; nano-vm ui compares two");
  }

  async asked(): Promise<AskedList> {
    return { asked: [], damaged: [], by: null, now: Date.now() };
  }

  async answer(): Promise<void> {
    throw new Error("a file takes no answers");
  }
}

class ServerSource implements Source {
  readonly still = false;
  readonly shared = false;
  readonly searches = true;
  readonly list = null;
  readonly only = null;

  async runs(query: RunQuery): Promise<Listed> {
    return ask(query.text === undefined ? "runs" : "search", query);
  }

  async run(id: string, seen?: string, graph?: "later"): Promise<Current> {
    return ask(`run/${encodeURIComponent(id)}`, known(seen, graph));
  }

  follow(): null {
    return null; // it is asked again and again
  }

  async verify(id: string): Promise<Verified> {
    return ask(`verify/${encodeURIComponent(id)}`, {});
  }

  async compare(a: string, b: string): Promise<Comparison> {
    return ask(`compare/${encodeURIComponent(a)}/${encodeURIComponent(b)}`, {});
  }

  async asked(): Promise<AskedList> {
    return ask("asked", {});
  }

  async answer(answer: Answer): Promise<void> {
    await send("answer", JSON.stringify(answer));
  }

  readonly forks: ForksOfSource = {
    driver: "this nano-vm ui, if it was started with --with-worker; else nano-vm work or resume",
    preview: (id, body) => send<ForkPreview>(`run/${encodeURIComponent(id)}/fork/preview`, body),
    make: (id, body) => send<ForkMade>(`run/${encodeURIComponent(id)}/fork`, body),
    tree: (id) => ask<ForkTree>(`run/${encodeURIComponent(id)}/forks`, {}),
  };
}

/** What a run is asked for with. */
export function known(seen: string | undefined, graph: string | undefined): Record<string, string> {
  return { ...(seen !== undefined && { seen }), ...(graph !== undefined && { graph }) };
}

function send<T>(path: string, body: string): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return ask<T>(path, {}, { method: "POST", headers, body });
}

async function ask<T>(
  path: string,
  query: Record<string, string>,
  options: RequestInit = {},
): Promise<T> {
  const words = new URLSearchParams(query).toString();
  const [answer, text] = await exchange(
    `api/${path}${words && `?${words}`}`,
    options,
    "the server does not answer: is nano-vm ui still running?",
  );
  if (!answer.ok) throw refusal(answer.status, text, (plain) => plain);
  return JSON.parse(text) as T;
}

/** Where this page has its data from; null where it is a server's, which asks who one is first. */
export function source(): Source | null {
  if (document.querySelector('meta[name="nano-vm-server"]') !== null) return null;
  const block = document.getElementById("nano-vm-data");
  return block?.textContent ? new FileSource(JSON.parse(block.textContent)) : new ServerSource();
}
