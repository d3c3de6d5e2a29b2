"""Publishing: what was exported, as a repository on the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id

from d3po.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Exported files on their way to a repository."""

    repository: str
    """USER/NAME on the hub."""
    directory: Path
    files: list[Path]

    def lines(self) -> list[str]:
        """The upload in words: each file with its size."""
        total = sum(file.stat().st_size for file in self.files)
        sizes = [f"  {file.relative_to(self.directory).as_posix()}  {file.stat().st_size / 1e6:,.2f} MB" for file in self.files]
        return [f"{len(self.files)} files, {total / 1e6:,.2f} MB, to https://huggingface.co/{self.repository}:", *sizes]


def check_repository(repository: str) -> str:
    """The name of a repository, USER/NAME.

    Raises:
        ConfigError: it is none.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push-to {repository!r} is no repository's name ({error}); write it as USER/NAME") from error
    if repository.count("/") != 1:
        raise ConfigError(f"--push-to {repository!r} does not say whose repository it is; write it as USER/NAME")
    return repository


def plan_upload(written: Sequence[Path], directory: Path, repository: str) -> Upload:
    """What would be uploaded: the files that an export wrote into `directory`, and nothing else that lies there."""
    files = [file for path in written for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()]
    return Upload(repository=repository, directory=directory, files=files)


def push(upload: Upload, *, private: bool, hub: HfApi | None = None) -> str:
    """Upload in one commit, into a repository that is made if there is none; returns the commit's address.

    Raises:
        ConfigError: nobody is logged in, the hub refuses the card or the rest, or it cannot be reached.
    """
    hub = hub or HfApi()
    paths = [file.relative_to(upload.directory).as_posix() for file in upload.files]
    try:
        hub.create_repo(upload.repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=upload.repository, folder_path=upload.directory, allow_patterns=paths, commit_message="Export of a d3po run"
        )
    except ValueError as error:  # so the hub's client says that the card's heading is not valid
        raise ConfigError(
            f"{upload.repository} was not uploaded: {' '.join(str(error).split())}; mend {upload.directory / 'README.md'} and upload it with "
            f"`hf upload {upload.repository} {upload.directory}`"
        ) from error
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{upload.repository} was not uploaded: {first}; log in with `hf auth login`, and look at its name and at the network"
        ) from error
    return str(commit.commit_url)
