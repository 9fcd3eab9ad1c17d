// The axis of time. Where nothing but waiting happens for long, it is cut: otherwise hours of
// waiting for a person squeeze the steps into a line.

import type { StepView } from "../api";
import { duration } from "../lib/format";

export interface Break {
  from: number; // milliseconds of the run
  to: number;
  left: number; // shares of the axis
  right: number;
  label: string;
}

export interface Axis {
  at(ms: number): number; // 0 to 1
  breaks: Break[];
  ticks: { at: number; label: string }[];
}

const IDLE_MS = 30_000;
const IDLE_SHARE = 0.1;
const BREAK_SHARE = 0.05;
const LAST_TICK = 0.92; // of the axis: a label behind it would be cut
const PAUSES = new Set(["approval", "wait"]);

export function axis(steps: StepView[], end: number): Axis {
  const total = Math.max(end, 1e-6);
  const idle = gaps(steps, total).filter(
    ([from, to]) => to - from > IDLE_MS && to - from > IDLE_SHARE * total,
  );
  const cut = idle.reduce((sum, [from, to]) => sum + to - from, 0);
  const scale = (1 - idle.length * BREAK_SHARE) / Math.max(total - cut, 1e-6);
  const at = (ms: number): number => {
    let passed = 0;
    let share = 0;
    for (const [from, to] of idle) {
      if (ms <= from) break;
      share += (from - passed) * scale;
      if (ms < to) return share + ((ms - from) / (to - from)) * BREAK_SHARE;
      share += BREAK_SHARE;
      passed = to;
    }
    return Math.min(1, Math.max(0, share + (ms - passed) * scale));
  };
  const breaks = idle.map(([from, to]) => ({
    from,
    to,
    left: at(from),
    right: at(to),
    label: `${duration(to - from)} waiting`,
  }));
  return { at, breaks, ticks: ticks(total, at, idle) };
}

/** Where no step but a pause is under way. */
function gaps(steps: StepView[], total: number): [number, number][] {
  const busy = steps
    .filter((step) => !PAUSES.has(step.type) && step.end !== null)
    .map((step): [number, number] => [step.start, step.end ?? step.start])
    .filter(([from, to]) => to - from < total || steps.length === 1)
    .sort((a, b) => a[0] - b[0]);
  const waits = steps.some((step) => PAUSES.has(step.type));
  if (!waits) return [];
  const found: [number, number][] = [];
  let reached = 0;
  for (const [from, to] of busy) {
    if (from > reached) found.push([reached, from]);
    reached = Math.max(reached, to);
  }
  if (total > reached) found.push([reached, total]);
  return found;
}

const STEPS_MS = [1, 2, 5].flatMap((digit) => [-3, -2, -1, 0, 1, 2, 3].map((p) => digit * 10 ** p));
const NICE_MS = [
  ...STEPS_MS,
  10_000,
  15_000,
  30_000,
  60_000,
  300_000,
  900_000,
  3_600_000,
  21_600_000,
  86_400_000,
].sort((a, b) => a - b);

function ticks(
  total: number,
  at: (ms: number) => number,
  idle: [number, number][],
): { at: number; label: string }[] {
  const step = NICE_MS.find((size) => total / size <= 5) ?? total;
  const found = [];
  for (let ms = 0; ms <= total; ms += step) {
    if (idle.some(([from, to]) => ms > from && ms < to) || at(ms) > LAST_TICK) continue;
    found.push({ at: at(ms), label: ms === 0 ? "0" : duration(ms) });
  }
  return found;
}
