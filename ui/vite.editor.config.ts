import { defineConfig } from "vite";

// The editor, a script of its own beside that of the pages: see src/editor/main.ts.
export default defineConfig({
  build: {
    outDir: "../src/nano_vm/ui/dist",
    emptyOutDir: false, // the pages are there already
    license: { fileName: "LICENSES-editor.md" },
    rolldownOptions: {
      input: "src/editor/main.ts",
      output: { format: "iife", entryFileNames: "assets/editor.js" },
    },
  },
});
