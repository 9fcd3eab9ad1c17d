// What the pages of a server ask for beside runs: who is logged in, programs, members, keys, the log.

import {
  type ForksOfSource,
  known,
  type Listed,
  type ListOfTeam,
  type RunQuery,
  type Source,
} from "../api";
import { exchange, refusal } from "../api/refusal";
import type {
  Answer,
  AskedList,
  CancelledList,
  Comparison,
  Current,
  DayList,
  ForkMade,
  ForkPreview,
  ForkTree,
  Started,
  Verified,
  ViewList,
} from "../api/types";

/** Heard when a session has ended while its pages are open. */
export const SIGNED_OUT = "nano-vm-signed-out";

/** What a server answers to *path* below `/api/v1/`; a body is JSON as text. */
export async function call<T>(method: string, path: string, body?: string): Promise<T> {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const options: RequestInit = { method, headers, body: body ?? null };
  const [answer, text] = await exchange(`/api/v1/${path}`, options, "the server does not answer");
  if (answer.status === 204) return undefined as T;
  if (answer.ok) return JSON.parse(text) as T;
  if (answer.status === 401 && path !== "login") window.dispatchEvent(new Event(SIGNED_OUT));
  throw refusal(
    answer.status,
    text,
    () => `the server, or a proxy before it, answered ${answer.status}`,
  );
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
  readonly forks: ForksOfSource | null = null;

  constructor(
    readonly project: string,
    readonly permissions: readonly string[],
  ) {
    this.base = `projects/${part(project)}`;
    if (this.may("run:cancel")) {
      this.list.cancel = async (ids) =>
        (await this.send<CancelledList>("POST", "runs/cancel", { ids })).runs;
    }
    if (this.may("run:fork")) this.forks = this.#forks();
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

  #forks(): ForksOfSource {
    const path = (id: string) => `${this.base}/runs/${part(id)}`;
    return {
      driver: "a worker of the project",
      preview: (id, body) => call<ForkPreview>("POST", `${path(id)}/fork/preview`, body),
      make: (id, body) => call<ForkMade>("POST", `${path(id)}/fork`, body),
      tree: (id) => call<ForkTree>("GET", `${path(id)}/forks`),
    };
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

  async run(id: string, seen?: string, graph?: "later"): Promise<Current> {
    return this.get(`runs/${part(id)}?${new URLSearchParams(known(seen, graph))}`);
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
