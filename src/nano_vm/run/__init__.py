"""Where a program meets its host: calls are made, runs are stored, resumed, worked off."""
