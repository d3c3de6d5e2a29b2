"""Carries out what people tell a running trainer from the dashboard: pause, resume, stop, train now."""

import time

from d3po.errors import RunEndedError
from d3po.run.opened import OpenRun
from d3po.store import ControlState

POLL_SECONDS = 1.0


def check_control(run: OpenRun) -> ControlState:
    """Wait while the run is paused, and return the state of the controls.

    Raises:
        RunEndedError: the run was told to stop; everything done so far is saved.
    """
    state = run.store.journal.current_control()
    while state.paused and not state.stop:
        time.sleep(POLL_SECONDS)
        state = run.store.journal.current_control()
    if state.stop:
        run.journal.phase("stopped", None, "stopped from the dashboard")
        raise RunEndedError(f"stopped from the dashboard; `d3po run {run.folder.path}` continues from here")
    return state
