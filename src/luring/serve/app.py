"""What both servers are: one network behind `/predict` and the Open Inference Protocol (V2), with health, metrics and limits."""

import asyncio
import contextlib
import hmac
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luring import __version__
from luring.errors import InputError
from luring.scaling import Scaling
from luring.serve import contract, pictures
from luring.serve.batching import Answers, Batcher, BusyError
from luring.serve.events import Events
from luring.serve.limits import Limits, answer_of
from luring.serve.metrics import Metrics
from luring.serve.settings import Settings

JSON = "application/json"
BINARY = "application/octet-stream"
LENGTH = "inference-header-content-length"
GONE = 499
"""The status in log and metrics of a request whose client left before its body was whole (as nginx has it)."""
STATUSES = {
    404: "there is nothing at this path: /openapi.json says what there is.",
    405: "this path takes another method: /openapi.json says which.",
}
FAILED = HTTPException(500, "the server failed: its log says why.")


@dataclass(frozen=True)
class Served:
    """A network as a server needs it.

    Attributes:
        network: images, [n, channels, height, width] float32, to answers, one row an image.
        shape: of an image.
        scaling: that pictures of other sizes are brought to it by; none where they must have it.
        classes: their names.
        outputs: the answers that leave by V2: their datatype and the shape of one row, by name.
        prediction: the answers to one image to an element of `/predict`'s list.
        metrics: what is counted.
        seen: told the answers to each request; gives what its line in the log says beside time and status.
    """

    network: Callable[[np.ndarray], Answers]
    shape: tuple[int, int, int]
    scaling: Scaling | None
    classes: tuple[str, ...]
    outputs: Mapping[str, tuple[str, list[int]]]
    prediction: Callable[[Answers, int], dict[str, Any]]
    metrics: Metrics
    seen: Callable[[Answers], dict[str, Any]]


def application(settings: Settings, served: Served) -> ASGIApp:
    """The server's ASGI application."""
    events = Events(settings.log)
    name = settings.name
    batcher = Batcher(
        served.network,
        batch=settings.batch,
        queue=settings.queue,
        seconds=settings.seconds,
        seen=served.metrics.batch.observe,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        batcher.start()
        events("started", surface=settings.surface, host=settings.host, port=settings.port)
        yield
        await batcher.stop()
        events("stopped", surface=settings.surface)

    # The pages that FastAPI can draw of the API load scripts from elsewhere: only the document itself is served.
    app = FastAPI(title=name, version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)

    one_at_a_time = asyncio.Lock()

    async def decoded(files: list[bytes]) -> np.ndarray:
        if served.scaling is None:
            return pictures.from_files(files, served.shape)
        # A large picture takes a second and its memory: one request at a time, beside everything else.
        async with asyncio.timeout(settings.seconds):
            await one_at_a_time.acquire()
        try:
            return await asyncio.to_thread(pictures.from_files, files, served.shape, served.scaling)
        finally:
            one_at_a_time.release()

    async def asked(request: Request, images: np.ndarray) -> Answers:
        found = await batcher.ask(images)
        request.state.said = {"images": len(images), **served.seen(found)}
        return found

    @app.post("/predict", summary="Classify images", **contract.predict(settings, served))
    async def predict(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        sent = await _sent(request, served.shape, settings.batch)
        images = sent if isinstance(sent, np.ndarray) else await decoded(sent)
        found = await asked(request, images)
        said = [served.prediction(found, place) for place in range(len(images))]
        return Response(orjson.dumps({"predictions": said}), media_type=JSON)

    @app.post(f"/v2/models/{name}/infer", summary="V2 inference", **contract.infer(settings, served))
    async def infer(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        _expect(request, JSON, BINARY)
        images, wanted = pictures.from_v2(
            await request.body(), request.headers.get(LENGTH), served.shape, settings.batch
        )
        outputs = _wanted(wanted, served.outputs)
        found = await asked(request, images)
        return _inferred(name, wanted, outputs, found)

    @app.get("/v2/health/live", summary="The process answers", **contract.plain(settings, "live", "boolean"))
    async def live() -> Response:  # pyright: ignore[reportUnusedFunction]
        return _json({"live": True})

    @app.get("/v2/health/ready", summary="Images are answered", **contract.ready(settings, "ready"))
    @app.get(f"/v2/models/{name}/ready", summary="Images are answered", **contract.ready(settings, "ready"))
    async def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        working = batcher.working()
        return _json({"ready": working}, 200 if working else 503)

    @app.get("/v2", summary="The server", **contract.plain(settings, "name", "string"))
    async def server() -> Response:  # pyright: ignore[reportUnusedFunction]
        return _json({"name": name, "version": __version__, "extensions": ["binary_tensor_data"]})

    @app.get("/v2/models", summary="Its one model", **contract.plain(settings, "models", "array"))
    async def models() -> Response:  # pyright: ignore[reportUnusedFunction]
        return _json({"models": [name]})

    @app.get(f"/v2/models/{name}", summary="What it takes and gives", **contract.plain(settings, "name", "string"))
    async def metadata() -> Response:  # pyright: ignore[reportUnusedFunction]
        tensors = {
            key: {"name": key, "datatype": kind, "shape": [-1, *row]} for key, (kind, row) in served.outputs.items()
        }
        images = {"name": "images", "datatype": "FP32", "shape": [-1, *served.shape]}
        return _json(
            {
                "name": name,
                "versions": ["1"],
                "platform": "pytorch",
                "inputs": [images],
                "outputs": list(tensors.values()),
            }
        )

    @app.get("/metrics", summary="Numbers for Prometheus", **contract.text(settings))
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(served.metrics.page(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(InputError)
    async def refused(_request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return answer_of(HTTPException(400, str(error)))

    @app.exception_handler(BusyError)
    async def busy(_request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        assert isinstance(error, BusyError)
        return answer_of(HTTPException(503, str(error), {"retry-after": str(error.seconds)}))

    @app.exception_handler(TimeoutError)
    async def late(_request: Request, _error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return answer_of(HTTPException(504, f"no answer within {settings.seconds:g} s: try again later."))

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(status_code=GONE)

    @app.exception_handler(HTTPException)
    async def other(_request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        assert isinstance(error, HTTPException)
        sentence = STATUSES.get(error.status_code, error.detail)
        return answer_of(HTTPException(error.status_code, sentence, dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return answer_of(FAILED)

    guarded = Token(app, settings.token) if settings.token is not None else app
    limited = Limits(guarded, most=int(settings.mib * 2**20), seconds=settings.seconds, rate=settings.rate)
    paths = {str(route.path) for route in app.routes}  # type: ignore[attr-defined]
    return Outermost(limited, served.metrics, events, paths)


class Token:
    """Asks for `Authorization: Bearer TOKEN`, but by the two health checks."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Around an application."""
        self.app, self.wanted = app, b"Bearer " + token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and scope["path"] not in ("/v2/health/live", "/v2/health/ready"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self.wanted):
                sentence = "a token is needed: send it as 'Authorization: Bearer …'."
                await answer_of(HTTPException(401, sentence, {"www-authenticate": "Bearer"}))(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Outermost:
    """Every request is counted and written down, and an exception becomes a 500 that says nothing of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, events: Events, paths: set[str]) -> None:
        """Around the limits: also what they refuse is counted.

        Args:
            app: what is inside.
            metrics: where requests are counted.
            events: where each writes a line.
            paths: that are counted by name; the rest is "other", or anyone could make new numbers.
        """
        self.app, self.metrics, self.events, self.paths = app, metrics, events, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:  # whatever went wrong, the answer says no more than that
            self.events("fault", error=type(error).__name__, text=str(error)[:500])
            if not status:
                await answer_of(FAILED)(scope, receive, noted)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            took = monotonic() - started
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(took)
            said = scope.get("state", {}).get("said", {})
            client = (scope.get("client") or [None])[0]
            self.events("request", path=path, status=status, ms=round(1000 * took, 3), client=client, **said)


async def _sent(request: Request, shape: pictures.Shape, most: int) -> np.ndarray | list[bytes]:
    """The images of a request to `/predict`, or the picture files, by its content type."""
    kind = _expect(request, JSON, "multipart/form-data", "image/")
    if kind == JSON:
        return pictures.from_json(await request.body(), shape, most)
    if kind == "image/":
        return [await request.body()]
    try:
        form = await _Form(request.headers, request.stream(), max_files=most + 1, max_fields=most + 1).parse()
    except MultiPartException as error:
        raise InputError(f"the form cannot be read ({error.message}): send pictures as multipart/form-data.") from error
    try:
        files = [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
    finally:
        await form.close()
    if not files:
        raise InputError("the form has no file: send pictures, each as a file of the field 'images'.")
    pictures.counted(len(files), most)
    return files


class _Form(MultiPartParser):
    """Starlette's, without files on the disk: the body is small enough, and the disk may be full."""

    spool_max_size = sys.maxsize


def _expect(request: Request, *kinds: str) -> str:
    given = request.headers.get("content-type", "").lower()
    for kind in kinds:
        if given.split(";")[0].strip() == kind or (kind.endswith("/") and given.startswith(kind)):
            return kind
    raise HTTPException(
        415, f"the content type is not one of {', '.join(kind + '*' * kind.endswith('/') for kind in kinds)}: set it."
    )


def _wanted(request: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, bool]:
    """The outputs that a V2 request asks for, all where it names none; whether each is wanted in binary."""
    parameters: Any = request.get("parameters") or {}
    named: Any = request.get("outputs") or [{"name": name} for name in outputs]
    try:
        all_binary = bool(parameters.get("binary_data_output", False))
        found = {
            output["name"]: bool((output.get("parameters") or {}).get("binary_data", all_binary)) for output in named
        }
        unknown = set(found) - set(outputs)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError("'outputs' or 'parameters' is not as V2 has them: leave them out for all outputs.") from error
    if unknown:
        raise InputError(f"an output is asked for that there is not: ask for {', '.join(outputs)}.")
    return found


def _inferred(name: str, request: Mapping[str, Any], outputs: Mapping[str, bool], found: Answers) -> Response:
    described: list[dict[str, Any]] = []
    after = b""
    for output, binary in outputs.items():
        values = np.ascontiguousarray(found[output])
        tensor = {"name": output, "datatype": contract.DATATYPES[values.dtype.name], "shape": list(values.shape)}
        if binary:
            packed = values.tobytes()
            described.append({**tensor, "parameters": {"binary_data_size": len(packed)}})
            after += packed
        else:
            described.append({**tensor, "data": values.ravel()})
    said: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": described}
    if "id" in request:
        said["id"] = request["id"]
    body = orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY)
    if not after:
        return Response(body, media_type=JSON)
    return Response(body + after, media_type=BINARY, headers={LENGTH: str(len(body))})


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type=JSON)
