"""Several models behind one name: `Pool` and its members."""

from .member import Member
from .pool import Pool

__all__ = ["Member", "Pool"]
