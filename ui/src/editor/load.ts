// Loads the script of the editor, once.

import type { EditorModule } from "./types";

let loading: Promise<EditorModule> | null = null;

export function loadEditor(): Promise<EditorModule> {
  loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/assets/editor.js";
    script.onload = () => {
      const { nanoVmEditor } = window as { nanoVmEditor?: EditorModule };
      if (nanoVmEditor === undefined) failed(new Error("the script of the editor is another one"));
      else done(nanoVmEditor);
    };
    script.onerror = () => {
      loading = null; // for who tries again
      script.remove();
      failed(new Error("the editor could not be loaded from the server"));
    };
    document.head.append(script);
  });
  return loading;
}
