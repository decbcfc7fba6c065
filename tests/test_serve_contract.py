"""The OpenAPI documents hold: schemathesis makes requests out of them and beside them, and looks whether the answers are as they say."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import positive_data_acceptance

from luring.serve import decision, decoy
from luring.serve.settings import Settings
from serving import TOKEN

HEADERS = {"authorization": f"Bearer {TOKEN}"}
# The document cannot say that as many numbers come as the shape asks for, nor that base64 is that of a picture.
UNSAYABLE = [positive_data_acceptance]


@pytest.mark.parametrize("surface", ["decoy", "decision"])
def test_answers_are_as_the_document_says(calibrated, tmp_path, surface):
    given_settings = Settings(surface, calibrated, surface, "127.0.0.1", 0, batch=2, queue=64, log=tmp_path / "log")
    if surface == "decision":
        application = decision.app(Settings(**vars(given_settings) | {"token": TOKEN}))
    else:
        application = decoy.app(given_settings)
    statuses: dict[str, set[int]] = {}
    with asgi.get_client(application) as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json", headers=HEADERS).json())
        schema.app = application
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) == 9
        for operation in operations:
            reads = operation.method == "post"
            for mode in list(GenerationMode) if reads else [GenerationMode.POSITIVE]:
                many = settings(
                    deadline=None,
                    max_examples=25 if reads else 1,
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                )

                @many
                @given(case=operation.as_strategy(generation_mode=mode))
                def check(case):
                    answer = case.call_and_validate(session=client, headers=HEADERS, excluded_checks=UNSAYABLE)
                    statuses.setdefault(case.operation.label, set()).add(answer.status_code)
                    assert answer.status_code < 500
                    if answer.status_code >= 400:
                        assert list(answer.json()) == ["error"]

                check()
            if reads:
                images = [[[[0.5] * 8] * 8]]
                tensor = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": images}
                body = {"images": images} if operation.path == "/predict" else {"inputs": [tensor]}
                whole = operation.Case(body=body, media_type="application/json")
                assert whole.call_and_validate(session=client, headers=HEADERS).status_code == 200
    for label, seen in statuses.items():
        assert seen == {200} if label.startswith("GET") else 400 in seen, (label, seen)
