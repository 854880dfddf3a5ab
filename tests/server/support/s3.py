"""An S3 server on this machine: moto's, which checks no signatures, behind a check of them.

The signatures are computed by botocore, not by what made them.
"""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY_ID: Final = "tilewire"
SECRET: Final = "not-a-secret"
REGION: Final = "eu-central-1"
BUCKET: Final = "pictures"


class S3:
    """The server, which may be stopped and started again; its objects stay.

    Attributes:
        url: the endpoint, the same after each start.
        environment: what gives a client of this server its endpoint and credentials.
        client: boto3's, which is not what is tested.
        ahead: by how many seconds its clock is ahead.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._port = 0
        self.ahead = 0.0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )
        # Tried again by boto3 on a busy machine, the second try finds the bucket of the first.
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    def start(self) -> None:
        self._server = make_server("127.0.0.1", self._port, self._checked, threaded=True)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def keys(self) -> set[str]:
        """The names of all objects."""
        return {found["Key"] for found in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())}

    def object(self, key: str) -> Any:
        return self.client.get_object(Bucket=BUCKET, Key=key)

    def empty(self) -> None:
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)

    def _checked(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION"):
            refusal = (
                None if f"Credential={KEY_ID}/" in environ["HTTP_AUTHORIZATION"] else "InvalidAccessKeyId"
            )
        else:
            refusal = _fault_of_signature(environ, time.time() + self.ahead)
        if refusal is None:
            app: Callable[..., Iterable[bytes]] = self._app
            return app(environ, start)
        body = f"<Error><Code>{refusal}</Code><Message>This request is refused.</Message></Error>".encode()
        start("403 Forbidden", [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
        return [body]


def _fault_of_signature(environ: WSGIEnvironment, now: float) -> str | None:
    """What is wrong with a presigned URL (AWS Signature Version 4, in the query); None if nothing."""
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    signature = query.pop("X-Amz-Signature", None)
    if signature is None:
        return "AccessDenied"
    lifetime = int(query["X-Amz-Expires"])
    signed = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%S%z").timestamp()
    if not 1 <= lifetime <= 7 * 86400:
        return "AuthorizationQueryParametersError"
    if now >= signed + lifetime:
        return "ExpiredToken"
    url = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}?{urlencode(query)}"
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers={"host": environ["HTTP_HOST"]})
    request.context["timestamp"] = query["X-Amz-Date"]
    auth = S3SigV4QueryAuth(Credentials(KEY_ID, SECRET), "s3", REGION)
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return None if signature == expected else "SignatureDoesNotMatch"


@contextmanager
def running_s3() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.stop()
