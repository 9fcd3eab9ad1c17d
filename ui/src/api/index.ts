// All data of the pages comes through here: embedded in the file itself, or from a server.

import type { RunView } from "./types";

export type * from "./types";

export interface Source {
  /** Whether it is a file: nothing can change, and nothing can be asked. */
  readonly still: boolean;
  /** The one run that a file shows. */
  readonly only: string | null;
  run(id: string): Promise<RunView>;
}

interface Embedded {
  runs: RunView[];
}

class FileSource implements Source {
  readonly still = true;

  constructor(private readonly data: Embedded) {}

  get only(): string | null {
    return this.data.runs.length === 1 ? (this.data.runs[0]?.id ?? null) : null;
  }

  async run(id: string): Promise<RunView> {
    const found = this.data.runs.find((run) => run.id === id);
    if (found === undefined) throw new Error(`this file does not hold run ${id}`);
    return found;
  }
}

/** Where this page has its data from. */
export function source(): Source {
  const block = document.getElementById("nano-vm-data");
  if (block?.textContent) return new FileSource(JSON.parse(block.textContent) as Embedded);
  throw new Error("this page holds no run");
}
