import { type ReactNode, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

const BESIDE = 8; // rows that are drawn above and below what is seen

/** A list of rows of one height, of which only those are drawn that can be seen. */
export function Rows<T>({
  rows,
  height,
  at,
  label,
  keyOf,
  children,
  head,
}: {
  rows: T[];
  height: number;
  at: number; // the row to keep in sight, -1 for none
  label: string;
  keyOf: (row: T) => string;
  children: (row: T, index: number) => ReactNode;
  head?: ReactNode;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ top: 0, height: 800 });
  const measure = useCallback(() => {
    const { scrollTop, clientHeight } = box.current ?? { scrollTop: 0, clientHeight: 0 };
    setSeen({ top: scrollTop, height: clientHeight });
  }, []);
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, [measure]);
  useEffect(() => {
    const element = box.current;
    if (element === null || at < 0) return;
    const top = at * height;
    if (top < element.scrollTop) element.scrollTop = top;
    const bottom = top + 2 * height - element.clientHeight;
    if (bottom > element.scrollTop) element.scrollTop = bottom;
  }, [at, height]);
  const first = Math.max(0, Math.floor(seen.top / height) - BESIDE);
  const last = Math.min(rows.length, Math.ceil((seen.top + seen.height) / height) + BESIDE);
  return (
    <div className="rows" ref={box} onScroll={measure} role="tree" aria-label={label} tabIndex={0}>
      {head}
      <div style={{ height: rows.length * height, position: "relative" }}>
        {rows.slice(first, last).map((row, i) => (
          <div
            key={keyOf(row)}
            style={{ position: "absolute", top: (first + i) * height, height, left: 0, right: 0 }}
          >
            {children(row, first + i)}
          </div>
        ))}
      </div>
    </div>
  );
}
