"""A repository as it is published, and what a device believes of it, by TUF's own client."""

from __future__ import annotations

import lzma
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from edge_agent.errors import UsageError
from edge_agent.fleet import child, verify
from edge_agent.fleet.bundle import MOST_BYTES, Form, Wanted
from edge_agent.fleet.keys import Keys
from edge_agent.fleet.repository import Repository
from tests.fleet.made import Device, publish, repository, some_files

pytest.importorskip("tuf", reason="the extra [update] is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `repo` (files/a: two numbers, the second to the group canary alone) and `keys`."""
    at = tmp_path_factory.mktemp("made")
    repo = repository(at / "repo", at / "keys")
    publish(repo, some_files(a_txt=b"one"), "a")
    publish(repo, some_files(a_txt=b"two"), "a", groups=("canary",))
    return at


@pytest.fixture(autouse=True)
def inside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child does is done here but for one test: starting it is most of a look."""
    if "own_process" not in request.node.name:
        monkeypatch.setattr(verify, "_answer", child.answered)


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def device(at: Path, home: Path, group: str = "all") -> Device:
    return Device(home, f"file://{at / 'repo'}/", at / "repo" / "metadata" / "1.root.json", group)


def of(at: Path, keys: str = "keys") -> Repository:
    return Repository(at / "repo", Keys(at / keys))


def test_a_group_has_what_it_is_offered_and_number_by_number_more(own: Path, tmp_path: Path) -> None:
    one, canary = device(own, tmp_path / "one"), device(own, tmp_path / "canary", "canary")
    assert one.update.take("files/a").state == "SUCCEEDED" and one.holds("a") == {"a.txt": b"one"}
    assert canary.update.take("files/a").state == "SUCCEEDED" and canary.holds("a") == {"a.txt": b"two"}
    repo = of(own)
    with repo.alone():
        assert repo.offer(Wanted("files", "a", 2), ["all"]) == []
    assert [(row.bundle.number, sorted(row.groups)) for row in repo.listing()] == [(2, ["all", "canary"]), (1, [])]
    assert one.update.take("files/a").state == "SUCCEEDED" and one.holds("a") == {"a.txt": b"two"}
    older = one.update.take("files/a/1")
    assert older.state == "REJECTED" and "older than number 2, which served here" in older.reason
    assert one.served.kept.refused == {"number": 1} and device(own, tmp_path / "one").served.kept.refused
    with repo.alone():
        repo.withdraw(Wanted("files", "a", 2))
    gone = device(own, tmp_path / "other", "canary").update.take("files/a")
    assert gone.state == "REJECTED" and "not offered" in gone.reason


def test_a_look_is_taken_in_an_own_process(own: Path, tmp_path: Path) -> None:
    one = device(own, tmp_path / "home")
    assert one.update.take("files/a").state == "SUCCEEDED"
    (own / "repo" / "metadata" / "timestamp.json").unlink()
    gone = one.update.take("files/a")
    assert gone.state == "IN_PROGRESS" and gone.later and "HTTP 404" in gone.reason


def test_an_older_repository_is_refused_even_where_tuf_s_own_memory_is_gone(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own / "repo", own / "before")
    publish(of(own), some_files(b_txt=b"b"), "b")
    one = device(own, tmp_path / "home")
    assert one.update.take("files/b").state == "SUCCEEDED"
    shutil.rmtree(own / "repo")
    (own / "before").rename(own / "repo")
    for _ in range(2):
        back = one.update.take("files/b")
        assert back.state == "REJECTED" and back.reason
        shutil.rmtree(tmp_path / "home" / "fleet" / "tuf", ignore_errors=True)
    assert "somebody put back an older repository" in back.reason and one.holds("b") == {"b.txt": b"b"}


def test_a_stranger_s_key_and_a_changed_index_are_refused(own: Path, tmp_path: Path) -> None:
    repository(tmp_path / "theirs", tmp_path / "their-keys")
    stranger = Device(tmp_path / "one", f"file://{own / 'repo'}/", tmp_path / "theirs" / "metadata" / "1.root.json")
    refused = stranger.update.take("files/a")
    assert refused.state == "REJECTED" and "signed" in refused.reason and "\n" not in refused.reason
    assert stranger.served.kept.refused == {"repository": 1}
    for path in (own / "repo" / "targets").rglob("*.all.json"):
        path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":7'))
    changed = device(own, tmp_path / "two").update.take("files/a")
    assert changed.state == "REJECTED" and not device(own, tmp_path / "two").holds("a")


def test_a_file_that_was_swapped_after_signing_is_refused(own: Path, tmp_path: Path) -> None:
    for path in (own / "repo" / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"eno" if path.stat().st_size == 3 else path.read_bytes())
    one = device(own, tmp_path / "home")
    swapped = one.update.take("files/a")
    assert swapped.state == "REJECTED" and "is not the file that was signed" in swapped.reason
    assert one.served.kept.refused == {"files": 1}
    assert not device(own, tmp_path / "home").holds("a")


def test_what_is_signed_and_hostile_all_the_same_is_refused_and_counted(own: Path, tmp_path: Path) -> None:
    """Ten gigabytes, a file outside of its folder, a form that unpacks to more than it says."""
    repo, good = of(own), device(own, tmp_path / "other").update._look(Wanted("files", "a"))[0]
    (part,), bomb = good.files, lzma.compress(bytes(30_000_000))
    packed = Form("xz", repo._blob(bomb), len(bomb))
    unseen = "0" * 64  # so that its file is not here yet
    hostile = {
        "has 10.0 GB; a device takes 2.1 GB": msgspec.structs.replace(part, bytes=10**10),
        "names the file '../../x', which does not lie": msgspec.structs.replace(part, path="../../x"),
        "a smaller form of 'a.txt' is larger": msgspec.structs.replace(part, sha256=unseen, forms=[packed]),
        "does not give its file: gives more than": msgspec.structs.replace(
            part, sha256=unseen, bytes=100_000, forms=[packed]
        ),
    }
    one = device(own, tmp_path / "home")
    for number, (why, file) in enumerate(hostile.items(), 5):
        raw = msgspec.json.encode(msgspec.structs.replace(good, number=number, files=[file]))
        with repo.alone():
            metadata = repo.roles.load("targets")
            repo._target(metadata.signed, "targets", f"files/a/{number}.json", raw)
            repo.roles.save("targets", metadata)
        refused = one.update.take(f"files/a/{number}")
        assert refused.state == "REJECTED" and why in refused.reason and "\n" not in refused.reason, refused
    assert one.served.kept.refused == {"repository": 3, "files": 1} and not one.holds("a")
    assert not (tmp_path / "x").exists() and one.update.take("files/a").state == "SUCCEEDED"


def test_expired_metadata_and_a_wrong_clock_leave_what_serves(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device(own, tmp_path / "home")
    assert one.update.take("files/a").state == "SUCCEEDED"
    repo = Repository(own / "repo", Keys(own / "keys"), days=-1)
    publish(repo, some_files(a_txt=b"three"), "a")
    expired = one.update.take("files/a")
    assert expired.state == "REJECTED" and "expired" in expired.reason and "renew" in expired.reason
    assert one.served.kept.refused == {"repository": 1}
    with of(own).alone():
        assert of(own).roles.settle() == []  # what `repository renew` does
    now = time.time()
    for clock, why in ((1e9, "is not set"), (now - 3 * 86_400, "already")):
        monkeypatch.setattr("edge_agent.fleet.verify.time.time", lambda clock=clock: clock)
        early = one.update.take("files/a")
        assert early.state == "IN_PROGRESS" and early.later and why in early.reason, early
    monkeypatch.undo()
    assert one.holds("a") == {"a.txt": b"one"}
    assert one.update.take("files/a").state == "SUCCEEDED" and one.holds("a") == {"a.txt": b"three"}


def test_what_two_have_to_sign_is_seen_by_no_device_before(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", tmp_path / "keys", targets=2)
    other = tmp_path / "other"
    other.mkdir()
    for end in ("pem", "pub"):
        (tmp_path / "keys" / f"targets-2.{end}").rename(other / f"targets-2.{end}")
    published = publish(repo, some_files(a_txt=b"one"), "a")
    assert any("targets lacks 1 more signature" in line for line in published.lacks)
    one = device(tmp_path, tmp_path / "home")
    assert "not offered" in one.update.take("files/a").reason
    with of(tmp_path, "other").alone():
        lacks = of(tmp_path, "other").roles.sign()  # who has no key of snapshot and timestamp
    assert any("renew" in line for line in lacks)
    with repo.alone():
        assert repo.roles.settle() == []
    assert one.update.take("files/a").state == "SUCCEEDED"


def test_keys_are_rotated_and_a_device_follows(own: Path, tmp_path: Path) -> None:
    one = device(own, tmp_path / "home")
    assert one.update.take("files/a").state == "SUCCEEDED"
    keys = Keys(own / "keys")
    repo = Repository(own / "repo", keys)
    with repo.alone():
        for role in ("targets", "timestamp", "root"):
            old = repo.roles.load("root").signed.roles[role].keyids[0]
            assert repo.roles.rotate(role, keys.make(f"{role}-new"), old[:12]) == []
    publish(repo, some_files(a_txt=b"new"), "a")
    assert one.update.take("files/a").state == "SUCCEEDED" and one.holds("a") == {"a.txt": b"new"}
    fresh = Device(tmp_path / "late", one.address, own / "repo" / "metadata" / "1.root.json")
    assert fresh.update.take("files/a").state == "SUCCEEDED"
    assert repo.roles.load("root").signed.version == 4
    for name in ("targets", "root"):
        (own / "keys" / f"{name}-new.pem").unlink()
    with repo.alone(), pytest.raises(UsageError, match="holds no key of targets"):
        repo.publish(some_files(a_txt=b"x"), "a", ["all"])


def test_a_team_publishes_what_was_delegated_to_it_and_nothing_else(own: Path, tmp_path: Path) -> None:
    theirs = Keys(own / "team")
    repo, team = of(own), Repository(own / "repo", theirs)
    with repo.alone():
        repo.roles.delegate("shop", ["files/shop-*/*"], theirs.make("shop"))
    published = publish(team, some_files(a_txt=b"shop"), "shop-a", team="shop")
    assert any("renew" in line for line in published.lacks)  # a team has no key of the timestamp
    with repo.alone():
        assert repo.roles.settle() == []
    one = device(own, tmp_path / "home")
    assert one.update.take("files/shop-a").state == "SUCCEEDED" and one.holds("shop-a") == {"a.txt": b"shop"}
    with pytest.raises(UsageError, match=r"shop may publish files/shop-\*/\*.json only"):
        publish(team, some_files(a_txt=b"x"), "a", team="shop")
    with pytest.raises(UsageError, match="nothing is delegated"):
        publish(team, some_files(a_txt=b"x"), "a", team="other")


def test_keys_are_for_their_owner_alone(own: Path, tmp_path: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in (own / "keys").glob("*.pem")} == {0o600}
    locked = Keys(tmp_path / "locked", lambda name: b"words")
    locked.make("root")
    assert b"ENCRYPTED" in (tmp_path / "locked" / "root.pem").read_bytes()
    with pytest.raises(UsageError, match="passphrase"):
        Keys(tmp_path / "locked", lambda name: b"wrong").signer(tmp_path / "locked" / "root.pem")
    with pytest.raises(UsageError, match="is there already"):
        locked.make("root")
    (own / "keys" / "root.pem").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        Keys(own / "keys").here()


def test_a_bundle_that_is_too_large_is_refused_before_a_byte_of_it_comes(own: Path, tmp_path: Path) -> None:
    one = device(own, tmp_path / "home")
    found = one.update._look(Wanted("files", "a"))[0]
    huge = msgspec.structs.replace(found, files=[msgspec.structs.replace(found.files[0], bytes=MOST_BYTES)])
    one._look = lambda asked: (huge, b"index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_agent.fleet.fetch.disk_usage", lambda place: shutil.disk_usage(place)._replace(free=10**9))
        refused = one.update.take("files/a")
    assert refused.state == "REJECTED" and "needs 2147.5 MB" in refused.reason
