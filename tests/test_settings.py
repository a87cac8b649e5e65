from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway import settings

EXAMPLE = Path(__file__).parents[1] / "deploy" / "env.example"


def example() -> dict[str, tuple[bool, str]]:
    found = re.findall(r"^(#?)(GATEWAY_\w+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    return {name.removesuffix("_FILE"): (mark == "", value) for mark, name, value in found}


def minimal(tmp_path: Path) -> dict[str, str]:
    given = {name: value for name, (required, value) in example().items() if required}
    return {**given, "GATEWAY_LDAP_BIND_PASSWORD": "secret"}


def test_the_example_lists_exactly_the_settings_there_are() -> None:
    assert sorted(example()) == sorted(settings.names())


def test_the_example_shows_the_real_defaults(tmp_path: Path) -> None:
    loaded = settings.load(minimal(tmp_path))
    for name, (required, value) in example().items():
        section, _, field = name.removeprefix("GATEWAY_").lower().partition("_")
        default = type(getattr(loaded, section)).model_fields[field]
        assert default.is_required() == required, name
        if default.default is not None and not required and value:
            shown = settings.load({**minimal(tmp_path), name: value})
            assert getattr(getattr(shown, section), field) == default.default, name


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    given = minimal(tmp_path)
    del given["GATEWAY_TOKENS_ISSUER"]
    with pytest.raises(settings.SettingsError, match=r"^GATEWAY_TOKENS_ISSUER: must be set$"):
        settings.load(given)


@pytest.mark.parametrize(
    "name", ["GATEWAY_SURPRISE", "GATEWAY_LDAP_URI", "GATEWAY_LANDING_ROOT_FILE", "GATEWAY_LOG"]
)
def test_an_unknown_setting_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(settings.SettingsError, match=f"{name}: no such setting"):
        settings.load({**minimal(tmp_path), name: "x"})


def test_a_value_out_of_bounds_is_named(tmp_path: Path) -> None:
    given = {**minimal(tmp_path), "GATEWAY_TOKENS_ACCESS_SECONDS": "901"}
    with pytest.raises(settings.SettingsError, match=r"GATEWAY_TOKENS_ACCESS_SECONDS: "):
        settings.load(given)


def test_a_secret_can_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    given = minimal(tmp_path)
    del given["GATEWAY_LDAP_BIND_PASSWORD"]
    loaded = settings.load({**given, "GATEWAY_LDAP_BIND_PASSWORD_FILE": str(path)})
    assert loaded.ldap.bind_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(loaded)


def test_an_unreadable_secret_file_is_one_clear_line(tmp_path: Path) -> None:
    given = {**minimal(tmp_path), "GATEWAY_DATABASE_URL_FILE": str(tmp_path / "nowhere")}
    with pytest.raises(settings.SettingsError, match=r"^GATEWAY_DATABASE_URL_FILE: cannot be read"):
        settings.load(given)


def test_a_clients_own_variables_do_not_disturb(tmp_path: Path) -> None:
    settings.load({**minimal(tmp_path), "GATEWAY_URL": "http://x", "GATEWAY_PASSWORD": "y"})
