import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { TeamSource } from "../src/team/api";

class FakeStream extends EventTarget {
  static readonly CLOSED = 2;
  static made: FakeStream[] = [];
  readyState = 1;

  constructor(readonly url: string) {
    super();
    FakeStream.made.push(this);
  }

  close(): void {
    this.readyState = FakeStream.CLOSED;
  }

  fail(readyState: number): void {
    this.readyState = readyState;
    this.dispatchEvent(new Event("error"));
  }
}

beforeEach(() => {
  FakeStream.made = [];
  vi.stubGlobal("EventSource", FakeStream);
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("a stream that was refused is asked for again, and the run is looked at meanwhile", () => {
  let looks = 0;
  const stop = new TeamSource("shop", []).follow("a", () => looks++);
  FakeStream.made[0]?.fail(0); // the browser connects again by itself
  vi.advanceTimersByTime(10_000);
  expect([FakeStream.made.length, looks]).toEqual([1, 0]);
  FakeStream.made[0]?.fail(FakeStream.CLOSED);
  expect(looks).toBe(1);
  vi.advanceTimersByTime(10_000);
  expect(FakeStream.made.map((stream) => stream.url)).toEqual(
    Array(2).fill("/api/v1/projects/shop/runs/a/events"),
  );
  FakeStream.made[1]?.dispatchEvent(new Event("standing"));
  expect(looks).toBe(2);
  FakeStream.made[1]?.fail(FakeStream.CLOSED);
  stop();
  vi.advanceTimersByTime(10_000);
  expect(FakeStream.made.length).toBe(2);
});

test("a stream that has come to its end is not asked for again", () => {
  const stop = new TeamSource("shop", []).follow("a", () => undefined);
  FakeStream.made[0]?.dispatchEvent(new Event("end"));
  expect(FakeStream.made[0]?.readyState).toBe(FakeStream.CLOSED);
  vi.advanceTimersByTime(10_000);
  expect(FakeStream.made.length).toBe(1);
  stop();
});
