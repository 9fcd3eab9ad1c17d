import type { Box } from "../api";
import { type State, word } from "../model/run";

// Each state has its own shape, so that colour says nothing alone.
const STATES: Record<State, string> = {
  done: "M3.5 8.5l3 3 6-7",
  running: "M8 2.5a5.5 5.5 0 1 0 5.5 5.5",
  waiting: "M8 2.5a5.5 5.5 0 1 0 .01 0M8 5v3.4l2.4 1.4",
  retrying: "M12.8 6.2A5.2 5.2 0 1 0 13 9.6M13 3v3.4H9.6",
  failed: "M4 4l8 8M12 4l-8 8",
  doubt: "M5.4 6A2.6 2.6 0 1 1 8.6 8.4c-.5.2-.6.5-.6 1.3M8 12.4v.2",
  skipped: "M3.5 8h9",
  cancelled: "M4.5 4.5h7v7h-7z",
  untaken: "M3.5 8h9",
  queued: "M8 3a5 5 0 1 0 .01 0",
};

export function StateIcon({ state, size = 14 }: { state: State; size?: number }) {
  return (
    <svg
      className={`icon icon-${state}`}
      width={size}
      height={size}
      viewBox="0 0 16 16"
      role="img"
      aria-label={word(state)}
    >
      <path d={STATES[state]} fill="none" stroke="currentColor" strokeWidth="2" />
    </svg>
  );
}

const LOOKS: Record<string, string> = {
  model: "M8 2l1.6 4.4L14 8l-4.4 1.6L8 14l-1.6-4.4L2 8l4.4-1.6z",
  tool: "M10.5 2.5a3.5 3.5 0 0 0-4 4.6L2.5 11l2.5 2.5 3.9-4a3.5 3.5 0 0 0 4.6-4L11 8 8 5z",
  decision: "M8 2l6 6-6 6-6-6z",
  pause: "M8 8a2.8 2.8 0 1 0-.01 0M2.8 14c.4-2.8 2.5-4.2 5.2-4.2s4.8 1.4 5.2 4.2",
  fork: "M3 8h3l3-4h4M6 8l3 4h4",
  stop: "M5.5 2.5h5l3 3v5l-3 3h-5l-3-3v-5z",
  loop: "M12.5 6A5 5 0 1 0 13 9M12.8 2.5V6H9.3",
  step: "M3 5h10M3 8h10M3 11h6",
  chain: "M2 8h12M4 5v6M8 5v6M12 5v6",
};

export function LookIcon({ look, type }: { look: Box["look"]; type: string }) {
  const path = LOOKS[type] ?? LOOKS[look] ?? LOOKS.step;
  return (
    <svg className="icon icon-look" width="14" height="14" viewBox="0 0 16 16" aria-hidden="true">
      <path d={path} fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinejoin="round" />
    </svg>
  );
}
