import { Fragment, useMemo, useState } from "react";
import { plural } from "../lib/format";
import { type Node, parse, pretty } from "../lib/json";
import { pieces } from "../lib/visible";

/** Text that can do nothing but be read: what no screen shows is shown as its code point. */
export function Plain({ text }: { text: string }) {
  const found = useMemo(() => pieces(text), [text]);
  return (
    <>
      {found.map((piece, i) =>
        piece.hidden ? (
          <span key={i} className="hidden-char">
            {piece.text}
          </span>
        ) : (
          <Fragment key={i}>{piece.text}</Fragment>
        ),
      )}
    </>
  );
}

const FOLDED_LINES = 12;
const FOLDED_CHARS = 1_200;
const OPEN_CHARS = 200_000; // more would stall the page; the button copies all of it

/** A long text folds at twelve lines and says how much there is; it copies whole. */
export function Block({
  text,
  label,
  mono = true,
}: {
  text: string;
  label: string;
  mono?: boolean;
}) {
  const [open, setOpen] = useState(false);
  const lines = useMemo(() => text.split("\n"), [text]);
  const long = lines.length > FOLDED_LINES || text.length > FOLDED_CHARS;
  const short = lines.slice(0, FOLDED_LINES).join("\n").slice(0, FOLDED_CHARS);
  const shown = !long ? text : open ? text.slice(0, OPEN_CHARS) : short;
  return (
    <div className="block">
      <Copy text={text} label={label} />
      <pre className={mono ? "mono" : "prose"}>
        <Plain text={shown} />
      </pre>
      {long && (
        <button type="button" className="link" onClick={() => setOpen(!open)}>
          {open
            ? "show less"
            : `show all: ${plural(lines.length, "line")}, ${text.length} characters`}
        </button>
      )}
      {open && text.length > OPEN_CHARS && (
        <p className="muted">The first {OPEN_CHARS} characters; Copy gives all.</p>
      )}
    </div>
  );
}

/** A value of the run: a string as text, anything else as JSON. */
export function Value({ json, label }: { json: string; label: string }) {
  const node = useMemo(() => read(json), [json]);
  if (node === null) return <Block text={json} label={label} />;
  if (node.kind === "string") {
    return node.value === "" ? (
      <p className="muted">an empty string</p>
    ) : (
      <Block text={node.value} label={label} mono={false} />
    );
  }
  return <Block text={pretty(node)} label={label} />;
}

export function read(json: string): Node | null {
  try {
    return parse(json);
  } catch {
    return null;
  }
}

export function Copy({ text, label }: { text: string; label: string }) {
  const [said, setSaid] = useState("Copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied");
    } catch {
      setSaid("Not allowed"); // a file from disk may not always use the clipboard
    }
    setTimeout(() => setSaid("Copy"), 1_500);
  };
  return (
    <button type="button" className="copy" onClick={copy} aria-label={`Copy ${label}`}>
      {said}
    </button>
  );
}
