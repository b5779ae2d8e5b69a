"""Who a worker says it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhang._core.identity import Identity, of_environment

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=90)
RANKS = st.none() | st.integers(0, 10**9 - 1)


@given(st.builds(Identity, NAMES, RANKS, RANKS, RANKS, NAMES))
def test_an_identity_comes_out_as_it_went_in(identity):
    """Nothing is lost on the way, nor added."""
    assert Identity.decode(identity.encode()) == identity


@given(st.binary(max_size=600))
def test_any_bytes_are_some_identity(message):
    """A label that cannot be read is left out, and never a reason to refuse a worker."""
    identity = Identity.decode(message)
    assert all(rank is None or rank >= 0 for rank in (identity.rank, identity.local_rank, identity.attempt))


@pytest.mark.parametrize(
    ("environment", "identity"),
    [
        ({}, Identity(host="h")),
        (
            {"TORCHELASTIC_RUN_ID": "j", "RANK": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "2"},
            Identity("j", 3, 1, 2, "h"),
        ),
        (
            {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"},
            Identity("77.2", 5, 1, None, "h"),
        ),
        (
            {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "TORCHELASTIC_RUN_ID": "t", "RANK": "4", "LOCAL_RANK": "4"},
            Identity("t", 4, 4, None, "h"),
        ),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, Identity("", 2, 0, None, "h")),
        ({"RAY_JOB_ID": "01000000", "RANK": "1"}, Identity("01000000", 1, None, None, "h")),
        ({"UNHANG_JOB": "mine", "SLURM_JOB_ID": "77", "RANK": "-1", "LOCAL_RANK": "x"}, Identity("mine", host="h")),
    ],
    ids=["nothing", "torchrun", "slurm", "torchrun in slurm", "open mpi", "ray", "own name, bad ranks"],
)
def test_the_usual_variables_say_who_a_worker_is(environment, identity):
    """Those of the launcher that is nearest to the worker win."""
    assert of_environment(environment, "h") == identity
