"""Shared fixtures: the demo tokenizer, a started service in this process, and a server in a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.live import LiveServer
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.tokenizer import Tokenizer
from winnow.server.service import Service, started
from winnow.server.settings import Settings


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(demo.weights("policy")), "policy")


@pytest.fixture(scope="session")
def template() -> Llama2Template:
    return Llama2Template()


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
