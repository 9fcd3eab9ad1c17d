import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// One script and one style sheet under fixed names: `nano_vm.ui.page` puts both into one HTML file,
// so nothing may be loaded beside them.
export default defineConfig({
  base: "./",
  plugins: [react()],
  build: {
    outDir: "../src/nano_vm/ui/dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700, // kB, of one script on purpose; 170 kB as it is sent compressed
    modulePreload: false,
    cssCodeSplit: false,
    license: { fileName: "LICENSES.md" }, // of the libraries in the script, which ask for it
    rolldownOptions: {
      output: {
        format: "iife",
        entryFileNames: "assets/app.js",
        assetFileNames: "assets/app.[ext]",
      },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});
