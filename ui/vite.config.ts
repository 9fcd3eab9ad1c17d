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
    modulePreload: false,
    cssCodeSplit: false,
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
