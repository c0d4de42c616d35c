"""What the server of `lus label` refuses, and that it tells nothing about a video."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lus_cli.pages.base import template_text
from tests.labelling.conftest import make_study
from tests.labelling.serving import Served, serving


@pytest.fixture(scope="module")
def folder(exams: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(exams: Path, folder: Path) -> Iterator[Served]:
    """One server for all tests that it outlives."""
    study = make_study(exams, folder)
    with serving(study, "--rater", "anna", "--cache", folder / "cache") as one:
        yield one


@pytest.fixture
def ratings(folder: Path) -> Callable[[], str]:
    """Reads what is on the disk."""
    return (folder / "cache" / "labels" / "anna.jsonl").read_text


def test_only_this_machine_can_connect(served: Served) -> None:
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if int(port, 16) == served.port and line.split()[3] == "0A":
                listening.append(address)
    assert listening == ["0100007F"]  # 127.0.0.1
    with pytest.raises(OSError, match=r"refused|unreachable|assign"):
        socket.create_connection(("127.0.0.2", served.port), timeout=5)


def test_nothing_is_there_without_the_token(served: Served) -> None:
    assert served.request(served.token)[0] == 200
    assert len(served.token.strip("/")) >= 20
    wrong = served.token[:-2] + ("A" if served.token[-2] != "A" else "B") + "/"
    for token in (
        "/",
        "//",
        wrong,
        served.token[:-3] + "/",
        "/%00/",
        "/%C3%A4/",
    ):
        for path in ("", "state", "frames/0"):
            assert served.request(token + path)[0] == 404, token
    status, _, _ = served.request(f"{wrong}rate", {"position": 0, "score": 1})
    assert status == 404


def test_every_start_has_another_token(named_study: Path, tmp_path: Path) -> None:
    """And prints it with --quiet, too, without which the page could not be opened."""
    tokens = set()
    for options in ([], ["--quiet"]):
        with serving(named_study, "--cache", tmp_path / "cache", *options) as one:
            tokens.add(one.token)
    assert len(tokens) == 2


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "0.0.0.0:{port}", "", None]
)  # fmt: skip
def test_another_host_is_refused(
    served: Served, ratings: Callable[[], str], host: str | None
) -> None:
    """As a name that was made to point to 127.0.0.1 would send it: DNS rebinding."""
    named = None if host is None else host.format(port=served.port)
    before = ratings()
    assert served.request(f"{served.token}state", Host=named)[0] in (400, 403)
    body = {"position": 0, "score": 1}
    with contextlib.suppress(ConnectionResetError):  # it may hang up before it has read the body
        assert served.request(f"{served.token}rate", body, Host=named)[0] in (400, 403)
    assert ratings() == before
    assert served.request(f"{served.token}state", Host=f"localhost:{served.port}")[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", None])
def test_another_origin_is_refused(
    served: Served, ratings: Callable[[], str], origin: str | None
) -> None:
    before = ratings()
    body = {"position": 0, "score": 1}
    assert served.request(f"{served.token}rate", body, Origin=origin)[0] == 403
    assert ratings() == before
    if origin:
        assert served.request(f"{served.token}state", Origin=origin)[0] == 403
    assert served.request(f"{served.token}state", Sec_Fetch_Site="cross-site")[0] == 403
    assert served.request(f"{served.token}rate", body)[0] == 200
    assert ratings() != before


def test_no_file_is_served(served: Served, folder: Path) -> None:
    """Videos are numbers: no path of a request names a file."""
    secret = folder / "secret.txt"
    secret.write_text("hidden away")
    escapes = [
        "../secret.txt", "%2e%2e/secret.txt", "..%2f..%2fsecret.txt", str(secret), f"/{secret}",
        "frames/../../secret.txt", "frames/..%2fsecret.txt", f"frames/{secret}", "frames/-1",
        "frames/6", "frames/99999999999999999999", "frames/0x0", "frames/٣", "frames/", "label.js",
        "static/label.js", "frames/patientname0%2fexamname%2farea0",
    ]  # fmt: skip
    for escape in escapes:
        path = served.token + escape
        status, _, body = served.request("".join(c if c.isascii() else "%D9%A3" for c in path))
        assert status in (404, 422), escape
        assert b"hidden away" not in body
    assert served.request(f"{served.token}frames/5")[0] == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"7", b"\xff", b'{"position": 0, "score": 9}', b'{"position": true, "score": 1}',
     b'{"position": 0.5}', b'{"position": 0, "a_lines": "yes"}', b'{"position": 0, "comment": 1}',
     b"[" * 60_000],
)  # fmt: skip
def test_what_is_no_rating_is_not_stored(
    served: Served, ratings: Callable[[], str], body: bytes
) -> None:
    before = ratings()
    assert served.request(f"{served.token}rate", body)[0] in (400, 404)
    assert served.request(f"{served.token}rate", b" " * 70_000)[0] == 413
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert served.request(f"{served.token}rate", method=method)[0] == 405
    assert ratings() == before


def test_the_page_may_load_and_send_nothing_elsewhere(served: Served) -> None:
    status, headers, body = served.request(served.token)
    page = body.decode()
    assert status == 200
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("script-src").startswith("'sha256-")
    assert rules == {
        "default-src": "'none'", "img-src": "data:", "connect-src": "'self'",
        "style-src": "'unsafe-inline'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert not re.findall(r"(?:https?:)?//[a-z]", page.replace("// ", ""))
    assert not re.findall(r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"(?!data:,)", page)
    assert template_text("label.js") in page
    for path in ("", "state", "frames/0", "nothing"):
        _, headers, _ = served.request(served.token + path)
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_nothing_tells_which_video_is_shown(served: Served, folder: Path) -> None:
    """Whoever scores sees no id, no path, no date of a file and no score of others."""
    served.rate(0, score=1)
    (folder / "secretstudy" / "Annotations.txt").write_text("patientname0/examname/area0;3\n")
    answers = [
        served.request(served.token + path) for path in ("", "state", "frames/0", "frames/9")
    ]
    answers.append(served.request(f"{served.token}rate", {"position": 1, "score": 2}))
    told = b"\n".join(repr(headers).encode() + body for _, headers, body in answers).lower()
    for name in (b"patientname", b"examname", b"area0", b"secretstudy", b"frame_", b"exif"):
        assert name not in told
    assert set(served.state()) == {"rater", "review", "waits", "start", "ratings", "about"}
    assert served.state()["about"] == [None] * 6


def test_a_video_that_cannot_be_decoded_is_named_in_the_terminal_only(
    named_study: Path, tmp_path: Path
) -> None:
    for path in (named_study / "patientname0" / "examname" / "area0").iterdir():
        path.write_bytes(b"\xff\xd8\xff damaged")
    with serving(named_study, "--rater", "anna", "--cache", tmp_path / "cache") as served:
        answers = [served.request(f"{served.token}frames/{position}") for position in range(6)]
        assert sorted(status for status, _, _ in answers) == [200] * 5 + [422]
        [body] = [body for status, _, body in answers if status == 422]
        assert b"patientname" not in body
        printed = served.end()
    assert "a video cannot be shown" in printed
    assert "patientname0/examname/area0" in printed
