import { useMemo } from "react";
import type { ProgramDifference, ProgramVersion } from "../api";
import { words } from "../model/compare";
import { Block, Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Faults, Sheet, useAsked } from "./parts";

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
  const [found, fault] = useAsked<ProgramDifference>(from, `${path}/diff/${one}/${other}`);
  const [left] = useAsked<ProgramVersion>(from, `${path}/versions/${one}`);
  const [right] = useAsked<ProgramVersion>(from, `${path}/versions/${other}`);
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
