"""Variables of services are told from settings, whatever the service is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from winnow.server.settings.service_links import service_links

labels = st.from_regex(r"winnow(-[a-z0-9]{1,6}){0,3}", fullmatch=True)
addresses = st.ip_addresses().map(str)
ports = st.dictionaries(st.integers(1, 65_535), st.sampled_from(["tcp", "udp", "sctp"]), min_size=1, max_size=3)
names = st.from_regex(r"[a-z]{1,5}(-[a-z]{1,5})?", fullmatch=True)


def kubernetes(label: str, address: str, numbers: dict[int, str], names: list[str]) -> dict[str, str]:
    """The variables that a pod gets for a Service, as in the Kubernetes documentation."""
    service = label.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    first = next(iter(numbers))
    found = {f"{service}_SERVICE_HOST": address, f"{service}_SERVICE_PORT": str(first)}
    found |= {f"{service}_SERVICE_PORT_{name.upper().replace('-', '_')}": str(first) for name in names}
    found[f"{service}_PORT"] = f"{numbers[first]}://{host}:{first}"
    for number, protocol in numbers.items():
        prefix = f"{service}_PORT_{number}_{protocol.upper()}"
        found[prefix] = f"{protocol}://{host}:{number}"
        found |= {f"{prefix}_PROTO": protocol, f"{prefix}_PORT": str(number), f"{prefix}_ADDR": address}
    return found


@given(st.lists(st.builds(kubernetes, labels, addresses, ports, st.lists(names, max_size=3)), min_size=1, max_size=3))
def test_all_variables_of_services_are_links_and_nothing_else_is(services: list[dict[str, str]]) -> None:
    expected = {name: value for service in services for name, value in service.items()}
    others = {
        "WINNOW_PROT": "8001",
        "WINNOW_SERVICE_PROT": "8001",
        "WINNOW_MAX_TOKENS": "7",
        "WINNOW_HOST": "10.0.0.1",
        "WINNOW_NAME": "x",
        "WINNOW_SERVED_MODEL_NAME": "/models/llama",
        "WINNOW_ENV_A": "1",
    }
    assert service_links({**others, **expected}) == expected.keys()


@pytest.mark.parametrize("label", ["winnow-port", "winnow-service", "winnow-service-port", "winnow-port-80-tcp"])
def test_names_that_look_like_the_variables_own_parts(label: str) -> None:
    found = kubernetes(label, "10.0.0.1", {80: "tcp"}, ["http", "service-port"])
    assert service_links(found) == found.keys()


def test_dockers_links() -> None:
    found = {
        "WINNOW_NAME": "/web/winnow",
        "WINNOW_PORT": "tcp://172.17.0.5:8000",
        "WINNOW_PORT_8000_TCP": "tcp://172.17.0.5:8000",
        "WINNOW_PORT_8000_TCP_ADDR": "172.17.0.5",
        "WINNOW_PORT_8000_TCP_PORT": "8000",
        "WINNOW_PORT_8000_TCP_PROTO": "tcp",
        "WINNOW_ENV_PATH": "/bin",
    }
    assert service_links(found) == found.keys()


def test_dockers_links_to_a_range_of_ports_and_to_a_container_without_ports() -> None:
    several = {
        "WINNOW_1_NAME": "/web_1/winnow-1",
        "WINNOW_1_PORT": "tcp://172.17.0.5:8000",
        "WINNOW_1_PORT_8000_TCP_START": "tcp://172.17.0.5:8000",
        "WINNOW_1_PORT_8000_TCP_PORT_START": "8000",
        "WINNOW_1_PORT_8000_TCP_END": "tcp://172.17.0.5:8002",
        "WINNOW_1_PORT_8000_TCP_PORT_END": "8002",
    }
    assert service_links(several) == several.keys()
    none = {"WINNOW_NAME": "/web/winnow", "WINNOW_ENV_PATH": "/bin"}
    assert service_links(none) == none.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WINNOW_PORT", "8000"),
        ("WINNOW_PORT", ""),
        ("WINNOW_PORT", "http://10.0.0.1:8000"),
        ("WINNOW_PORT_8000_TCP_ADDR", "here"),
        ("WINNOW_PORT_8000", "tcp://10.0.0.1:8000"),
        ("WINNOW_SERVICE_HOST", "here"),
        ("WINNOW_SERVICE_PORT", "8000"),
        ("WINNOW_NAME", "/web/other"),
        ("WINNOW_POLICY_NAME", "/models/llama"),
        ("WINNOW_PORT_8000_TCP_PORT_END", "here"),
        ("WINNOW_ENV_PATH", "/bin"),
    ],
)
def test_what_is_none_by_itself(name: str, value: str) -> None:
    assert not service_links({name: value})
