"""Play one scenario: ``python chaos_director.py INDEX IMPLEMENTATION RESULT``, started by `chaos_runner`.

Writes the outcome to the file RESULT, and leaves the processes that it started to whoever started it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path

from chaos_scenarios import BARE, SCENARIOS, SHARED
from chaos_shared_stage import SharedStage
from chaos_stage import Outcome, Stage, Verdict


def main() -> None:
    """Play the scenario; does not return."""
    index, implementation, result = sys.argv[1:]
    scenario = SCENARIOS[int(index)]
    try:
        play = scenario.play_for(implementation)
        assert callable(play), "a scenario that cannot happen is not played"  # noqa: S101 - the runner looked
        outcome = play(_stage(implementation, scenario.kind))
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the table says so
        traceback.print_exc()
        outcome = Outcome(Verdict.BROKEN, f"{type(error).__name__}: {error}")
    Path(result).write_text(json.dumps(dataclasses.asdict(outcome)))
    # Not through the exit handlers of multiprocessing: they wait for children, and some of these are stopped.
    os._exit(0)


def _stage(implementation: str, kind: str) -> Stage:
    if implementation in (SHARED, BARE):
        return SharedStage(bare=implementation == BARE)
    return Stage(implementation, kind)


if __name__ == "__main__":
    main()
