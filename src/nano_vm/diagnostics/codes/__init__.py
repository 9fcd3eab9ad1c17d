"""The codes themselves, by what they are about."""
