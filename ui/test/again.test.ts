import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { source } from "../src/api";
import { askUntilAnswered, Refusal, refusal, whilePolled } from "../src/api/refusal";
import { call } from "../src/team/api";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Asks of a server that gives *answers* one after another; what was heard, and what stops it. */
function asking(answers: (string | Refusal)[]) {
  const heard: string[] = [];
  const stop = askUntilAnswered(
    async () => {
      const next = answers.shift();
      if (next === undefined) throw new Error("asked too often");
      if (typeof next !== "string") throw next;
      return next;
    },
    250,
    (answer) => heard.push(answer),
    (fault) => heard.push(fault.message),
  );
  return { heard, stop };
}

test("what a server did not answer, or failed at, is asked again until it is answered", async () => {
  const { heard } = asking([new Refusal("away", 0), new Refusal("failed", 503), "checked"]);
  await vi.advanceTimersByTimeAsync(200);
  expect(heard).toEqual([]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(heard).toEqual(["away", "failed", "checked"]);
});

test("what was refused is not asked again", async () => {
  const { heard } = asking([new Refusal("not allowed", 403)]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(heard).toEqual(["not allowed"]);
});

test("what was given up is not asked again, nor heard", async () => {
  const { heard, stop } = asking([new Refusal("away", 0), "checked"]);
  await vi.advanceTimersByTimeAsync(300);
  stop();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(heard).toEqual(["away"]);
});

test("only a page that is polled says that it tries again, and only of what may pass", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("no network")));
  const fault = await call<never>("GET", "me").catch((error: Error) => error);
  expect(fault.message).toBe("the server does not answer");
  expect(whilePolled(fault)).toBe("the server does not answer; this page tries again");
  expect(whilePolled(new Refusal("not found", 404))).toBe("not found");
});

test.each([200, 409])("a connection that is lost in an answer of %d may pass", async (status) => {
  const broken = () =>
    new ReadableStream({
      start(stream) {
        stream.enqueue(new TextEncoder().encode('{"detail": "half of'));
        stream.error(new TypeError("network error"));
      },
    });
  vi.stubGlobal("fetch", async () => new Response(broken(), { status }));
  vi.stubGlobal("document", { querySelector: () => null, getElementById: () => null });
  for (const asked of [call<never>("GET", "me"), source()?.runs({})]) {
    const fault = await asked?.catch((error: Error) => error);
    expect(fault).toBeInstanceOf(Refusal);
    expect(whilePolled(fault as Refusal)).toMatch(/^the server does not answer.*tries again$/);
  }
});

test("an answer that is no problem document is told as what it is", () => {
  const told = (text: string) => refusal(502, text, (plain) => `answered ${plain}`);
  const fault = { place: "p", code: "V001", message: "m" };
  const found = told(JSON.stringify({ detail: "no", diagnostics: [fault] }));
  expect([found.message, found.status, found.diagnostics]).toEqual(["no", 502, [fault]]);
  for (const text of ["<html>", "404", "null", "[]", '{"detail":1}', ""]) {
    expect(told(text).message).toBe(`answered ${text}`);
    expect(told(text).passing).toBe(true);
  }
});
