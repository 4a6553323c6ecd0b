"""The files of docs/deploy: valid by their schemas, and true of the server, its image and its settings."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry, Resource

from winnow.server.settings import ALIASES, Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
SCHEMAS = Path(__file__).parent / "schemas"
SHUTDOWN_SECONDS = Settings.model_fields["shutdown_seconds"].default
REQUEST_SECONDS = Settings.model_fields["request_seconds"].default
IDLE_SECONDS = Settings.model_fields["idle_seconds"].default
SETTINGS = {*Settings.model_fields, *ALIASES}


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


KUBERNETES = schema("kubernetes.json")


def kubernetes(kind: str) -> Validator:
    return Draft7Validator({"$ref": f"#/definitions/{kind}", "definitions": KUBERNETES["definitions"]})


def rayservice() -> Validator:
    registry = Registry().with_resource("kubernetes.json", Resource.from_contents(KUBERNETES))
    return Draft7Validator(schema("rayservice.json"), registry=registry)


def compose() -> Validator:
    return Draft202012Validator(schema("compose.json"))


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def said(validator: Validator, document: Any) -> list[str]:
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(document)]


@pytest.fixture
def deployment() -> dict[str, Any]:
    return documents("kubernetes.yaml")[0]


def test_kubernetes_accepts_the_manifests() -> None:
    manifests = documents("kubernetes.yaml")
    assert [manifest["kind"] for manifest in manifests] == ["Deployment", "Service", "PodDisruptionBudget"]
    for manifest in manifests:
        assert said(kubernetes(manifest["kind"]), manifest) == []


@pytest.mark.parametrize(
    "wrong", ["spec.template.spec.enableServiceLink", "spec.replica", "spec.template.spec.container"]
)
def test_the_schemas_refuse_what_is_misspelt(wrong: str, deployment: dict[str, Any]) -> None:
    *path, last = wrong.split(".")
    place = deployment
    for key in path:
        place = place[key]
    place[last] = False
    assert said(kubernetes("Deployment"), deployment)


def test_a_pod_drains_before_it_ends(deployment: dict[str, Any]) -> None:
    spec = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert spec["enableServiceLinks"] is False
    [container] = spec["containers"]
    ready = container["readinessProbe"]
    left_out = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert left_out >= ready["periodSeconds"] * ready["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= left_out + SHUTDOWN_SECONDS + 10
    probes = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert probes == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}


def test_the_manifests_fit_the_image_and_the_settings(deployment: dict[str, Any]) -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    spec = deployment["spec"]["template"]["spec"]
    user = spec["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in image
    [container] = spec["containers"]
    [port] = container["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in image
    service = documents("kubernetes.yaml")[1]["spec"]
    assert service["ports"][0]["targetPort"] == port["name"]
    assert service["selector"] == deployment["spec"]["selector"]["matchLabels"]
    flags = [argument.partition("=")[0] for argument in container["args"] if argument.startswith("--")]
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= SETTINGS
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_kuberay_accepts_the_service() -> None:
    [service] = documents("rayservice.yaml")
    assert said(rayservice(), service) == []
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplica"] = 1
    assert said(rayservice(), service)


def test_the_ray_service_serves_whole_replicas() -> None:
    [service] = documents("rayservice.yaml")
    assert service["spec"]["rayClusterDeletionDelaySeconds"] > SHUTDOWN_SECONDS
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    [application] = config["applications"]
    assert (application["route_prefix"], application["import_path"]) == ("/", "winnow.server.ray.app:build")
    assert config["http_options"]["request_timeout_s"] > REQUEST_SECONDS
    [cards] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pod = cards["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > SHUTDOWN_SECONDS
    assert pod["enableServiceLinks"] is False
    [worker] = pod["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert application["args"].keys() - {"replicas"} <= SETTINGS
    assert application["args"]["replicas"] <= cards["replicas"]
    [deployment] = application["deployments"]
    assert deployment["ray_actor_options"]["num_gpus"] == worker["resources"]["limits"]["nvidia.com/gpu"]
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["env"] == worker["env"]
    [keys] = [variable for variable in worker["env"] if variable["name"] == "WINNOW_API_KEYS"]  # else it is refused
    assert "secretKeyRef" in keys["valueFrom"]
    assert head["volumes"] == pod["volumes"]


def test_the_ray_service_names_the_deployment_as_the_application_does() -> None:
    source = (ROOT / "server" / "ray" / "app.py").read_text(encoding="utf-8")
    [service] = documents("rayservice.yaml")
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    [deployment] = application["deployments"]
    assert f'NAME = "{deployment["name"]}"' in source
    assert f"def {application['import_path'].partition(':')[2]}(" in source


def test_the_page_of_operations_has_a_valid_pod() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    assert blocks
    for block in blocks:
        manifest = yaml.safe_load(block)
        assert said(kubernetes(manifest["kind"]), manifest) == []


def test_ray_serve_accepts_its_configuration() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    [service] = documents("rayservice.yaml")
    schema.ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))


def test_compose_accepts_its_file() -> None:
    [project] = documents("compose.yaml")
    assert said(compose(), project) == []
    project["services"]["winnow"]["port"] = ["8000:8000"]
    assert said(compose(), project)


def test_compose_waits_for_answers_and_names_its_own_pools() -> None:
    [project] = documents("compose.yaml")
    services = project["services"]
    winnow = services["winnow"]
    assert int(winnow["stop_grace_period"].removesuffix("s")) > SHUTDOWN_SECONDS
    urls = re.findall(r"http://([a-z-]+):8000", " ".join(winnow["environment"].values()))
    assert set(urls) == set(winnow["depends_on"]) == services.keys() - {"winnow"}
    assert {name.removeprefix("WINNOW_").lower() for name in winnow["environment"]} <= SETTINGS
    cards = [
        service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
        if name != "winnow"
    ]
    assert sorted(cards) == [["0"], ["1"], ["2"], ["3"]]


def test_proxies_wait_longer_than_the_server_and_keep_connections_shorter() -> None:
    haproxy = (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8")
    nginx = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    seconds = {name: float(value) for name, value in re.findall(r"timeout (\S+) (\d+)s", haproxy)}
    assert min(seconds["client"], seconds["server"]) > REQUEST_SECONDS
    assert seconds["http-keep-alive"] < IDLE_SECONDS
    told = {name: float(value) for name, value in re.findall(r"(\w+_timeout) (\d+)s;", nginx)}
    assert told["proxy_read_timeout"] > REQUEST_SECONDS
    assert told["keepalive_timeout"] < IDLE_SECONDS
    size = Settings.model_fields["max_body_bytes"].default
    assert re.search(rf"client_max_body_size {round(size / 1e6)}m;", nginx)


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(DEPLOY / name, encoding="utf-8")
    return parser


@pytest.mark.parametrize("name", ["winnow.service", "nvidia-mps.service"])
def test_systemd_accepts_the_units(name: str, tmp_path: Path) -> None:
    assert unit(name).sections() == ["Unit", "Service", "Install"]
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    for file in DEPLOY.glob("*.service"):  # with programs that exist here
        text = file.read_text(encoding="utf-8")
        (tmp_path / file.name).write_text(re.sub(r"/opt/winnow/bin/winnow|/usr/bin/nvidia[\w-]+", "/bin/true", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_systemd_unit_outlasts_a_shutdown() -> None:
    winnow = unit("winnow.service")
    assert {"network-online.target", "nvidia-mps.service"} == set(winnow["Unit"]["After"].split())
    assert int(winnow["Service"]["TimeoutStopSec"]) > SHUTDOWN_SECONDS
    assert winnow["Service"]["KillMode"] == "mixed"  # engines are ended by the server
    assert winnow["Service"]["Restart"] == "always"


def test_the_job_array_is_a_script() -> None:
    page = (ROOT / "docs" / "offline.md").read_text(encoding="utf-8")
    [script] = [block for block in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S) if "#SBATCH" in block]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    [count] = re.findall(r"--array=1-(\d+)", script)
    assert f'--shard "$SLURM_ARRAY_TASK_ID/{count}"' in script


def test_every_file_is_on_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert [file.name for file in DEPLOY.iterdir() if f"(deploy/{file.name})" not in pages] == []
