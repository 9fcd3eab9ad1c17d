"""Programs on a Temporal cluster (extra ``temporal``): the same machine, the same trace."""

from ..errors import MissingExtra

try:
    import temporalio  # noqa: F401
except ImportError as error:
    raise MissingExtra("nano_vm.temporal", "temporal") from error

from .conversion import data_converter
from .encryption import Encryption
from .lists import Listed, listed
from .runs import TemporalRuns, connect
from .storage import Storage, external_storage
from .worker import TASK_QUEUE, NanoPlugin, worker
from .workflow import NanoProgram

__all__ = [
    "TASK_QUEUE",
    "Encryption",
    "Listed",
    "NanoPlugin",
    "NanoProgram",
    "Storage",
    "TemporalRuns",
    "connect",
    "data_converter",
    "external_storage",
    "listed",
    "worker",
]
