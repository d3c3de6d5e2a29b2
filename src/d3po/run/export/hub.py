"""Publishes an export as a repository on the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from d3po.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Exported files, and the repository to which they are to be uploaded."""

    repository: str
    """USER/NAME on the hub."""
    directory: Path
    files: list[Path]

    def lines(self) -> list[str]:
        """Describe the upload in lines of text: each file with its size."""
        total = sum(file.stat().st_size for file in self.files)
        sizes = [f"  {file.relative_to(self.directory).as_posix()}  {file.stat().st_size / 1e6:,.2f} MB" for file in self.files]
        return [f"{len(self.files)} files, {total / 1e6:,.2f} MB, to https://huggingface.co/{self.repository}:", *sizes]


def check_repository(repository: str) -> str:
    """Return the name of a repository, USER/NAME, if it is valid.

    Raises:
        ConfigError: it is not valid.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push-to {repository!r} is not the name of a repository ({error}); write it as USER/NAME") from error
    if repository.count("/") != 1:
        raise ConfigError(f"--push-to {repository!r} does not say whose repository it is; write it as USER/NAME")
    return repository


def plan_upload(written: Sequence[Path], directory: Path, repository: str) -> Upload:
    """Collect the files that an export wrote into `directory`, without any other files in it."""
    files = [file for path in written for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()]
    return Upload(repository=repository, directory=directory, files=files)


def push(upload: Upload, *, private: bool, hub: HfApi | None = None) -> str:
    """Upload the files in one commit, and return the commit's URL. The repository is created if it does not exist.

    Args:
        upload: the files and the repository.
        private: whether a new repository is private.
        hub: the client. Default: a new one.

    Raises:
        ConfigError: nobody is logged in, the hub refuses the card or a file, or the hub cannot be reached.
    """
    hub = hub or HfApi()
    paths = [file.relative_to(upload.directory).as_posix() for file in upload.files]
    try:
        hub.create_repo(upload.repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=upload.repository, folder_path=upload.directory, allow_patterns=paths, commit_message="Export of a d3po run"
        )
    except ValueError as error:  # the hub's client raises this if the heading of the card is not valid
        raise ConfigError(
            f"{upload.repository} was not uploaded: {' '.join(str(error).split())}; fix {upload.directory / 'README.md'} and upload it with "
            f"`hf upload {upload.repository} {upload.directory}`"
        ) from error
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{upload.repository} was not uploaded: {first}; log in with `hf auth login`, and check the repository's name and the network"
        ) from error
    return str(commit.commit_url)
