"""The commands for the rating page: serve it, and invite people to it."""

import re
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d3po.cli.arguments import RunArgument

if TYPE_CHECKING:
    from d3po.store import Store
    from d3po.web.settings import WebSettings

HostOption = Annotated[
    str, typer.Option(help="Address to listen on. 127.0.0.1: this machine only; 0.0.0.0: all machines that can reach it, by invitation.")
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any free port.")]
UrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The public address of the server if it is behind a proxy, such as https://rate.example.org."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The run's database, such as postgresql://user@host/name. Default: the one in RUN's run.toml."),
]


def rate(
    run: RunArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the printed link in this machine's browser.")] = True,
    url: UrlOption = None,
    store: StoreOption = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the pictures are: a folder, or a URL that fsspec supports, such as s3://... Default: RUN."),
    ] = None,
    gold: Annotated[float, typer.Option(min=0, max=1, help="Share of questions that are gold questions, if the run has any.")] = 0.08,
    repeats: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of pairs after which people are asked one of their earlier pairs again, with the sides swapped."
        ),
    ] = 0.03,
) -> None:
    """Serve the page where people compare a run's pictures, and the dashboard, until Ctrl-C. Training can run at the same time.

    The printed link works in one browser, which becomes the owner's; `d3po invite RUN owner` prints another one.
    """
    from d3po.run.folder import RunFolder
    from d3po.web.server import serve
    from d3po.web.settings import WebSettings

    with _opened(run, store) as opened, RunFolder(path=run).remembering(opened) if store is None else nullcontext():
        settings = WebSettings(
            run=run.resolve().name, images=images or str(run.resolve()), host=host, port=port, public_url=url,
            gold_rate=gold, repeat_rate=repeats,
        )  # fmt: skip
        serve(opened, settings, announce=lambda ready, link: _announce(run, ready, link, store), browser=browser)


def invite(
    run: RunArgument,
    handle: Annotated[
        str, typer.Argument(metavar="NAME", help="The person to invite: a short name, not an e-mail address.", show_default=False)
    ],
    admin: Annotated[bool, typer.Option("--admin", help="Also let them see the dashboard, control the run and invite others.")] = False,
    days: Annotated[int, typer.Option(min=1, max=365, help="For how many days the invitation is valid.")] = 30,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    url: UrlOption = None,
    store: StoreOption = None,
) -> None:
    """Print a link that lets a person rate pictures. It is shown only once, and anyone who has it can use it, so send it to that person alone.

    The NAME owner prints a link for yourself, which works in one browser and has all rights.
    """
    from d3po.errors import ConfigError
    from d3po.store.people import OWNER
    from d3po.web.api_admin import invite_owner, invite_person
    from d3po.web.messages import HANDLE
    from d3po.web.settings import WebSettings

    if not re.fullmatch(HANDLE, handle):
        raise ConfigError(f"NAME {handle!r} may have only letters, digits, '.', '_' and '-', and at most 40 of them")
    settings = WebSettings(run=run.resolve().name, images="", host=host, port=port, public_url=url)
    with _opened(run, store) as opened:
        if handle == OWNER:
            made = invite_owner(opened, "command line", days)
        else:
            made = invite_person(opened, "command line", handle, "admin" if admin else "annotator", days)
    typer.echo(settings.invitation_link(made.token))


@contextmanager
def _opened(run: Path, url: str | None) -> "Generator[Store, None, None]":
    """Open the run's store within the block. With a URL the folder may be new: it then holds only the key that signs invitations."""
    from d3po.run.folder import RunFolder
    from d3po.store import Store

    if url is None:
        folder = RunFolder(path=run)
        opened = folder.store(folder.config().database)
    else:
        run.mkdir(parents=True, exist_ok=True)
        opened = Store(url, key_file=run / "d3po.key")
    try:
        yield opened
    finally:
        opened.close()


def _announce(run: Path, ready: "WebSettings", link: str, store: str | None) -> None:
    where = f" --url {ready.public_url}" if ready.public_url else ""
    if not where:
        where = (f" --host {ready.host}" if ready.host != "127.0.0.1" else "") + (f" --port {ready.port}" if ready.port != 8000 else "")
    where += " --store URL" if store else ""
    typer.echo(f"rate at {link} (this link is for you and opens once, in one browser; press Ctrl-C to stop the server)")
    typer.echo(
        f"the dashboard is at {ready.link('/dashboard')}; to get a new link, run `d3po invite {run} owner{where}`; to invite others, give a name "
        "instead of owner"
    )
