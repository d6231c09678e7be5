"""What the tests of every package share: a tiny real model, and a wall around loopback."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioner.checkpoint import Checkpoint
from captioner.data import fingerprint
from captioner.decoders import DECODERS
from captioner.encoders import Reduction, build
from captioner.keywords import Keywords
from captioner.ngrams import KneserNey, NGrams
from captioner.tokenizer import CaptionTokenizer

torch.set_num_threads(1)

TEXTS = [
    "when the cat finds the laser pointer",
    "one does not simply walk past the dog",
    "a brown dog runs through the green grass",
    "two children play football on the beach",
    "me waiting for the test to pass",
    "what if the picture is looking at us",
    "a man in a red shirt rides a bicycle",
    "nobody: my brain at 3 in the morning",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with random weights, written by the project's own code."""
    torch.manual_seed(5)
    tokenizer = CaptionTokenizer.train(TEXTS * 3, 700)
    encoder = build()
    config = {
        "vocabulary": len(tokenizer),
        "features": 16,
        "embedding": 16,
        "units": 24,
        "attention": 8,
        "dropout": 0.1,
    }
    decoder = DECODERS["attention_gru"](config)
    reduction = Reduction.fit(torch.randn(200, encoder.channels), 16)
    prints = np.array(sorted({fingerprint(t) for t in TEXTS}), np.uint32)
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    checkpoint = Checkpoint(decoder.eval(), reduction, tokenizer, "tiny", fingerprints=prints)
    ids = [tokenizer.encode([text]) for text in TEXTS]
    checkpoint.ngrams = NGrams.of(KneserNey(ids, tokenizer.prefix("meme")[0], len(tokenizer)))
    checkpoint.keywords = Keywords(16, ["dog", "cat"])
    checkpoint.save(file)
    return file


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that connects to anything but loopback."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and host != "localhost" and not _loopback(host):
            pytest.fail(f"a test reached for {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where nothing may be skipped (QUIPBOT_ALLOW_NO_SKIP), a skip is a failure that says why."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("QUIPBOT_ALLOW_NO_SKIP") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
