"""The service as it is laid: in the folder of an image, and on a device whose service manager is a stand-in.

tests/device/test_systemd.py installs it under a systemd of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import cli, config, paths
from edge_agent.device import install, laid, unit
from edge_agent.device import place as places
from edge_agent.device.place import Place, Program
from edge_agent.device.unit import USER
from edge_agent.errors import EdgeAgentError, UsageError
from tests.conftest import ROOT

needs_sysusers = pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not here")
LIES_IN_TMP = Path(sys.prefix).is_relative_to("/tmp") or ROOT.is_relative_to("/tmp")
pytestmark = pytest.mark.skipif(LIES_IN_TMP, reason="a program in /tmp cannot be a service")


class Manager:
    """A service manager: what it was asked, and in which versions the service does not come up."""

    def __init__(self, bad: str = "", link: Path | None = None) -> None:
        self.asked: list[str] = []
        self.bad, self.link = bad, link

    def __call__(self, *command: str) -> tuple[int, str]:
        self.asked.append(" ".join(command))
        if command[:2] == ("systemctl", "restart") and self.bad:
            serves = self.link.readlink().name if self.link else self.bad
            return (1, "Job for edge-agent.service failed") if serves == self.bad else (0, "")
        if command[0] == "journalctl":
            return 0, "edge-agent run: this version is broken"
        return (3, "") if "is-active" in command else (0, "ActiveState=active\nNRestarts=0")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user in it, as systemd-sysusers would make it, numbers being those of who tests."""
    monkeypatch.setattr(install, "STEADY_S", 0.0)
    root = tmp_path / "image"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(
        f"edge-agent:x:{os.getuid()}:{os.getgid()}::/var/lib/edge-agent:/usr/sbin/nologin\n"
    )
    (root / "etc/group").write_text("video:x:44:\naudio:x:29:\ngames:x:60:\n")
    return root


def edge_agent(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *args]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=ROOT, env={**os.environ, **env})


def modes(root: Path) -> dict[str, str]:
    return {
        str(at.relative_to(root)): f"{at.lstat().st_mode & 0o777:o}" for at in root.rglob("*") if not at.is_symlink()
    }


@needs_sysusers
def test_an_image_gets_all_of_it_and_the_config_works(tmp_path: Path) -> None:
    root = tmp_path / "image"
    root.mkdir()
    done = edge_agent("install", "--root", str(root))
    assert done.returncode == 0, done.stderr
    laid_out = modes(root)
    assert laid_out["etc/edge-agent"] == "750" and laid_out["etc/edge-agent/agent.toml"] == "640"
    assert laid_out["etc/edge-agent/credentials"] == "700" and laid_out["var/lib/edge-agent"] == "700"
    text = (root / "etc/systemd/system/edge-agent.service").read_text()
    assert f"ExecStart={sys.executable} -I -m edge_agent run -c /etc/edge-agent/agent.toml" in text
    link = root / "etc/systemd/system/multi-user.target.wants/edge-agent.service"
    assert link.readlink() == Path("/etc/systemd/system/edge-agent.service")
    assert "edge-agent:x:" in (root / "etc/passwd").read_text()
    user = int(re.findall(r"edge-agent:x:(\d+)", (root / "etc/passwd").read_text())[0])
    assert (root / "var/lib/edge-agent").stat().st_uid == (user if os.geteuid() == 0 else os.getuid())
    given = root / "etc/edge-agent/agent.toml"
    checked = edge_agent(
        "check", "-c", str(given), EDGE_AGENT_HOME=str(tmp_path / "home"), STATE_DIRECTORY=str(tmp_path)
    )
    assert checked.returncode == 0, checked.stderr
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o400}
    again = edge_agent("install", "--root", str(root))
    assert again.returncode == 0 and "wrote" not in again.stdout
    assert all(path.read_bytes() == data for path, data in before.items())


def test_the_units_are_clean_and_closed(image: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    install.install(Place(image, USER, None))
    system = image / "etc/systemd/system"
    for path in (*system.glob("*.service"), *system.glob("*.service.d/*.conf")):
        lines = path.read_text().splitlines()
        assert path.name != unit.UNIT or "User=edge-agent" in lines
    units = [system / "edge-agent.service", system / "edge-agent@.service"]
    verified = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True)
    ours = [line for line in verified.stderr.splitlines() if "edge-agent" in line]
    assert not ours, verified.stderr
    for path in units:
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(path)]
        rated = subprocess.run(command, capture_output=True, text=True)
        if "unrecognized option" in rated.stderr:
            pytest.skip("systemd before 250 rates no files")
        assert rated.returncode == 0 and "exposure level" in rated.stdout, rated.stdout[-300:] + rated.stderr


def test_the_template_differs_in_config_and_store_alone() -> None:
    one, each = ((ROOT / "systemd" / name).read_text().splitlines() for name in (unit.UNIT, unit.TEMPLATE))
    other = [line for line in each if line not in one]
    assert [line.partition("=")[0] for line in other] == [
        "Description",
        "ExecStart",
        "StateDirectory",
        "ReadWritePaths",
    ]


def test_what_an_admin_changed_stays_and_is_said(image: Path) -> None:
    place = Place(image, USER, None)
    install.install(place)
    path = image / "etc/systemd/system/edge-agent.service"
    path.write_text(path.read_text().replace("RestartSec=2", "RestartSec=60"))
    target = image / "etc/edge-agent/agent.toml"
    target.write_text(target.read_text() + "# mine\n")
    done = install.install(place)
    assert "RestartSec=60" in path.read_text() and target.read_text().endswith("# mine\n")
    assert any(str(path) in line for line in done.kept) and any(str(target) in line for line in done.kept)
    removed = install.uninstall(place)
    assert path.is_file() and any(str(path) in line for line in removed.kept)


def test_the_unit_that_was_given_out_before_is_ours_to_replace() -> None:
    git = subprocess.run(
        ["git", "show", "650eff9:systemd/edge-agent.service"], capture_output=True, text=True, cwd=ROOT
    )
    if git.returncode:
        pytest.skip("the history of this checkout is not here")
    assert unit.ours(git.stdout) and not unit.ours(git.stdout + "\n")


def test_limits_and_credentials_of_the_config_go_to_the_service_manager(image: Path, tmp_path: Path) -> None:
    given = tmp_path / "given" / "agent.toml"
    given.parent.mkdir()
    given.write_text(
        '[mqtt]\nurl = "mqtt://h"\nusername = "u"\npassword_file = "credential:mqtt"\n'
        '[limits]\nmemory_mb = 300\ncpu_percent = 150\n[[pipeline]]\nname = "a"\nsource = "lines:/var/lib/x"\n'
    )
    place = Place(image, USER, None)
    with pytest.raises(UsageError, match=r"credential:mqtt: write it into .*/etc/edge-agent/credentials/mqtt"):
        install.install(place, given)
    (image / "etc/edge-agent/credentials/mqtt").write_text("secret")
    install.install(place, given)
    text = (image / "etc/systemd/system/edge-agent.service.d/10-device.conf").read_text()
    wanted = ["MemoryMax=300M", "CPUQuota=150%", "LoadCredential=mqtt:/etc/edge-agent/credentials/mqtt"]
    assert set(wanted) <= set(text.splitlines()) and "SupplementaryGroups=video audio" in text
    other = (image / "etc/systemd/system/edge-agent@.service.d/10-device.conf").read_text()
    assert "MemoryMax" not in other and "LoadCredential" not in other


def test_a_given_config_comes_with_what_it_names(image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "password").write_text("secret")
    (folder / "labels.toml").write_text((ROOT / "deploy/demo/intents.toml").read_text())
    text = (
        '[mqtt]\nurl = "mqtt://h"\nusername = "u"\npassword_file = "password"\n'
        '[[pipeline]]\nname = "a"\nsource = "SOURCE"\ntasks = ["classify:encoder?labels=labels.toml"]\n'
    )
    given = folder / "porch.toml"
    place = Place(image, USER, None)
    for source in ("lines:-", f"lines:{tmp_path}/said", "files:photos"):
        given.write_text(text.replace("SOURCE", source))
        if source == "files:photos" and not tmp_path.is_relative_to("/tmp"):
            continue
        with pytest.raises(UsageError, match="is not seen by the service"):
            install.install(place, given)
    given.write_text(text.replace("SOURCE", "lines:/srv/said"))
    install.install(place, given)
    etc = image / "etc/edge-agent"
    assert (etc / "password").read_text() == "secret" and (etc / "agent.toml").read_bytes() == given.read_bytes()
    assert modes(etc)["password"] == "640" and config.load(etc / "agent.toml").pipeline[0].name == "a"
    given.write_text(text.replace("SOURCE", "lines:/srv/other"))
    with pytest.raises(UsageError, match="is there and differs"):
        install.install(place, given)


@pytest.fixture
def versions(image: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where deploy/install.sh laid two versions, the first of which serves."""
    folder = image / "opt/edge-agent"
    for name in ("0", "1", "2"):
        (folder / name / "bin").mkdir(parents=True)
    (folder / "current").symlink_to("1")
    use(monkeypatch, folder, "1")
    return folder


def use(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    python = Path("/opt/edge-agent/current/bin/python")
    monkeypatch.setattr(places, "program", lambda root: Program(python, folder / name, [], folder))


def test_an_upgrade_goes_back_where_the_new_does_not_come_up(
    image: Path, versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = versions / "current"
    manager = Manager(bad="2", link=link)
    install.install(Place(image, USER, manager))
    text = (image / "etc/systemd/system/edge-agent.service").read_text()
    assert "/opt/edge-agent/current/bin/python" in text and link.readlink().name == "1"
    use(monkeypatch, versions, "2")
    monkeypatch.setattr(unit, "sysusers", lambda *_: "")
    manager.asked.clear()
    with pytest.raises(
        EdgeAgentError, match="this version is broken; what was there before runs again; see: journalctl"
    ):
        install.install(Place(image, USER, manager))
    assert link.readlink().name == "1" and (image / "etc/systemd/system/edge-agent.service").read_text() == text
    assert manager.asked.count("systemctl restart edge-agent.service") == 2
    manager.bad = ""
    done = install.install(Place(image, USER, manager))
    assert done.state == "running" and link.readlink().name == "2"
    # the one that it replaced stays, those before it go
    assert sorted(path.name for path in versions.iterdir() if path.is_dir() and not path.is_symlink()) == ["1", "2"]
    assert (image / "usr/local/bin/edge-agent").readlink() == COMMAND


COMMAND = Path("/opt/edge-agent/current/bin/edge-agent")


def test_what_lays_newer_versions_is_there_where_the_config_takes_some(image: Path, versions: Path) -> None:
    manager, system = Manager(), image / "etc/systemd/system"
    install.install(Place(image, USER, manager))
    units, wanted = [system / name for name in unit.UPDATES], system / "multi-user.target.wants" / unit.UPDATES[0]
    assert not any(path.exists() for path in units) and f"systemctl start {unit.UPDATES[0]}" not in manager.asked
    given = image / "etc/edge-agent/agent.toml"
    text = given.read_text()
    given.write_text(f'[update]\nrepository = "https://updates.example/fleet"\nagent = "edge-agent"\n{text}')
    install.install(Place(image, USER, manager))
    assert wanted.is_symlink() and f"systemctl start {unit.UPDATES[0]}" in manager.asked
    service = units[1].read_text()
    assert "ExecStart=/opt/edge-agent/current/bin/python -I -m edge_agent.fleet.as_root" in service
    assert "ReadWritePaths=/opt/edge-agent -/etc" in service and "PrivateNetwork=yes" in service
    given.write_text(text)
    install.install(Place(image, USER, manager))
    assert not any(path.exists() for path in units) and not wanted.is_symlink()
    assert f"systemctl stop {unit.UPDATES[0]}" in manager.asked


def test_an_image_without_a_service_manager_gets_the_command_too(image: Path, versions: Path) -> None:
    done = install.install(Place(image, USER, None))
    command = image / "usr/local/bin/edge-agent"
    assert command.readlink() == COMMAND and f"made {command}" in done.did
    assert (image / "etc/systemd/system/multi-user.target.wants/edge-agent.service").is_symlink()
    again = install.install(Place(image, USER, None))
    assert f"made {command}" not in again.did and command.readlink() == COMMAND
    install.uninstall(Place(image, USER, None))
    assert not command.is_symlink()


def test_a_first_start_that_fails_is_said(image: Path) -> None:
    with pytest.raises(
        EdgeAgentError, match="does not come up: edge-agent run: this version is broken; see: journalctl"
    ):
        install.install(Place(image, USER, Manager(bad="any")))


def test_uninstall_leaves_data_and_says_where(image: Path, versions: Path) -> None:
    place = Place(image, USER, Manager())
    install.install(place)
    (image / "etc/sysusers.d").mkdir()
    (image / "etc/sysusers.d/edge-agent.conf").write_text("u edge-agent -\n")
    own = image / "etc/systemd/system/edge-agent.service.d/mine.conf"
    own.write_text("[Service]\n")
    (image / "var/lib/edge-agent/kept").write_text("x")
    done = install.uninstall(place)
    left = {str(path.relative_to(image)) for path in image.rglob("*") if path.is_file() or path.is_symlink()}
    assert left == {
        "etc/passwd", "etc/group", "etc/edge-agent/agent.toml", "etc/edge-agent/intents.toml",
        "etc/systemd/system/edge-agent.service.d/mine.conf", "var/lib/edge-agent/kept",
    }  # fmt: skip
    assert {line.partition(":")[0] for line in done.kept} == {f"{image}/etc/edge-agent", f"{image}/var/lib/edge-agent"}
    (versions / "1").mkdir(parents=True)
    install.install(Place(image, USER, None))
    install.uninstall(Place(image, USER, None), purge=True)
    assert not (image / "etc/edge-agent").exists() and not (image / "var/lib/edge-agent").exists()


def test_purge_wants_the_word(image: Path) -> None:
    install.install(Place(image, USER, None))
    for said, code in (("", 2), ("yes\n", 2), ("delete\n", 0)):
        assert (image / "var/lib/edge-agent").is_dir()
        done = edge_agent("uninstall", "--purge", "--root", str(image), stdin=said)
        assert done.returncode == code, done.stderr
    assert not (image / "var/lib/edge-agent").exists()


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_who_is_not_root_is_told_what_to_type(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["edge-agent", verb])
    assert cli.main([verb]) == 2
    said = capsys.readouterr().err
    assert (
        said == f"edge-agent {verb}: only root may {verb} a service; type: sudo {sys.executable} -m edge_agent {verb}\n"
    )


@pytest.mark.parametrize("name", ["root", "", "a b", "-x", "A"])
def test_a_user_s_name_is_checked(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--user"):
        places.place(tmp_path, name)


def test_a_folder_that_is_none_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        places.place(tmp_path / "none", "edge-agent")


def test_a_program_that_a_service_could_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/tmp/venv")
    with pytest.raises(UsageError, match="install into /opt"):
        places.program(Path("/"))
    monkeypatch.setattr(sys, "prefix", "/opt/my agent")
    with pytest.raises(UsageError, match="a unit cannot name this folder"):
        places.program(Path("/"))


def test_a_program_in_a_home_is_shown_to_the_service_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PACKAGE", Path("/home/me/checkout/edge_agent"))
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/home/me/checkout/.venv")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    found = places.program(Path("/"))
    assert found.binds == [Path("/home/me/checkout")]
    text = unit.drop_in(unit.Found(binds=found.binds), unit.Asked())
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/me/checkout\n" in text


def test_an_engine_that_compiles_may(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, wanted in (("ctranslate2_is_not_here", False), ("json", True)):
        monkeypatch.setattr(places, "COMPILING", (name,))
        text = unit.drop_in(places.found(Place(image, USER, None), []), unit.Asked())
        assert ("MemoryDenyWriteExecute=no" in text) == wanted


def test_restarts_grow_where_the_service_manager_knows_how(image: Path) -> None:
    assert "RestartSteps" not in unit.drop_in(unit.Found(systemd=252), unit.Asked())
    assert "RestartSteps=8\nRestartMaxDelaySec=300\n" in unit.drop_in(unit.Found(systemd=257), unit.Asked())
    library = image / "usr/lib/aarch64-linux-gnu/systemd/libsystemd-shared-257.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert places.found(Place(image, USER, None), []).systemd == 257


def test_disks_are_no_devices_of_nvidia_s(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes device files")
    for name in ("nvme0", "nvram", "nvmap", "nvidia0"):
        os.mknod(tmp_path / name, 0o20666, os.makedev(1, 3))
    (tmp_path / "nvhost").mkdir()
    assert {path.name for path in tmp_path.iterdir() if places.is_nvidia(path)} == {"nvmap", "nvidia0"}


def test_a_home_of_a_user_without_a_name_is_moved(image: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    private = image / "var/lib/private/edge-agent"
    (private / "models").mkdir(parents=True)
    for name in ("models/a", "by-root", "strange"):
        (private / name).write_text("x")
    os.link(private / "strange", image / "strange")  # a second name: it may be a file of the system
    for path in (private, private / "models", private / "models/a", private / "strange"):
        os.chown(path, 61234, 61234)
    (image / "etc/passwd").write_text("edge-agent:x:812:813::/:/bin/false\n")
    home = image / "var/lib/edge-agent"
    home.symlink_to("private/edge-agent")
    done = install.install(Place(image, USER, None))
    assert not home.is_symlink() and not private.exists()
    owners = {path.name: path.stat().st_uid for path in (home, *home.rglob("*"))}
    assert owners == {"edge-agent": 812, "models": 812, "a": 812, "by-root": 0, "strange": 61234}
    assert any("moved" in line for line in done.did) and any("gave" in line for line in done.did)


def test_the_service_s_config_is_used_without_being_told(tmp_path: Path) -> None:
    given = tmp_path / "agent.toml"
    given.write_text('[device]\nid = "porch"\n[[pipeline]]\nname = "a"\nsource = "lines:/srv/said"\n')
    told = {"EDGE_AGENT_CONFIG": str(given), "EDGE_AGENT_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    done = edge_agent("check", **told)
    assert done.returncode == 0 and done.stderr == f"config: {given}\n", done.stderr
    heard = edge_agent("listen", **told)
    assert heard.returncode == 2 and f"{given}: has no mqtt.url" in heard.stderr
    none = edge_agent("check", EDGE_AGENT_CONFIG=str(tmp_path / "none"))
    assert none.returncode == 2 and "give a config: -c agent.toml" in none.stderr
    if os.geteuid() != 0:
        given.chmod(0)
        refused = edge_agent("check", **told)
        assert refused.returncode == 2 and "type: sudo edge-agent check" in refused.stderr


def test_who_may_write_the_service_s_home_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_AGENT_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(paths, "SERVICE_HOME", tmp_path)
    assert paths.home() == tmp_path
    monkeypatch.setattr(paths, "SERVICE_HOME", tmp_path / "none")
    assert paths.home() != tmp_path / "none"
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "mine"))
    assert paths.home() == tmp_path / "mine"


def test_models_say_whose_they_become(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "SERVICE_HOME", tmp_path)
    for home, said in (
        (tmp_path, f"into {tmp_path}, the service's"),
        (tmp_path / "mine", "not the service's, which are in"),
    ):
        monkeypatch.setenv("EDGE_AGENT_HOME", str(home))
        assert cli.main(["models", "add", str(tmp_path / "none.onnx")]) == 1
        assert said in capsys.readouterr().err


def test_the_shell_script_is_clean_and_says_what_it_needs(tmp_path: Path) -> None:
    script = str(ROOT / "deploy/install.sh")
    wrong = subprocess.run(["sh", script, "--what"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "--what: no option" in wrong.stderr
    help = subprocess.run(["sh", script, "--help"], capture_output=True, text=True)
    assert help.returncode == 0 and "--wheels DIR" in help.stdout
    if os.geteuid() != 0:
        refused = subprocess.run(["sh", script], capture_output=True, text=True)
        assert refused.returncode == 2 and "type: sudo" in refused.stderr
    else:
        none = subprocess.run(["sh", script, "--wheels", str(tmp_path / "none")], capture_output=True, text=True)
        assert none.returncode == 2 and "is no folder" in none.stderr
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", script], capture_output=True, text=True).stdout == ""


def test_carried_files_of_a_config_to_begin_with_are_there() -> None:
    assert all(paths.carried(*carried).is_file() for carried in laid.BEGIN.values())
