"""What the OpenAPI document says of each route: bodies are read by hand, for speed, so they are described by hand."""

from typing import TYPE_CHECKING, Any

from luring.serve.settings import Settings

if TYPE_CHECKING:
    from luring.serve.app import Served

DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "bool": "BOOL"}
"""V2's names, by numpy's."""
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One sentence: what was wrong, and what to do."}},
    "required": ["error"],
}
REFUSALS = {
    400: "The request cannot be understood.",
    405: "Another method.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "Another content type.",
    429: "Too many requests from this address.",
    503: "Busy: see Retry-After.",
    504: "No answer in time.",
}


def _nested(shape: tuple[int, ...]) -> dict[str, Any]:
    """Nested lists of that shape, of numbers in [0, 1]."""
    found: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
    for size in reversed(shape):
        found = {"type": "array", "items": found, "minItems": size, "maxItems": size}
    return found


def _responses(
    schema: dict[str, Any], settings: Settings, kind: str = "application/json"
) -> dict[int | str, dict[str, Any]]:
    refused = {"application/json": {"schema": ERROR}}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer.", "content": {kind: {"schema": schema}}}
    }
    said = REFUSALS if settings.token is None else REFUSALS | {401: "No token, or not the right one."}
    return answers | {status: {"description": text, "content": refused} for status, text in said.items()}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def predict(settings: Settings, served: "Served") -> dict[str, Any]:
    """Of `/predict`."""
    lists = {"type": "array", "items": _nested(served.shape), "minItems": 1, "maxItems": settings.batch}
    files = {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1, "maxItems": settings.batch}
    form = _object(images={"type": "array", "items": {"type": "string", "format": "binary"}})
    picture = {"schema": {"type": "string", "format": "binary"}}
    bodies = {
        "application/json": {"schema": _object(images={"oneOf": [lists, files]})},
        "multipart/form-data": {"schema": form},
        "image/png": picture,
        "image/jpeg": picture,
    }
    answer = _object(predictions={"type": "array", "items": {"type": "object"}})
    return {
        "responses": _responses(answer, settings),
        "openapi_extra": {"requestBody": {"required": True, "content": bodies}},
    }


def infer(settings: Settings, served: "Served") -> dict[str, Any]:
    """Of V2's `infer`."""
    flat = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}}
    n = {"type": "integer", "minimum": 1, "maximum": settings.batch}
    sizes = [{"type": "integer", "const": size} for size in served.shape]
    shape = {"type": "array", "prefixItems": [n, *sizes], "items": False, "minItems": 4, "maxItems": 4}
    tensor = _object(
        name={"const": "images"}, datatype={"const": "FP32"}, shape=shape, data={"oneOf": [flat, {"type": "array"}]}
    )
    body = _object(inputs={"type": "array", "items": tensor, "minItems": 1, "maxItems": 1})
    body["properties"] |= {"id": {"type": "string"}}
    output = _object(
        name={"enum": list(served.outputs)},
        datatype={"enum": [kind for kind, _ in served.outputs.values()]},
        shape={"type": "array", "items": {"type": "integer"}},
    )
    answer = _object(
        model_name={"const": settings.name},
        model_version={"type": "string"},
        outputs={"type": "array", "items": output},
    )
    content = {"application/json": {"schema": body}}
    return {
        "responses": _responses(answer, settings),
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def plain(settings: Settings, field: str, kind: str) -> dict[str, Any]:
    """Of a route that answers with a JSON object."""
    return {"responses": _responses(_object(**{field: {"type": kind}}), settings)}


def ready(settings: Settings, field: str) -> dict[str, Any]:
    """Of a health check, whose 503 has the same form."""
    schema = _object(**{field: {"type": "boolean"}})
    responses = _responses(schema, settings)
    responses[503] = {
        "description": "Not ready.",
        "content": {"application/json": {"schema": {"anyOf": [schema, ERROR]}}},
    }
    return {"responses": responses}


def text(settings: Settings) -> dict[str, Any]:
    """Of the metrics."""
    return {"responses": _responses({"type": "string"}, settings, "text/plain")}
