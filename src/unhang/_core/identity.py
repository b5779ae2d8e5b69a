"""Who a worker says it is: its job, its ranks, its host. Labels for reports; nothing is decided by them.

The variables are those of torchrun, Slurm, Open MPI, MPICH and its kin, PMIx, and Ray, in the order in which the most
specific wins: a torchrun inside a Slurm step sets its own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_JOBS = ("UNHANG_JOB", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_JOBID", "RAY_JOB_ID")
_RANKS = ("UNHANG_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
_LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
_ATTEMPTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
# Numbers beyond this are none of a rank.
_DIGITS = 9
_LONGEST = 96


class Identity:
    """What a worker says about itself. Immutable by custom.

    Attributes:
        job: an id that all workers of the job have in common, or empty.
        rank: in the job; None if it has none.
        local_rank: on its host; None if it has none.
        attempt: how often the job was started again before; None if nobody counts.
        host: the name of its host.
    """

    __slots__ = ("attempt", "host", "job", "local_rank", "rank")

    def __init__(
        self,
        job: str = "",
        rank: int | None = None,
        local_rank: int | None = None,
        attempt: int | None = None,
        host: str = "",
    ) -> None:
        self.job = job
        self.rank = rank
        self.local_rank = local_rank
        self.attempt = attempt
        self.host = host

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[str, int | None, int | None, int | None, str]:
        return self.job, self.rank, self.local_rank, self.attempt, self.host

    def __repr__(self) -> str:
        return f"Identity{self._fields()}"

    def encode(self) -> bytes:
        """As a message holds it: the fields, separated by zeros."""
        return "\0".join("" if field is None else _short(str(field)) for field in self._fields()).encode(
            "utf-8", "backslashreplace"
        )

    @classmethod
    def decode(cls, message: bytes) -> Identity:
        """Who it is; what cannot be read is left out, since a label is not worth a refusal."""
        fields = [*message.decode("utf-8", "replace").split("\0"), "", "", "", "", ""]
        job, rank, local_rank, attempt, host = fields[:5]
        return cls(_short(job), _number(rank), _number(local_rank), _number(attempt), _short(host))


def of_environment(environment: Mapping[str, str], host: str) -> Identity:
    """Who the environment says this process is."""
    return Identity(
        _job(environment).replace("\0", ""),
        _number(_first(environment, _RANKS)),
        _number(_first(environment, _LOCAL_RANKS)),
        _number(_first(environment, _ATTEMPTS)),
        host,
    )


def _job(environment: Mapping[str, str]) -> str:
    """The id of the job; in an allocation of Slurm, each step is a job of its own."""
    job, step = _first(environment, _JOBS), environment.get("SLURM_STEP_ID")
    return f"{job}.{step}" if step and job == environment.get("SLURM_JOB_ID") else job


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


def _short(text: str) -> str:
    return text.replace("\0", "")[:_LONGEST]
