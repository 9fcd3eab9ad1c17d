import {
  type InputHTMLAttributes,
  type ReactNode,
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import { Refusal } from "../api/refusal";
import { moment } from "../lib/format";
import { useTurns } from "../lib/turns";
import { saidOf } from "../model/editing";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";

interface Found<T> {
  ask: (() => Promise<T>) | null; // what was asked
  answer: T | null;
  fault: Error | null;
}

/** What *path* of a project answers, its fault, and a function that asks again; without one nothing
 * is asked. With a *body*, JSON as text, that is posted to it: to one that changes nothing. */
export function useAsked<T>(
  from: TeamSource,
  path: string | null,
  body?: string,
): [T | null, Error | null, () => Promise<void>] {
  const ask = useMemo(() => {
    if (path === null) return null;
    return () => (body === undefined ? from.get<T>(path) : from.post<T>(path, body));
  }, [from, path, body]);
  const [found, setFound] = useState<Found<T>>({ ask, answer: null, fault: null });
  const turns = useTurns();
  const look = useCallback(() => {
    if (ask === null) return Promise.resolve();
    const counts = turns.ask();
    return ask().then(
      (answer) => {
        if (counts()) setFound({ ask, answer, fault: null });
      },
      (fault: Error) => {
        if (!counts()) return;
        setFound((old) => ({ ask, answer: old.ask === ask ? old.answer : null, fault }));
      },
    );
  }, [ask, turns]);
  useEffect(() => {
    turns.forget();
    void look();
  }, [look, turns]);
  return found.ask === ask ? [found.answer, found.fault, look] : [null, null, look];
}

/** Why something was refused; of a program each fault with its place. */
export function Faults({ error }: { error: Error | null }) {
  if (error === null) return null;
  const found = error instanceof Refusal ? error.diagnostics : [];
  return (
    <div className="note state-failed" role="alert">
      {found.length === 0 ? (
        <Plain text={error.message} />
      ) : (
        <ul>
          {found.map((one) => (
            <li key={one.place + one.code + one.message}>
              <strong>
                <Plain text={one.place} />
              </strong>{" "}
              <Plain text={saidOf(one)} />
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

/** A page of forms and tables. */
export function Sheet({
  title,
  tools,
  children,
}: {
  title: string;
  tools?: ReactNode;
  children: ReactNode;
}) {
  useEffect(() => {
    document.title = title;
  }, [title]);
  return (
    <div className="sheet-page">
      <header className="top">
        <div className="title">
          <h1>{title}</h1>
          {tools !== undefined && (
            <>
              <span className="grow" />
              {tools}
            </>
          )}
        </div>
      </header>
      <main>{children}</main>
    </div>
  );
}

/** A function that waits for a change and asks for what is shown again; and why the last change was
 * refused. It gives whether it was made. */
export function useChange(
  look: () => Promise<unknown>,
): [(work: Promise<unknown>) => Promise<boolean>, Error | null] {
  const [refused, setRefused] = useState<Error | null>(null);
  const change = async (work: Promise<unknown>) => {
    const fault = await work.then(
      () => null,
      (error: Error) => error,
    );
    setRefused(fault);
    await look();
    return fault === null;
  };
  return [change, refused];
}

/** A field of a form with its label; *onText* is told what stands in it. */
export function Field({
  label,
  onText,
  ...input
}: { label: string; onText: (text: string) => void } & InputHTMLAttributes<HTMLInputElement>) {
  return (
    <label>
      {label}
      <input {...input} onChange={(event) => onText(event.target.value)} />
    </label>
  );
}

/** A cell of a table with a time, without one with what *never* says; the exact one is its title. */
export function When({ at, never = "" }: { at: number | null; never?: string }) {
  if (at === null) return <td className="when">{never}</td>;
  return (
    <td className="when" title={new Date(at).toISOString()}>
      {moment(at)}
    </td>
  );
}

/** A table of these *heads*, each with a title where it has one, and one for the last column that
 * only a screen reader says. It scrolls by itself where it is wider than the page; on a phone each
 * row is a card, in which a cell says what stands above it otherwise. */
export function Cells({
  heads,
  unseen,
  children,
}: {
  heads: (string | [label: string, title: string])[];
  unseen?: string;
  children: ReactNode;
}) {
  const table = useRef<HTMLTableElement>(null);
  useLayoutEffect(() => {
    const heads = [...(table.current?.tHead?.rows[0]?.cells ?? [])].map((head) =>
      head.querySelector(".unseen") === null ? (head.textContent ?? "") : "",
    );
    for (const row of table.current?.tBodies[0]?.rows ?? []) {
      for (const cell of row.cells) cell.dataset.label = heads[cell.cellIndex] ?? "";
    }
  });
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: else nobody scrolls it by the keyboard
    <div className="rows-frame" tabIndex={0}>
      <table ref={table} className="sheet-rows">
        <thead>
          <tr>
            {heads.map((head, place) => {
              const [label, title] = typeof head === "string" ? [head] : head;
              return (
                // by place: two may say the same
                <th key={place} title={title}>
                  {label}
                </th>
              );
            })}
            {unseen !== undefined && (
              <th>
                <span className="unseen">{unseen}</span>
              </th>
            )}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
