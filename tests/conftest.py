"""Shared fixtures: the demo tokenizer, a started service in this process, and a server in a process of its own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.live import LiveServer, blaming_memory, is_running, own_engines, wait_until
from winnow.models import demo
from winnow.models.chat_templates.llama2 import Llama2Template
from winnow.models.engines.checkpoint import load_tokenizer
from winnow.models.tokenizer import Tokenizer
from winnow.server.service import Service, started
from winnow.server.settings import Settings

settings.register_profile("winnow", deadline=None)  # a busy machine is no failure
settings.load_profile("winnow")


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer(str(demo.weights("policy")), "policy")


@pytest.fixture(scope="session")
def template() -> Llama2Template:
    return Llama2Template()


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """Three real engines on the demo models, in this process; their processes must end with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own deprecations, and the forked engines inherit the filter
        with contextlib.ExitStack() as stack:
            with blaming_memory():
                running = stack.enter_context(started(Settings()))
            yield running
            engines = own_engines()
        assert wait_until(lambda: not any(map(is_running, engines)), 10), "an engine outlived its service"


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    """`winnow serve` with the demo models, as a process of its own."""
    with LiveServer.start() as running:
        yield running
