"""A language server: text of programs comes in while it is typed, what editors show goes out."""
