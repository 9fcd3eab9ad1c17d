"""``python -m nano_vm.diagnostics`` prints docs/diagnostics.md."""

import sys

from .page import document

sys.stdout.write(document())
