// What the pages of a server ask for beside runs: who is logged in, programs, members, keys, the log.

import type { Listed, ListOfTeam, RunQuery, Source } from "../api";
import type {
  Answer,
  AskedList,
  CancelledList,
  Comparison,
  Current,
  DayList,
  DiagnosticView,
  Problem,
  Started,
  Verified,
  ViewList,
} from "../api/types";

/** That the server refused: its status, and what is wrong with a program. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly diagnostics: DiagnosticView[] = [],
  ) {
    super(message);
  }

  /** Whether the same may be answered later: the server was not there, or has failed. */
  get passing(): boolean {
    return this.status === 0 || this.status >= 500;
  }
}

/** Whether what was asked in vain is worth asking again. */
export function mayPass(fault: Error): boolean {
  return fault instanceof Refusal && fault.passing;
}

/** A fault in the words of a page that asks again by itself. */
export function whilePolled(fault: Error): string {
  return mayPass(fault) ? `${fault.message}; this page tries again` : fault.message;
}

const ASK_AGAIN_MS = 3000;

/** Asks after *delay*, and again while a fault may pass; returns what gives it up. */
export function askUntilAnswered<T>(
  ask: () => Promise<T>,
  delay: number,
  answered: (answer: T) => void,
  failed: (fault: Error) => void,
): () => void {
  let gone = false;
  const once = () =>
    ask().then(
      (answer) => {
        if (!gone) answered(answer);
      },
      (fault: Error) => {
        if (gone) return;
        failed(fault);
        if (mayPass(fault)) timer = setTimeout(once, ASK_AGAIN_MS);
      },
    );
  let timer = setTimeout(once, delay);
  return () => {
    gone = true;
    clearTimeout(timer);
  };
}

/** Heard when a session has ended while its pages are open. */
export const SIGNED_OUT = "nano-vm-signed-out";

/** What a server answers to *path* below `/api/v1/`; a body is JSON as text. */
export async function call<T>(method: string, path: string, body?: string): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(`/api/v1/${path}`, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body ?? null,
    });
  } catch {
    throw new Refusal("the server does not answer", 0);
  }
  if (answer.status === 204) return undefined as T;
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text) as T;
  if (answer.status === 401 && path !== "login") window.dispatchEvent(new Event(SIGNED_OUT));
  throw refusal(answer.status, text);
}

function refusal(status: number, text: string): Refusal {
  try {
    const problem: Problem = JSON.parse(text);
    return new Refusal(String(problem.detail), status, problem.diagnostics ?? []);
  } catch {
    return new Refusal(`the server, or a proxy before it, answered ${status}`, status);
  }
}

export function send<T>(method: string, path: string, value: unknown): Promise<T> {
  return call<T>(method, path, JSON.stringify(value));
}

const part = encodeURIComponent;

/** How long after a stream was refused it is asked for again. */
const OPEN_AGAIN_MS = 3000;

/** The runs of one project. */
export class TeamSource implements Source {
  readonly still = false;
  readonly shared = true;
  readonly only = null;
  readonly base: string;

  constructor(
    readonly project: string,
    readonly permissions: readonly string[],
  ) {
    this.base = `projects/${part(project)}`;
    if (this.may("run:cancel")) {
      this.list.cancel = async (ids) =>
        (await this.send<CancelledList>("POST", "runs/cancel", { ids })).runs;
    }
  }

  readonly list: ListOfTeam = {
    views: async () => (await this.get<ViewList>("views")).views,
    keepView: ({ name, query }) => this.send("PUT", `views/${part(name)}`, { query }),
    removeView: (name) => call("DELETE", `${this.base}/views/${part(name)}`),
    days: async (query) => (await this.get<DayList>(`days?${new URLSearchParams(query)}`)).days,
    cancel: null,
  };

  get searches(): boolean {
    return this.may("run:content");
  }

  get forks(): boolean {
    return this.may("run:fork");
  }

  may(permission: string): boolean {
    return this.permissions.includes(permission);
  }

  get<T>(path: string): Promise<T> {
    return call<T>("GET", `${this.base}/${path}`);
  }

  send<T>(method: string, path: string, value: unknown): Promise<T> {
    return send<T>(method, `${this.base}/${path}`, value);
  }

  /** What is answered to *body*, JSON as text. */
  post<T>(path: string, body: string): Promise<T> {
    return call<T>("POST", `${this.base}/${path}`, body);
  }

  /** Starts a run; *inputs* is JSON as text, in which numbers stand as they were written. */
  start(program: string, version: number, inputs: string): Promise<Started> {
    const body = `{"program":${JSON.stringify(program)},"version":${version},"inputs":${inputs}}`;
    return call("POST", `${this.base}/runs`, body);
  }

  async runs(query: RunQuery): Promise<Listed> {
    const route = query.text === undefined ? "runs" : "search";
    return this.get(`${route}?${new URLSearchParams(query)}`);
  }

  async run(id: string, seen?: string): Promise<Current> {
    return this.get(`runs/${part(id)}${seen === undefined ? "" : `?seen=${part(seen)}`}`);
  }

  follow(id: string, changed: () => void): () => void {
    let stream: EventSource;
    let again: ReturnType<typeof setTimeout> | undefined;
    const open = () => {
      stream = new EventSource(`/api/v1/${this.base}/runs/${part(id)}/events`);
      stream.addEventListener("standing", changed);
      stream.addEventListener("end", () => stream.close()); // else a browser would ask again
      stream.addEventListener("error", () => {
        // a browser connects again by itself, but not after an answer that is no stream
        if (stream.readyState !== EventSource.CLOSED) return;
        changed();
        again = setTimeout(open, OPEN_AGAIN_MS);
      });
    };
    open();
    return () => {
      clearTimeout(again);
      stream.close();
    };
  }

  async verify(id: string): Promise<Verified> {
    return this.get(`runs/${part(id)}/verify`);
  }

  async compare(a: string, b: string): Promise<Comparison> {
    return this.get(`compare/${part(a)}/${part(b)}`);
  }

  async asked(): Promise<AskedList> {
    return this.get("inbox");
  }

  async answer(answer: Answer): Promise<void> {
    await this.send("POST", "inbox", answer);
  }
}
