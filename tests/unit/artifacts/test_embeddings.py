"""Prompt embeddings on disk."""

from pathlib import Path

import torch

from d3po.artifacts.embeddings import EmbeddingCache

ROWS = {"text": torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)), "mask": torch.tensor([[True, False]])}


def test_what_was_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    cache = EmbeddingCache(directory=tmp_path / "embeddings", made_by={"model": "one", "weights": "float32"})
    assert cache.read("a cat") is None
    cache.write("a cat", ROWS)
    found = cache.read("a cat")
    assert found is not None
    assert found.keys() == ROWS.keys()
    assert all(torch.equal(found[name], ROWS[name]) and found[name].dtype == ROWS[name].dtype for name in ROWS)
    assert cache.read("a dog") is None


def test_another_model_or_setting_finds_nothing(tmp_path: Path) -> None:
    EmbeddingCache(directory=tmp_path, made_by={"model": "one", "width": 512}).write("a cat", ROWS)
    assert EmbeddingCache(directory=tmp_path, made_by={"width": 512, "model": "one"}).read("a cat") is not None
    for other in ({"model": "two", "width": 512}, {"model": "one", "width": 768}):
        assert EmbeddingCache(directory=tmp_path, made_by=other).read("a cat") is None


def test_a_damaged_file_counts_as_absent(tmp_path: Path) -> None:
    cache = EmbeddingCache(directory=tmp_path, made_by={})
    cache.write("a cat", ROWS)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.read("a cat") is None
    cache.write("a cat", ROWS)
    assert cache.read("a cat") is not None
