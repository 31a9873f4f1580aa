"""The page's server: one page, and a few JSON calls, for browsers on the same machine only.

| call | body | answer |
|---|---|---|
| GET / | | the page; gives the browser a random token, its visitor's name |
| GET /api/run | | the run, its classes, the prompt, its held-out writers |
| GET /api/state | | `Visitor.state` |
| POST /api/look | `{"strokes"}` | the image, and both models' predictions |
| POST /api/examples | `{"strokes", "label"}` | adds, trains; then as `look`, with the state |
| POST /api/undo, POST /api/forget | `{}` | removes the last example, or all; the state |
| GET /api/archive | | the examples as a by-writer .npz |
| POST /api/archive | an .npz | replaces the examples, trains; the state |

A refused call gets a status of 400 or more and `{"error": one line}`.
"""

import base64
import http
import re
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Collection
from typing import Any

import flask
import numpy as np
import pandas as pd
from werkzeug import exceptions, serving

from tff_personalization import errors
from tff_personalization.draw import drawing, personalizer, prompt, visitors

LOOPBACK = "127.0.0.1"
MAX_BYTES = 4 * 2**20
"""The largest body that is read, which is an archive's."""
_MAX_JSON_BYTES = 2**18
_SHOWN = 5
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Pages:
    """The server's answers; see the head of this file."""

    def __init__(
        self,
        maker: personalizer.Personalizer,
        writers: pd.DataFrame | None,
        about: dict[str, Any],
        most_visitors: int,
        most_examples: int,
    ):
        """Takes the run's model, its `visitors.held_out_writers`, its description, and what is kept at most."""
        self._maker = maker
        self._writers = writers
        self._about = about
        self._classes = maker.trained.classes
        self._most_examples = most_examples
        self._visitors = visitors.Visitors(lambda: visitors.Visitor(maker, most_examples), most_visitors)
        # One at a time: each uses all cores.
        self._training = threading.Lock()

    def run(self) -> dict[str, Any]:
        writers = None
        if self._writers is not None:
            gains = self._writers["more_right"] / self._writers["predictions"]
            writers = {"gains": gains.round(4).tolist()}
        return {
            **self._about,
            "classes": list(self._classes),
            "prompt": prompt.characters(self._classes),
            "hold_back": {"of": visitors.HOLD_BACK_OF, "first": visitors.HOLD_BACK_FIRST},
            "fewest_to_compare": visitors.FEWEST_TO_COMPARE,
            "most_examples": self._most_examples,
            "writers": writers,
        }

    def state(self) -> dict[str, Any]:
        visitor = self._visitors.get(_token())
        with visitor.lock:
            return visitor.state(self._writers)

    def look(self) -> dict[str, Any]:
        image = drawing.image_of(drawing.checked(_json("strokes")))
        visitor = self._visitors.get(_token())
        with visitor.lock:
            weights = visitor.personalized
        return self._seen(image, weights)

    def add(self) -> dict[str, Any]:
        strokes, label = drawing.checked(_json("strokes")), _json("label")
        if not isinstance(label, str) or label not in self._classes:
            raise errors.UserError(f"label: one of the {len(self._classes)} characters of the task is expected.")
        image = drawing.image_of(strokes)
        visitor = self._visitors.get_or_keep(_token())
        with visitor.lock:
            held_back = visitor.add(image, self._classes.index(label))
            with self._training:
                visitor.train()
            return {
                **self._seen(image, visitor.personalized),
                "label": label,
                "was_held_back": held_back,
                "state": visitor.state(self._writers),
            }

    def undo(self) -> dict[str, Any]:
        visitor = self._visitors.get(_token())
        with visitor.lock:
            visitor.undo()
            with self._training:
                visitor.train(at_once=True)
            return visitor.state(self._writers)

    def forget(self) -> dict[str, Any]:
        self._visitors.forget(_token())
        return self.state()

    def save(self) -> flask.Response:
        visitor = self._visitors.get(_token())
        with visitor.lock:
            archive = visitor.save()
        response = flask.Response(archive, mimetype="application/octet-stream")
        response.headers["Content-Disposition"] = 'attachment; filename="my_handwriting.npz"'
        return response

    def load(self) -> dict[str, Any]:
        archive = flask.request.get_data(cache=False)
        visitor = self._visitors.get_or_keep(_token())
        with visitor.lock:
            visitor.load(archive)
            with self._training:
                visitor.train(at_once=True)
            return visitor.state(self._writers)

    def _seen(self, image: np.ndarray, weights: personalizer.Weights) -> dict[str, Any]:
        """An image as the models see it, and its likeliest classes by the initial and by the personalized model."""
        said = {}
        for name, of in (("initial", self._maker.initial), ("personalized", weights)):
            probabilities = self._maker.probabilities(of, image)
            best = np.argsort(-probabilities, kind="stable")[:_SHOWN]
            said[name] = [{"label": self._classes[i], "probability": round(float(probabilities[i]), 4)} for i in best]
        return {"image": base64.b64encode(image.tobytes()).decode(), **said}


def create_app(pages: Pages, hosts: Collection[str]) -> flask.Flask:
    """The application.

    Args:
        pages: its answers.
        hosts: the host names, with the port, that a browser may use. Others are refused, because another site could
            point its own name here.
    """
    app = flask.Flask(__name__, static_folder="static", static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES

    @app.before_request
    def _check() -> None:
        request = flask.request
        if request.host not in hosts:
            raise exceptions.MisdirectedRequest(f"Host: this server must be {' or '.join(sorted(hosts))}.")
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        elsewhere = origin not in (None, f"http://{request.host}") or site not in ("none", "same-origin")
        # A link from another site may open the page; any other request from there is refused.
        if elsewhere and (request.method, request.path) != ("GET", "/"):
            raise exceptions.Forbidden("Origin: calls from other sites are refused.")
        if request.method == "POST" and request.path != "/api/archive":
            if request.mimetype != "application/json":
                raise exceptions.UnsupportedMediaType("Content-Type: application/json is expected.")
            request.max_content_length = _MAX_JSON_BYTES

    @app.after_request
    def _guard(response: flask.Response) -> flask.Response:
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def _page() -> flask.Response:
        response = app.send_static_file("index.html")
        if not _TOKEN.fullmatch(flask.request.cookies.get(_cookie(), "")):
            response.set_cookie(_cookie(), secrets.token_urlsafe(24), httponly=True, samesite="Strict")
        return response

    app.get("/api/run")(pages.run)
    app.get("/api/state")(pages.state)
    app.get("/api/archive")(pages.save)
    app.post("/api/look")(pages.look)
    app.post("/api/examples")(pages.add)
    app.post("/api/undo")(pages.undo)
    app.post("/api/forget")(pages.forget)
    app.post("/api/archive")(pages.load)

    @app.errorhandler(errors.UserError)
    def _refuse(error: errors.UserError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, http.HTTPStatus.BAD_REQUEST

    @app.errorhandler(exceptions.HTTPException)
    def _refuse_http(error: exceptions.HTTPException) -> tuple[dict[str, str], int]:
        return {"error": " ".join((error.description or error.name).split())}, error.code or 500

    @app.errorhandler(Exception)
    def _fail(error: Exception) -> tuple[dict[str, str], int]:
        if isinstance(error, TimeoutError | ConnectionError):  # the client sent an incomplete body
            return {"error": "The body did not come in time."}, http.HTTPStatus.REQUEST_TIMEOUT
        traceback.print_exception(error, file=sys.stderr)
        return {"error": "Something failed in the server: see the message on its terminal."}, 500

    return app


def _cookie() -> str:
    """The name of the token's cookie. It has the port, because servers on one host share cookies."""
    return f"visitor_{flask.request.host.rpartition(':')[2]}"


def _token() -> str:
    token = flask.request.cookies.get(_cookie(), "")
    if not _TOKEN.fullmatch(token):
        raise exceptions.Unauthorized("Cookie: there is no visitor's token; open the page first.")
    return token


def _json(name: str) -> Any:
    """The value of a name in the request's JSON object."""
    try:
        value = flask.request.get_json()
    except RecursionError:
        raise errors.UserError("The body is JSON with too many nested levels.") from None
    if not isinstance(value, dict) or name not in value:
        raise errors.UserError(f"{name}: the body must be a JSON object that has it.")
    return value[name]


class _Quiet(serving.WSGIRequestHandler):
    """A handler that logs no requests and limits how long it waits for a client."""

    timeout = 30

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del code, size

    def log_error(self, format: str, *args: Any) -> None:
        del format, args


class Server:
    """Serves pages on the loopback address, with a thread for each request."""

    def __init__(self, pages: Pages, port: int):
        """Binds the port; 0 for a free one. UserError if it is not available."""
        # Bound here, because werkzeug ends the program if a port is in use.
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
        except OSError as error:
            raise errors.UserError(
                f"--port={port}: cannot be used ({error.strerror}): give another port, or 0 for any free one."
            ) from error
        listening.listen()
        self.port = listening.getsockname()[1]
        # A browser omits HTTP's default port.
        suffix = "" if self.port == 80 else f":{self.port}"
        app = create_app(pages, {f"{name}{suffix}" for name in (LOOPBACK, "localhost")})
        self._server = serving.make_server(
            LOOPBACK, self.port, app, threaded=True, request_handler=_Quiet, fd=listening.fileno()
        )
        listening.close()  # the server has a copy

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/"

    def serve(self) -> None:
        """Serves until `stop`, Ctrl-C or the program's end."""
        self._server.serve_forever()

    def stop(self) -> None:
        """Ends serving, from another thread."""
        self._server.shutdown()
