// What a server refuses, and whether it is worth asking again.

import type { DiagnosticView, Problem } from "./types";

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

/** What a server answers, and its text; a connection lost before the end of it is a refusal too,
 * which says *away*.
 */
export async function exchange(
  url: string,
  options: RequestInit,
  away: string,
): Promise<[Response, string]> {
  try {
    const answer = await fetch(url, options);
    return [answer, await answer.text()];
  } catch {
    throw new Refusal(away, 0);
  }
}

/** The refusal that an answer is: a problem document, or what *plain* makes of other text. */
export function refusal(status: number, text: string, plain: (text: string) => string): Refusal {
  let problem: Partial<Problem> | null = null;
  try {
    problem = JSON.parse(text);
  } catch {}
  if (typeof problem?.detail !== "string") return new Refusal(plain(text), status);
  return new Refusal(problem.detail, status, problem.diagnostics ?? []);
}
