"""Serve a room: python -m tests.web.browser.serve FOLDER PORT."""

import sys
from contextlib import closing
from pathlib import Path

from d3po.store import Store
from d3po.web.server import serve
from tests.web.browser.rooms import Room

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    with closing(Store.in_folder(folder)) as store:
        serve(store, Room(folder=folder, store=store).settings(port), announce=lambda *_: None, browser=False)
