"""What tests share: the demo tokenizer, a started service in this process, and a server in one of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.live import LiveServer
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.server.service import Service, started
from winnow.server.settings import Settings


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(demo.weights("policy"))


@pytest.fixture(scope="session")
def template(tokenizer: PreTrainedTokenizerBase) -> Llama2Template:
    return Llama2Template(tokenizer)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """Three real engines on the demo models, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own deprecations, and the forked engines inherit the filter
        with started(Settings()) as running:
            yield running


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    """`winnow serve` with the demo models, as a process of its own."""
    with LiveServer.start() as running:
        yield running
