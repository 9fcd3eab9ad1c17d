// Answers arrive in any order: which of them still counts.

import { useState } from "react";

/** Questions that are asked again and again, of which the newest answer is shown. */
export class Turns {
  private last = 0;
  private taken = 0;

  /** To be called when a question is asked; what it returns says, at its answer, whether to take it:
   * not after a newer one, and not after what was asked about has changed. With false it was none:
   * an older question may still be answered. */
  ask(): (answered?: boolean) => boolean {
    this.last += 1;
    const turn = this.last;
    return (answered = true) => {
      if (turn <= this.taken) return false;
      if (answered) this.taken = turn;
      return true;
    };
  }

  /** Nothing that was asked so far counts any more. */
  forget(): void {
    this.taken = this.last;
  }
}

const FIRST_PAUSE_MS = 1_000; // before what was in vain is begun again
const LONGEST_PAUSE_MS = 30_000;

/** Has *look* under way once at a time: who wants it meanwhile gets one more, after it. One that takes
 * longer than *patience*, in milliseconds, is waited for no longer. One that gives false was in vain,
 * and is begun again after a pause, which grows until one is not. After *stop* none is begun. */
export function oneAtATime(
  look: () => Promise<unknown>,
  patience: number,
): { begin: () => void; stop: () => void } {
  let busy = false;
  let wanted = false;
  let stopped = false;
  let pause = FIRST_PAUSE_MS;
  let again: ReturnType<typeof setTimeout> | undefined;
  let waiting: ReturnType<typeof setTimeout> | undefined; // for the one under way
  const begin = () => {
    if (stopped) return;
    if (busy) {
      wanted = true;
      return;
    }
    clearTimeout(again);
    busy = true;
    wanted = false;
    let waits = true;
    const free = () => {
      if (!waits) return;
      waits = false;
      clearTimeout(waiting);
      busy = false;
      if (wanted) begin();
    };
    waiting = setTimeout(free, patience);
    look().then((came) => {
      free();
      if (came !== false) {
        pause = FIRST_PAUSE_MS;
      } else if (!busy && !stopped) {
        clearTimeout(again);
        again = setTimeout(begin, pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    }, free);
  };
  const stop = () => {
    stopped = true;
    clearTimeout(again);
    clearTimeout(waiting);
  };
  return { begin, stop };
}

export function useTurns(): Turns {
  return useState(() => new Turns())[0];
}
