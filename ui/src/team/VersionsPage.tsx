import { useMemo } from "react";
import { words } from "../model/compare";
import { Block, Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Faults, Sheet, useAsked } from "./parts";

interface Version {
  version: number;
  put_by: string;
  source: string;
  versions: number[];
}

/** Two versions of a program: what differs in what they do, and in their text. */
export function VersionsPage({
  from,
  name,
  versions: [a, b],
}: {
  from: TeamSource;
  name: string;
  versions: [string, string];
}) {
  const path = `programs/${encodeURIComponent(name)}`;
  const one = encodeURIComponent(a);
  const other = encodeURIComponent(b);
  const [found, fault] = useAsked<{ same: boolean; text: string }>(
    from,
    `${path}/diff/${one}/${other}`,
  );
  const [left] = useAsked<Version>(from, `${path}/versions/${one}`);
  const [right] = useAsked<Version>(from, `${path}/versions/${other}`);
  const text = useMemo(
    () => (left === null || right === null ? null : words(left.source, right.source)),
    [left, right],
  );
  return (
    <Sheet title={`${name}: version ${a} and ${b}`}>
      <p>
        <a href={`#/programs/${encodeURIComponent(name)}`}>‹ Back to the program</a>
      </p>
      <Faults error={fault} />
      {found !== null && (
        <section>
          <h2>What they do</h2>
          {found.same ? (
            <p className="muted">They do the same: what differs is how they are written.</p>
          ) : (
            <Block text={found.text} label="what differs" />
          )}
        </section>
      )}
      {text !== null && (
        <section>
          <h2>How they are written</h2>
          <div className="block">
            <pre className="mono">
              {text.map((word, i) =>
                word.side === "" ? (
                  <Plain key={i} text={word.text} />
                ) : word.side === "a" ? (
                  <del key={i}>
                    <Plain text={word.text} />
                  </del>
                ) : (
                  <ins key={i}>
                    <Plain text={word.text} />
                  </ins>
                ),
              )}
            </pre>
          </div>
        </section>
      )}
    </Sheet>
  );
}
