import { beforeEach, expect, test, vi } from "vitest";
import { draftOf, keepDraft, removeDrafts } from "../src/team/drafts";

beforeEach(() => {
  const kept: Record<string, string> = {};
  const hidden = { enumerable: false };
  Object.defineProperties(kept, {
    getItem: { ...hidden, value: (key: string) => kept[key] ?? null },
    setItem: {
      ...hidden,
      value: (key: string, text: string) => {
        kept[key] = text;
      },
    },
    removeItem: { ...hidden, value: (key: string) => delete kept[key] },
  });
  vi.stubGlobal("sessionStorage", kept);
});

test("a draft belongs to one program of one project", () => {
  keepDraft("shop", "refund", "name: refund");
  keepDraft("shop", null, "name: hello");
  expect(draftOf("shop", "refund")).toBe("name: refund");
  expect(draftOf("shop", null)).toBe("name: hello");
  expect(draftOf("shop", "null")).toBe(null);
  expect(draftOf("bank", "refund")).toBe(null);
  keepDraft("shop", "refund", null);
  expect(draftOf("shop", "refund")).toBe(null);
});

test("who logs out leaves no draft, and what else is kept stays", () => {
  sessionStorage.setItem("other", "stays");
  keepDraft("shop", "refund", "name: refund");
  removeDrafts();
  expect(draftOf("shop", "refund")).toBe(null);
  expect(sessionStorage.getItem("other")).toBe("stays");
});

test("a browser that keeps nothing costs only the draft", () => {
  vi.stubGlobal("sessionStorage", undefined);
  keepDraft("shop", "refund", "name: refund");
  removeDrafts();
  expect(draftOf("shop", "refund")).toBe(null);
});
