from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from winnow.models import demo
from winnow.models.errors import SettingsError
from winnow.server.pipeline.request import waves_of
from winnow.server.pipeline.waves import Waves
from winnow.server.settings import ALIASES, ENGINES, Settings, load, options


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_anything_the_demo_models_are_served() -> None:
    settings = load()
    assert settings.policy.checkpoint == str(demo.weights("policy"))
    assert settings.model_name == "winnow-demo"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_flags_beat_the_environment_which_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("winnow.toml").write_text("candidates = 3\nport = 1\ntop_p = 0.5\n")
    monkeypatch.setenv("WINNOW_CANDIDATES", "4")
    monkeypatch.setenv("WINNOW_PORT", "2")
    settings = load(candidates=5)
    assert (settings.candidates.max, settings.port, settings.top_p) == (5, 2, 0.5)


def test_a_named_file_is_read_instead_of_the_default_one() -> None:
    Path("winnow.toml").write_text("candidates = 3\n")
    Path("other.toml").write_text('policy = "some/path/model-x"\n')
    settings = load(Path("other.toml"))
    assert settings.candidates == Settings.model_fields["candidates"].default
    assert settings.model_name == "model-x"


@pytest.mark.parametrize("text", ["candidate = 3\n", "[server]\nport = 1\n"])
def test_an_unknown_key_names_the_nearest(text: str) -> None:
    Path("winnow.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"nearest is '\w+'"):
        load()


def test_an_unknown_environment_variable_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_CANDIDATE", "3")
    with pytest.raises(SettingsError, match="'candidates'"):
        load()


@pytest.mark.parametrize(
    "flags",
    [
        {"candidates": 0},
        {"candidates": 65},
        {"temperature": 0.0},
        {"port": 70000},
        {"combiner": "mean"},
        {"safety_scale": 0.0},
        {"safety_bias": float("nan")},
        {"context": 16},
    ],
)
def test_a_value_out_of_range_is_one_line_that_names_the_setting(flags: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**flags)
    assert next(iter(flags)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read() -> None:
    with pytest.raises(SettingsError, match="no such settings file"):
        load(Path("absent.toml"))
    Path("winnow.toml").write_text("candidates = = 3")
    with pytest.raises(SettingsError, match="TOML"):
        load()


def test_every_setting_is_described() -> None:
    assert all(option.description for option in options())
    for name in ENGINES:
        fields = type(Settings.model_fields[name].default).model_fields
        assert all(field.description for field in fields.values())


ENGINE_VALUES = {
    "policy": "models/a",
    "chat_template": "formats/own.jinja",
    "safety_rm": "models/b",
    "helpfulness_rm": "models/c",
    "policy_memory": 0.5,
    "rm_memory": 0.2,
    "kv_cache_gib": 3.0,
    "rm_kv_cache_gib": 2.0,
    "safety_card": "safety.toml",
    "helpfulness_card": "helpfulness.toml",
    "policy_tokenizer": "models/p",
    "policy_model": "a-policy",
    "policy_key": "sk-policy",
    "policy_key_file": "policy.key",
    "safety_tokenizer": "models/t",
    "helpfulness_tokenizer": "models/t",
    "safety_model": "guard",
    "helpfulness_model": "judge",
    "safety_key": "sk-safety",
    "helpfulness_key": "sk-helpfulness",
    "safety_key_file": "safety.key",
    "helpfulness_key_file": "helpfulness.key",
    "safety_scale": -1.0,
    "safety_bias": 0.5,
    "safety_probe_margin": 2.5,
    "helpfulness_scale": 2.0,
    "helpfulness_bias": -0.5,
}


def read(settings: Settings, path: str) -> object:
    engine, _, name = path.partition(".")
    return getattr(getattr(settings, engine), name)


def shown(value: object) -> object:
    """Return a value as it was given."""
    return (
        value.get_secret_value() if isinstance(value, SecretStr) else str(value) if isinstance(value, Path) else value
    )


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_flat_name_sets_what_the_nested_one_does(alias: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = ENGINE_VALUES[alias]
    if source == "environment":
        monkeypatch.setenv(f"WINNOW_{alias.upper()}", str(value))
    elif source == "file":
        Path("winnow.toml").write_text(f"{alias} = {value!r}\n")
    settings = load(**({alias: value} if source == "flag" else {}))
    found = {read(settings, path) for path in ALIASES[alias]}
    assert {shown(one) for one in found} == {value}


def test_nested_settings_of_one_engine_leave_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("winnow.toml").write_text('[safety]\ncheckpoint = "models/s"\ndtype = "float32"\nscale = 3.0\n')
    monkeypatch.setenv("WINNOW_SAFETY__CONTEXT", "512")
    monkeypatch.setenv("WINNOW_SAFETY_SCALE", "2")
    settings = load(safety_bias=1.0)
    safety = settings.safety
    assert (safety.checkpoint, safety.dtype, safety.context) == ("models/s", "float32", 512)
    assert (safety.scale, safety.bias) == (2.0, 1.0)
    assert settings.helpfulness == Settings.model_fields["helpfulness"].default
    assert settings.policy == Settings.model_fields["policy"].default


def test_a_nested_name_beats_the_flat_one_of_the_same_source() -> None:
    Path("winnow.toml").write_text("rm_memory = 0.1\n[safety]\nmemory = 0.2\n")
    settings = load()
    assert (settings.safety.memory, settings.helpfulness.memory) == (0.2, 0.1)


def test_an_unknown_nested_name_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("winnow.toml").write_text('[safety]\ndtyp = "float32"\n')
    with pytest.raises(SettingsError, match=r"'safety.dtyp'; the nearest is 'safety.dtype'"):
        load()


def test_keys_and_hosts_come_from_the_environment_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_API_KEYS", "wk-first-key, wk-second-key")
    monkeypatch.setenv("WINNOW_TRUSTED_HOSTS", "a.example.org,*.example.com")
    settings = load()
    assert [key.get_secret_value() for key in settings.api_keys] == ["wk-first-key", "wk-second-key"]
    assert settings.trusted_hosts == ("a.example.org", "*.example.com")
    assert "wk-first-key" not in repr(settings)


@pytest.mark.parametrize("written", ["a.org,b.org", ["a.org", "b.org"], ["a.org, b.org"], ("A.org.", "b.org,")])
def test_hosts_are_written_one_by_one_or_with_commas(written: object) -> None:
    assert load(trusted_hosts=written).trusted_hosts == ("a.org", "b.org")
    assert load(trusted_hosts="[::1],b.org").trusted_hosts == load(trusted_hosts=["[::1]", "b.org"]).trusted_hosts


@pytest.mark.parametrize("wrong", [["http://a.org"], ["a.org:80"], 5])
def test_a_host_that_is_none_is_one_line(wrong: object) -> None:
    with pytest.raises(SettingsError, match="trusted_hosts"):
        load(trusted_hosts=wrong)


def test_what_could_never_be_admitted_is_refused() -> None:
    with pytest.raises(SettingsError, match="max_candidates_in_flight"):
        load(max_candidates=64, max_candidates_in_flight=32)


@pytest.mark.parametrize(
    ("written", "least", "most"), [("16", 16, 16), (" 4-16 ", 4, 16), (8, 8, 8), ({"min": 2, "max": 3}, 2, 3)]
)
def test_candidates_are_a_number_or_a_range(written: object, least: int, most: int) -> None:
    settings = load(candidates=written)
    assert (settings.candidates.min, settings.candidates.max) == (least, most)


def test_the_queue_is_short_where_candidates_may_shrink_unless_told_otherwise() -> None:
    assert load().queue_seconds == 10
    assert load(candidates="4-16").queue_seconds == 2
    assert load(candidates="4-16", max_queue_seconds=7).queue_seconds == 7


@pytest.mark.parametrize(
    "written", ["0", "8-4", "four", "4-", "-4", "4-8-16", True, 1.5, {"min": 4}, {"least": 1, "max": 2}]
)
def test_no_other_candidates_are(written: object) -> None:
    with pytest.raises(SettingsError, match="candidates"):
        load(candidates=written)


def test_a_range_in_the_file_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("winnow.toml").write_text("candidates = {min = 4, max = 12}\n")
    assert load().candidates.max == 12
    monkeypatch.setenv("WINNOW_CANDIDATES", "2-8")
    assert (load().candidates.min, load().candidates.max) == (2, 8)


@pytest.mark.parametrize("variable", ["WINNOW_PORT__X", "WINNOW_SAFETY__DTYP", "WINNOW_CANDIDATES__MIN"])
def test_an_unknown_nested_variable_is_an_error(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError, match=f"{variable}.*the nearest is"):
        load()


@pytest.mark.parametrize("path", ["models/x", "{x", "7", "[a]"])
@pytest.mark.parametrize("engine", ["policy", "safety", "helpfulness"])
def test_a_text_in_place_of_a_table_is_the_checkpoint(engine: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"WINNOW_{engine.upper()}", path)
    assert getattr(load(), engine).checkpoint == path
    monkeypatch.delenv(f"WINNOW_{engine.upper()}")
    Path("winnow.toml").write_text(f"{engine} = {path!r}\n")
    assert getattr(load(), engine).checkpoint == path


def test_an_engine_in_the_environment_may_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_SAFETY", '{"checkpoint": "models/s", "scale": 2}')
    monkeypatch.setenv("WINNOW_SAFETY__BIAS", "1")
    safety = load().safety
    assert (safety.checkpoint, safety.scale, safety.bias) == ("models/s", 2.0, 1.0)
    for broken in ('{"scale": 2', "{'scale': 2}", '{"scale": ' + "[" * 100_000):
        monkeypatch.setenv("WINNOW_SAFETY", broken)
        with pytest.raises(SettingsError, match="WINNOW_SAFETY is not JSON, such as"):
            load()


def test_what_cannot_be_decoded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("winnow.toml").write_text("policy = 7\n")
    with pytest.raises(SettingsError, match="policy: a checkpoint, or a table"):
        load()
    Path("winnow.toml").unlink()


@pytest.mark.parametrize(
    ("written", "patterns"),
    [
        ("foo", ("foo",)),
        ("a{1,2}, b", ("a{1,2}, b",)),
        ('["foo", "[bB]ar"]', ("foo", "[bB]ar")),
        ("[]", ()),
        (" ", ()),
    ],
)
def test_a_list_in_the_environment_is_one_text_or_json(
    written: str, patterns: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINNOW_SAFETY_PATTERNS", written)
    assert load().safety_patterns == patterns
    monkeypatch.delenv("WINNOW_SAFETY_PATTERNS")
    Path("winnow.toml").write_text(f"safety_patterns = {written!r}\n")
    assert load().safety_patterns == patterns


@pytest.mark.parametrize("written", ["[", "[bB]ad", '["a"', "[" * 100_000])
def test_a_list_that_is_not_json_shows_what_it_should_be(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["WINNOW_TRUSTED_HOSTS"] if written.startswith('["') else []  # elsewhere an IPv6 host may begin with [
    for variable in ("WINNOW_SAFETY_PATTERNS", "WINNOW_API_KEYS", *hosts):
        monkeypatch.setenv(variable, written)
        with pytest.raises(SettingsError, match=rf"^{variable[7:].lower()}: .*JSON list, such as \[") as caught:
            load()
        assert "\n" not in str(caught.value)
        monkeypatch.delenv(variable)


@pytest.mark.parametrize("variable", ["SAFETY_PATTERNS", "API_KEYS", "TRUSTED_HOSTS", "CORS_ORIGINS"])
def test_a_table_in_place_of_a_list_is_no_item(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`{"a": 1}` became a pattern that matches nothing, or a key."""
    monkeypatch.setenv(f"WINNOW_{variable}", '{"a": 1}')
    with pytest.raises(SettingsError, match=f"^{variable.lower()}: a list is wanted"):
        load()


def test_a_list_in_place_of_a_range_is_told_what_k_may_be() -> None:
    Path("winnow.toml").write_text("candidates = [4, 16]\n")
    with pytest.raises(SettingsError, match=r"^candidates: a number, or a range such as 4-16$"):
        load()


def test_hosts_may_be_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_TRUSTED_HOSTS", '["a.example.org", "*.example.com"]')
    assert load().trusted_hosts == ("a.example.org", "*.example.com")


def test_a_service_called_winnow_sets_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod beside such a Service no command started: WINNOW_PORT was not a number."""
    for name, value in {
        "WINNOW_PORT": "tcp://10.0.0.1:9000",
        "WINNOW_SERVICE_HOST": "10.0.0.1",
        "WINNOW_SERVICE_PORT": "9000",
        "WINNOW_SAFETY__X_PORT": "tcp://10.0.0.2:80",
    }.items():
        monkeypatch.setenv(name, value)
    assert load().port == 8000
    Path("winnow.toml").write_text("port = 8100\n")
    assert load().port == 8100
    assert load(port=8200).port == 8200
    monkeypatch.setenv("WINNOW_PROT", "8001")
    with pytest.raises(SettingsError, match=r"WINNOW_PROT.*'port'"):
        load()


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    Path("winnow.toml").write_bytes("\N{BYTE ORDER MARK}port = 1\r\nrefusal = 'Né'\r\n".encode())
    assert (load().port, load().refusal) == (1, "Né")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"port = 1\nrefusal = 'N\xe9'\n", r"winnow.toml .*line 2, byte 13 .*UTF-8"),
        ("port = 1".encode("utf-16"), "winnow.toml .*UTF-16"),
        (b"port = 1\0", "winnow.toml .*TOML"),
        (b"port = " + b"9" * 5000, "winnow.toml .*TOML"),
        (b"port = " + b"[" * 100_000, "winnow.toml .*nested"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(data: bytes, words: str) -> None:
    Path("winnow.toml").write_bytes(data)
    with pytest.raises(SettingsError, match=words) as caught:
        load()
    assert "\n" not in str(caught.value)


def test_what_is_no_ordinary_file(tmp_path: Path) -> None:
    assert load(Path("/dev/null")).port == 8000
    with pytest.raises(SettingsError, match="Is a directory"):
        load(tmp_path)
    reading, writing = os.pipe()
    with open(writing, "w") as pipe:
        pipe.write("port = 7\n")
    assert load(Path(f"/dev/fd/{reading}")).port == 7  # as with --config <(…): it can be read only once
    os.close(reading)
    Path("winnow.toml").mkdir()
    with pytest.raises(SettingsError, match=r"winnow.toml .*Is a directory"):
        load()


@pytest.mark.parametrize(
    ("text", "waves"),
    [
        ("reward=0.9", Waves(4, 4, 0.9)),
        (" reward = 0.9 , start = 2 ", Waves(2, 4, 0.9)),
        ("gain=0.002,start=4,step=8", Waves(4, 8, gain=0.002)),
        ('{"start": 2, "stop": {"reward": 1}}', Waves(2, 4, 1.0)),
    ],
)
def test_adaptive_is_a_short_text_or_json(text: str, waves: Waves, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (load(adaptive=text, gains="gains.json"), _in_environment(monkeypatch, text)):
        assert settings.adaptive
        assert waves_of(settings.adaptive) == waves


def _in_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> Settings:
    monkeypatch.setenv("WINNOW_ADAPTIVE", text)
    monkeypatch.setenv("WINNOW_GAINS", "gains.json")
    return load()


def test_adaptive_is_a_table_in_the_file_and_can_be_switched_off() -> None:
    Path("winnow.toml").write_text("[adaptive]\nstart = 2\nstop = {reward = 0.9}\n")
    settings = load()
    assert settings.adaptive
    assert waves_of(settings.adaptive) == Waves(2, 4, 0.9)
    assert load(adaptive="off").adaptive is None


@pytest.mark.parametrize(
    "text",
    [
        "0.9", "on", "reward=", "reward=2", "reward=0.9,gain=0.1", "start=4", "reward=0.9,start=0",
        "reward=0.9,begin=2",
        "gain=1", "reward=0.9;start=2", "{", '{"stop": {}}', "[]", "", "reward=0.9,start=2.5", "reward=1e999",
    ],
)  # fmt: skip
def test_an_adaptive_setting_that_is_wrong_is_one_line_that_names_it(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^adaptive") as wrong:
        load(adaptive=text, gains="gains.json")
    assert "\n" not in str(wrong.value)


def test_stopping_by_a_gain_needs_a_table() -> None:
    with pytest.raises(SettingsError, match="--gains FILE"):
        load(adaptive="gain=0.002")
