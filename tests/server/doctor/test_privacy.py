"""Nothing that identifies a person or a machine, and no secret, gets into a report."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.server.doctor.privacy import clean, clean_text, environment

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=3, max_size=12).filter(lambda name: name.strip("."))


@given(st.lists(names, min_size=2, max_size=5))
def test_of_a_path_only_the_last_part_is_left(parts: list[str]) -> None:
    told = clean_text(f"cannot read '/{'/'.join(parts)}': no such file")
    assert told == f"cannot read '…/{parts[-1]}': no such file"


@given(names)
def test_no_users_name_is_left(name: str) -> None:
    for text in (f"/home/{name}", f"/home/{name}/x/y.py", f"at (/Users/{name}/a)"):
        told = clean_text(text)
        assert "~" in told
        assert "/home" not in told
        assert "/Users" not in told


def test_the_home_and_the_hosts_name_are_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/opt/people/alice")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-box-7")
    told = clean_text("gpu-box-7: /opt/people/alice/.cache/vllm failed, http://u:secret@proxy.corp:3128/ 10.1.2.3:80")
    assert told == "(this host): ~/.cache/vllm failed, (an address) (an address)"


@pytest.mark.parametrize("text", ["vllm 0.33.0", "1.5 GiB / s, 3/4 of it", "a/b", "torch 2.13.0+cpu", "12:30:01"])
def test_other_texts_stay(text: str) -> None:
    assert clean_text(text) == text


def test_texts_are_found_at_any_depth() -> None:
    path = str(Path("/srv/models/secret-project/x.bin"))
    assert clean({"a": [{"b": path}, 3, None, True]}) == {"a": [{"b": "…/x.bin"}, 3, None, True]}


def test_values_are_shown_of_known_names_only() -> None:
    given = {
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "WINNOW_DTYPE": "float16",
        "WINNOW_POLICY": "/models/llama",
        "WINNOW_API_KEYS": "k1,k2",
        "WINNOW_POLICY__CHECKPOINT": "private/model",
        "HF_TOKEN": "hf_x",
        "HF_HOME": "/home/alice/hf",
        "VLLM_HOST_IP": "10.0.0.1",
        "OMP_NUM_THREADS": "2; rm -rf",
        "PATH": "/usr/bin",
        "AWS_SECRET_ACCESS_KEY": "x",
        "USER": "alice",
    }
    assert environment(given) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "HF_HOME": None,
        "OMP_NUM_THREADS": None,
        "VLLM_HOST_IP": None,
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "WINNOW_DTYPE": "float16",
        "WINNOW_POLICY": None,
        "WINNOW_POLICY__CHECKPOINT": None,
    }
