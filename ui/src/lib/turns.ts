// Answers arrive in any order: which of them still counts.

import { useState } from "react";

/** Questions that are asked again and again, of which the newest answer is shown. */
export class Turns {
  private last = 0;
  private taken = 0;

  /** To be called when a question is asked; what it returns says, at its answer, whether to take it:
   * not after a newer one, and not after what was asked about has changed. */
  ask(): () => boolean {
    this.last += 1;
    const turn = this.last;
    return () => {
      if (turn <= this.taken) return false;
      this.taken = turn;
      return true;
    };
  }

  /** Nothing that was asked so far counts any more. */
  forget(): void {
    this.taken = this.last;
  }
}

export function useTurns(): Turns {
  return useState(() => new Turns())[0];
}
