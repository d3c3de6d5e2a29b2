"""Uploads to the hub, against a client that only listens."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from d3po.errors import ConfigError
from d3po.run.export.hub import check_repository, plan_upload, push


class Listener(HfApi):
    """Remembers what it is asked to do."""

    def __init__(self, refuses: str = "", invalid: str = "") -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._refuses, self._invalid = refuses, invalid

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.asked.append(("create_repo", {"repo_id": repo_id, **options}))
        if self._refuses:
            request = httpx.Request("POST", "https://huggingface.co/api/repos/create")
            raise HfHubHTTPError(self._refuses, response=httpx.Response(403, request=request))

    def upload_folder(self, **options: Any) -> Any:
        self.asked.append(("upload_folder", options))
        if self._invalid:
            raise ValueError(self._invalid)
        return SimpleNamespace(commit_url="https://huggingface.co/ada/warm/commit/0123")


@pytest.fixture
def exported(tmp_path: Path) -> list[Path]:
    """What an export wrote, beside a file of somebody's."""
    for name, size in (("lora/weights.safetensors", 3000), ("merged/unet/model.safetensors", 50_000), ("README.md", 10), ("diary.txt", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    return [tmp_path / "lora" / "weights.safetensors", tmp_path / "merged", tmp_path / "README.md"]


def test_the_plan_names_what_was_exported_and_nothing_else(exported: list[Path], tmp_path: Path) -> None:
    assert plan_upload(exported, tmp_path, "ada/warm").lines() == [
        "3 files, 0.05 MB, to https://huggingface.co/ada/warm:",
        "  lora/weights.safetensors  0.00 MB",
        "  merged/unet/model.safetensors  0.05 MB",
        "  README.md  0.00 MB",
    ]


def test_the_export_is_uploaded_in_one_commit(exported: list[Path], tmp_path: Path) -> None:
    hub = Listener()
    assert push(plan_upload(exported, tmp_path, "ada/warm"), private=True, hub=hub) == "https://huggingface.co/ada/warm/commit/0123"
    (made, options), (uploaded, content) = hub.asked
    assert (made, options) == ("create_repo", {"repo_id": "ada/warm", "private": True, "exist_ok": True})
    assert uploaded == "upload_folder"
    assert content["repo_id"] == "ada/warm"
    assert content["folder_path"] == tmp_path
    assert content["allow_patterns"] == ["lora/weights.safetensors", "merged/unet/model.safetensors", "README.md"]


@pytest.mark.parametrize("name", ["warm", "ada/warm/er", "ada/-warm", "ada/wa rm"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="write it as USER/NAME"):
        check_repository(name)


def test_a_refusal_of_the_hub_is_one_line(exported: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ada/warm was not uploaded: You don't have the rights; log in with `hf auth login`"):
        push(plan_upload(exported, tmp_path, "ada/warm"), private=False, hub=Listener(refuses="You don't have the rights"))


def test_a_card_that_the_hub_does_not_take_is_one_line(exported: list[Path], tmp_path: Path) -> None:
    hub = Listener(invalid='Invalid metadata in README.md.\n- "base_model" is not valid')
    with pytest.raises(ConfigError) as refusal:
        push(plan_upload(exported, tmp_path, "ada/warm"), private=False, hub=hub)
    assert str(refusal.value) == (
        'ada/warm was not uploaded: Invalid metadata in README.md. - "base_model" is not valid; '
        f"fix {tmp_path / 'README.md'} and upload it with `hf upload ada/warm {tmp_path}`"
    )
