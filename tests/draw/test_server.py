"""The server's protocol: its answers, its refusals, and the separation of visitors."""

import base64
import io
import threading

import numpy as np
import pytest
import requests

from benchmarks import pen
from tests.draw.conftest import HOST
from tff_personalization import errors
from tff_personalization.draw import server

STROKES = pen.strokes_of_writer(1, 0, [11])[0]


def add(client, label="B"):
    return client.post("/api/examples", json={"strokes": STROKES, "label": label})


def test_a_drawing_is_answered_with_its_image_and_what_both_models_say(browser):
    answer = browser().post("/api/look", json={"strokes": STROKES}).get_json()
    image = np.frombuffer(base64.b64decode(answer["image"]), np.uint8).reshape(28, 28)
    assert image.max() == 255
    assert image[:3].max() == 0
    assert answer["initial"] == answer["personalized"]  # nothing has been learnt yet
    shares = [guess["probability"] for guess in answer["initial"]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1


def test_an_example_is_learnt_from_and_the_initial_model_stays_as_it_is(browser):
    client = browser()
    before = client.post("/api/look", json={"strokes": STROKES}).get_json()
    answer = add(client).get_json()
    assert answer["initial"] == before["initial"]
    assert answer["personalized"][0]["label"] == "B"
    assert answer["state"]["examples"] == answer["state"]["trained_on"] == 1
    assert not answer["was_held_back"]
    assert add(client).get_json()["was_held_back"]
    assert client.post("/api/look", json={"strokes": STROKES}).get_json()["personalized"] == answer["personalized"]


def test_visitors_do_not_see_each_other(browser):
    one, other = browser(), browser()
    add(one)
    assert other.get("/api/state").get_json()["examples"] == 0
    looked = other.post("/api/look", json={"strokes": STROKES}).get_json()
    assert looked["personalized"] == looked["initial"]
    add(other, "8")
    assert one.get("/api/state").get_json()["of_each_class"][8] == 0
    assert one.get("/api/state").get_json()["of_each_class"][11] == 1


def test_a_third_visitor_drops_the_one_who_was_away_longest(browser):
    first, second, third = browser(), browser(), browser()
    for client in (first, second):
        add(client)
    first.get("/api/state")
    add(third)
    assert [c.get("/api/state").get_json()["examples"] for c in (first, second, third)] == [1, 0, 1]


def test_the_last_example_or_all_can_be_taken_back(browser):
    client = browser()
    add(client), add(client, "8")
    assert client.post("/api/undo", json={}).get_json()["examples"] == 1
    assert client.post("/api/forget", json={}).get_json()["examples"] == 0


def test_examples_are_saved_and_loaded_again(browser):
    client, other = browser(), browser()
    assert client.get("/api/archive").status_code == 400
    for label in "B8B8":
        add(client, label)
    saved = client.get("/api/archive")
    assert saved.headers["Content-Disposition"] == 'attachment; filename="my_handwriting.npz"'
    with np.load(io.BytesIO(saved.data), allow_pickle=False) as archive:
        assert archive["labels"].tolist() == [11, 8, 11, 8]
    loaded = other.post("/api/archive", data=saved.data)
    assert loaded.get_json() == client.get("/api/state").get_json()


def test_the_run_says_what_the_page_needs(browser):
    run = browser().get("/api/run").get_json()
    assert len(run["classes"]) == 62
    assert run["prompt"][:6] == ["0", "O", "o", "1", "l", "I"]
    assert len(run["writers"]["gains"]) == 10


def test_the_token_is_random_and_out_of_reach_of_scripts_and_other_sites(app):
    cookies = []
    for _ in range(2):
        response = app.test_client().get("/")
        cookie = response.headers["Set-Cookie"]
        assert cookie.startswith("visitor_8765=")
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        cookies.append(cookie.split(";")[0])
    assert cookies[0] != cookies[1]


def test_the_page_may_load_nothing_from_elsewhere_and_runs_no_inline_script(browser):
    response = browser().get("/")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    text = response.get_data(as_text=True)
    assert "http" not in text
    assert "style=" not in text
    assert text.count("<script") == text.count("<script src=")


def refusal(response):
    assert response.status_code >= 400
    assert response.is_json
    assert list(response.get_json()) == ["error"]
    message = response.get_json()["error"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    return response.status_code


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"strokes"', 400),
        (b"{}", 400),
        (b'{"strokes": [], "label": "B"}', 400),
        (b'{"strokes": [[[0, NaN]]], "label": "B"}', 400),
        (b'{"strokes": [[[0, 0]]], "label": "\xc3\xa4"}', 400),
        (b'{"strokes": [[[0, 0]]], "label": ["B"]}', 400),
        (b'{"strokes": [[[0, 0]]], "label": 11}', 400),
        (b'{"strokes": [[[0, 0]]]}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"strokes": ' + b"1" * 10_000 + b"}", 400),
        (b" " * 300_000, 413),
    ],
)
def test_bodies_that_are_no_example_are_refused_in_one_line(browser, body, status):
    client = browser()
    assert refusal(client.post("/api/examples", data=body, content_type="application/json")) == status
    assert client.get("/api/state").get_json()["examples"] == 0


def test_other_types_methods_and_places_are_refused(browser):
    client = browser()
    assert refusal(client.post("/api/examples", data="strokes=1", content_type="text/plain")) == 415
    assert refusal(client.post("/api/forget", data={"a": "b"})) == 415
    assert refusal(client.get("/api/examples")) == 405
    assert refusal(client.get("/nothing")) == 404
    assert refusal(client.get("/static/../server.py")) == 404


def test_files_other_than_archives_are_refused(browser):
    client = browser()
    assert refusal(client.post("/api/archive", data=b"")) == 400
    assert refusal(client.post("/api/archive", data=b"PK\x03\x04" + b"x" * 1000)) == 400
    assert refusal(client.post("/api/archive", data=b"x" * (server.MAX_BYTES + 1))) == 413


def test_more_examples_than_are_kept_are_refused(browser):
    client = browser()
    for _ in range(12):
        assert add(client).status_code == 200
    assert refusal(add(client)) == 400


def test_who_has_no_token_is_refused(app):
    assert refusal(add_without_token(app)) == 401
    assert refusal(add_without_token(app, Cookie="visitor_8765=short")) == 401


def add_without_token(app, **headers):
    return app.test_client().post("/api/examples", json={"strokes": STROKES, "label": "B"}, headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1:80", "127.0.0.1", "[::1]:8765", "a b"]
)
def test_other_names_of_the_server_are_refused(app, host):
    assert refusal(app.test_client().get("/", headers={"Host": host})) in (400, 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:8765"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_calls_from_other_sites_are_refused(browser, headers):
    client = browser()
    assert refusal(client.post("/api/look", json={"strokes": STROKES}, headers=headers)) == 403
    assert refusal(client.get("/api/archive", headers=headers)) == 403


def test_calls_from_the_page_itself_are_not(browser):
    headers = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert browser().post("/api/look", json={"strokes": STROKES}, headers=headers).status_code == 200


def test_a_fault_of_the_server_is_one_line_without_a_traceback(browser, monkeypatch, capsys):
    client = browser()
    monkeypatch.setattr(server.drawing, "image_of", lambda strokes: 1 / 0)
    assert refusal(client.post("/api/look", json={"strokes": STROKES})) == 500
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_server_listens_only_on_loopback_and_reports_a_port_in_use(maker):
    served = server.Server(server.Pages(maker, None, {}, 2, 12), 0)
    thread = threading.Thread(target=served.serve)
    thread.start()
    try:
        session = requests.Session()
        session.trust_env = False
        assert session.get(served.url, timeout=10).status_code == 200
        assert served._server.socket.getsockname()[0] == "127.0.0.1"
        answer = session.post(f"{served.url}api/look", json={"strokes": STROKES}, timeout=10)
        assert answer.json()["initial"]
        with pytest.raises(errors.UserError, match=f"--port={served.port}"):
            server.Server(server.Pages(maker, None, {}, 2, 12), served.port)
    finally:
        served.stop()
        thread.join(10)
    assert not thread.is_alive()
