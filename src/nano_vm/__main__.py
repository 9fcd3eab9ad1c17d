"""``python -m nano_vm`` is the command ``nano-vm``."""

import sys

from .cli import main

sys.exit(main())
