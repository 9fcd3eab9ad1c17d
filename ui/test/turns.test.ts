import { expect, test, vi } from "vitest";
import { oneAtATime, Turns } from "../src/lib/turns";

test("an answer counts unless a newer one came before it", () => {
  const turns = new Turns();
  const [first, second, third] = [turns.ask(), turns.ask(), turns.ask()];
  expect(second()).toBe(true);
  expect(first()).toBe(false);
  expect(third()).toBe(true);
});

test("a question in vain leaves the answer to an older one", () => {
  const turns = new Turns();
  const [first, second, third] = [turns.ask(), turns.ask(), turns.ask()];
  expect(third(false)).toBe(true);
  expect(second()).toBe(true);
  expect(first(false)).toBe(false);
});

test("an answer does not count after its question was given up", () => {
  const turns = new Turns();
  const old = turns.ask();
  turns.forget();
  const current = turns.ask();
  expect(old()).toBe(false);
  expect(current()).toBe(true);
});

test("what is wanted while it is under way is done once more after it", async () => {
  const asked: (() => void)[] = [];
  const { begin: look } = oneAtATime(
    () => new Promise<void>((answer) => asked.push(answer)),
    60_000,
  );
  for (let i = 0; i < 5; i++) look();
  expect(asked.length).toBe(1);
  asked[0]?.();
  await vi.waitFor(() => expect(asked.length).toBe(2));
  asked[1]?.();
  await Promise.resolve();
  expect(asked.length).toBe(2); // nobody wants a third
  look();
  await vi.waitFor(() => expect(asked.length).toBe(3));
});

test("what was in vain is begun again, after a pause that grows until it comes", async () => {
  vi.useFakeTimers();
  const begun: number[] = [];
  let comes = false;
  const { begin: look } = oneAtATime(async () => {
    begun.push(Date.now());
    return comes;
  }, 60_000);
  look();
  await vi.advanceTimersByTimeAsync(100_000);
  const pauses = begun.slice(1).map((at, i) => at - (begun[i] ?? 0));
  expect(pauses).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  comes = true;
  await vi.advanceTimersByTimeAsync(100_000);
  expect(begun.length).toBe(9);
  comes = false;
  look();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(begun.length).toBe(11); // the pause is the first again
  comes = true;
  look(); // who wants it does not wait for the pause, which is over then
  await vi.advanceTimersByTimeAsync(100_000);
  expect(begun.length).toBe(12);
  vi.useRealTimers();
});

test("what is in vain after it was waited for no longer is begun again too", async () => {
  vi.useFakeTimers();
  let begun = 0;
  const { begin: look } = oneAtATime(async () => {
    begun += 1;
    if (begun > 1) return true;
    await new Promise((over) => setTimeout(over, 5_000));
    return false;
  }, 1_000);
  look();
  await vi.advanceTimersByTimeAsync(5_500);
  expect(begun).toBe(1);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(begun).toBe(2);
  vi.useRealTimers();
});

test("what never ends or fails holds up nothing for ever", async () => {
  vi.useFakeTimers();
  let asked = 0;
  const { begin: hangs } = oneAtATime(() => {
    asked += 1;
    return new Promise(() => {});
  }, 1_000);
  hangs();
  hangs();
  expect(asked).toBe(1);
  vi.advanceTimersByTime(1_000);
  expect(asked).toBe(2);
  vi.useRealTimers();
  const { begin: fails } = oneAtATime(async () => {
    asked += 1;
    throw new Error("no");
  }, 60_000);
  fails();
  fails();
  await vi.waitFor(() => expect(asked).toBe(4));
});

test.each(["pauses", "is under way"])(
  "what is stopped while it %s is not begun again",
  async (when) => {
    vi.useFakeTimers();
    let begun = 0;
    const { begin, stop } = oneAtATime(async () => {
      begun += 1;
      await new Promise((over) => setTimeout(over, 500));
      return false;
    }, 60_000);
    begin();
    if (when === "is under way") begin(); // one more is wanted, and is not begun either
    await vi.advanceTimersByTimeAsync(when === "pauses" ? 700 : 300);
    expect(vi.getTimerCount()).toBe(when === "pauses" ? 1 : 2);
    stop();
    expect(vi.getTimerCount()).toBe(when === "pauses" ? 0 : 1); // that of the look itself
    await vi.advanceTimersByTimeAsync(500);
    expect(vi.getTimerCount()).toBe(0); // there is no pause after it
    begin();
    expect(begun).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
  },
);
