// The text editor of programs, a script of its own: CodeMirror weighs half as much as all pages, and
// most who look at runs never edit. It stands in a shadow root, whose style sheets are objects: so
// the policy of the pages, which takes no style elements, holds for it too.

import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { type Diagnostic, lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState } from "@codemirror/state";
import {
  drawSelection,
  EditorView,
  highlightActiveLine,
  highlightActiveLineGutter,
  keymap,
  lineNumbers,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import type { EditorModule, Mark, Opened } from "./types";

const HIGHLIGHT = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--done)" },
  { tag: [tags.number, tags.bool, tags.null, tags.keyword], color: "var(--reader)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
  {
    tag: [tags.punctuation, tags.separator, tags.squareBracket, tags.brace],
    color: "var(--muted)",
  },
]);

const THEME = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--bg)", height: "100%", fontSize: "13px" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-gutters": {
    backgroundColor: "var(--panel)",
    color: "var(--muted)",
    borderRight: "1px solid var(--line)",
  },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--panel)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    backgroundColor: "var(--running-fill)",
  },
  ".cm-selectionBackground": { backgroundColor: "var(--raised)" },
  ".cm-tooltip": {
    backgroundColor: "var(--panel)",
    color: "var(--text)",
    border: "1px solid var(--line)",
    maxWidth: "40rem",
  },
});

/** What stands in a line is marked to its end: the server names where a fault begins. */
function marksOf(state: EditorState, marks: Mark[]): Diagnostic[] {
  return marks
    .filter((mark) => mark.line >= 1 && mark.line <= state.doc.lines)
    .map((mark) => {
      const line = state.doc.line(mark.line);
      const from = Math.min(line.from + Math.max(mark.column - 1, 0), line.to);
      const severity = mark.severity === "error" ? ("error" as const) : ("warning" as const);
      return { from, to: line.to, severity, message: mark.message };
    })
    .sort((a, b) => a.from - b.from);
}

function open(
  place: HTMLElement,
  text: string,
  label: string,
  changed: (text: string) => void,
  moved: (line: number) => void,
): Opened {
  const root = place.shadowRoot ?? place.attachShadow({ mode: "open" });
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(),
        highlightActiveLineGutter(),
        history(),
        drawSelection(),
        highlightActiveLine(),
        indentUnit.of("  "),
        yaml(),
        syntaxHighlighting(HIGHLIGHT),
        lintGutter(),
        keymap.of([...lintKeymap, ...defaultKeymap, ...historyKeymap]),
        EditorView.contentAttributes.of({
          "aria-label": label,
          spellcheck: "false",
          tabindex: "0",
        }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) changed(update.state.doc.toString());
          if (update.selectionSet) {
            moved(update.state.doc.lineAt(update.state.selection.main.head).number);
          }
        }),
        THEME,
      ],
    }),
  });
  return {
    mark: (marks) => view.dispatch(setDiagnostics(view.state, marksOf(view.state, marks))),
    reveal: (number) => {
      const line = view.state.doc.line(Math.min(Math.max(number, 1), view.state.doc.lines));
      view.dispatch({
        selection: { anchor: line.from },
        effects: EditorView.scrollIntoView(line.from, { y: "center" }),
      });
      view.focus();
    },
    close: () => view.destroy(),
  };
}

const module: EditorModule = { open };
(window as { nanoVmEditor?: EditorModule }).nanoVmEditor = module;
