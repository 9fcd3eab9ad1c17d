// What the script of the editor gives to the pages, which load it where somebody edits.

/** A fault at a place of the text; lines and columns begin at 1. */
export interface Mark {
  line: number;
  column: number;
  severity: string;
  message: string;
}

export interface Opened {
  mark(marks: Mark[]): void;
  /** Shows a line, and puts the cursor there. */
  reveal(line: number): void;
  close(): void;
}

export interface EditorModule {
  open(
    place: HTMLElement,
    text: string,
    label: string,
    changed: (text: string) => void,
    moved: (line: number) => void,
  ): Opened;
}
