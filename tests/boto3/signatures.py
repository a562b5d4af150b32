"""Signs requests as botocore does, for the comparison in tests/it/boto3.rs.

Reads one JSON case per line from standard input and writes one JSON result per line to standard output. A case is a
URL (`{"url": {...}}`, answered by `{"url": "..."}`) or a form (`{"form": {...}}`, answered by
`{"url": "...", "fields": [[name, value], ...]}`). `now` is an ISO 8601 instant; `expires_in` counts seconds.
"""

import datetime
import functools
import json
import sys
import types

import botocore.auth
from botocore.auth import S3SigV4PostAuth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.utils import percent_encode

# botocore writes its policy with spaces and \u escapes. Both are a matter of taste that the signature covers, so it is
# given the same taste here; everything else in the policy stays botocore's.
botocore.auth.json = types.SimpleNamespace(
    dumps=functools.partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
)


def stop_clock(instant):
    botocore.auth.get_current_datetime = lambda *_args, **_kwargs: instant


def bucket_url(case):
    if case["addressing"] == "path":
        return f"{case['endpoint']}/{case['bucket']}"
    scheme, host = case["endpoint"].split("://")
    return f"{scheme}://{case['bucket']}.{host}/"


def object_url(case):
    # How botocore's serializer fills {Key+} in a path.
    return f"{bucket_url(case).rstrip('/')}/{percent_encode(case['key'], safe='/~')}"


def sign_url(case, credentials, _now):
    request = AWSRequest(
        method=case["method"],
        url=object_url(case),
        params=dict(case["query"]),
        headers=dict(case["headers"]),
    )
    S3SigV4QueryAuth(credentials, "s3", case["region"], expires=case["expires_in"]).add_auth(request)
    return {"url": request.url}


def sign_form(case, credentials, now):
    fields = {
        "key": case["key"],
        "Content-Type": case["content_type"],
        "success_action_status": str(case["success_action_status"]),
    }
    if case["checksum_sha256"] is not None:
        fields["x-amz-checksum-algorithm"] = "SHA256"
        fields["x-amz-checksum-sha256"] = case["checksum_sha256"]
    for name, value in sorted(case["metadata"].items()):
        fields[f"x-amz-meta-{name}"] = value
    expires_at = now + datetime.timedelta(seconds=case["expires_in"])
    length = case["content_length"]
    policy = {
        "expiration": expires_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "conditions": [
            {"bucket": case["bucket"]},
            ["content-length-range", length, length],
            *({name: value} for name, value in fields.items()),
        ],
    }
    request = AWSRequest(method="POST", url=bucket_url(case))
    request.context["s3-presign-post-fields"] = fields
    request.context["s3-presign-post-policy"] = policy
    S3SigV4PostAuth(credentials, "s3", case["region"]).add_auth(request)
    return {"url": request.url, "fields": list(request.context["s3-presign-post-fields"].items())}


SIGNERS = {"url": sign_url, "form": sign_form}


def main():
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    for line in sys.stdin:
        ((kind, case),) = json.loads(line).items()
        now = datetime.datetime.fromisoformat(case["now"])
        stop_clock(now)
        credentials = Credentials(case["access_key_id"], case["secret_access_key"], case["session_token"])
        print(json.dumps(SIGNERS[kind](case, credentials, now), ensure_ascii=False))


if __name__ == "__main__":
    main()
