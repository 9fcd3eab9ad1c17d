-- Neovim 0.11 or newer: put this into your init.lua, or into after/plugin/nano_vm.lua.
vim.lsp.config("nano_vm", {
  cmd = { "nano-vm", "lsp" },
  filetypes = { "yaml", "json" },
  root_markers = { "nano-vm.toml", ".git" },
})
vim.lsp.enable("nano_vm")
