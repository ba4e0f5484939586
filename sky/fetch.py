"""Fetches one file: python3 sky/fetch.py URL FILE, with https://... or s3://bucket/key.

For S3 the URL is signed here (AWS Signature 4 in the query), with the keys, endpoint and region of
the run, since neither aws nor a recent curl can be counted on. Errors are one line; exit code 1.
"""

import datetime
import hashlib
import hmac
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request


def setting(name, default=""):
    return os.environ.get(name) or default


def address(bucket, key):
    """Scheme and host, and the path, of an object: in the path at an endpoint, in the host at AWS."""
    endpoint = setting("AWS_ENDPOINT_URL_S3", setting("AWS_ENDPOINT_URL")).rstrip("/")
    key = urllib.parse.quote(key, safe="/~")
    if endpoint:
        scheme_host, _, prefix = endpoint.partition("://")[2].partition("/")
        scheme = endpoint.partition("://")[0]
        path = "/".join(part for part in (prefix, bucket, key) if part)
        return f"{scheme}://{scheme_host}", "/" + path
    region = setting("AWS_REGION", "us-east-1")
    return f"https://{bucket}.s3.{region}.amazonaws.com", "/" + key


def presign(bucket, key, now=None):
    """The URL that reads the object for an hour.

    Source: "Authenticating Requests: Using Query Parameters" in the Amazon S3 API reference.
    """
    access, secret = setting("AWS_ACCESS_KEY_ID"), setting("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        sys.exit(f"setup.sh: s3://{bucket}/{key} needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    origin, path = address(bucket, key)
    now = now or datetime.datetime.now(datetime.timezone.utc)
    time, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    scope = f"{day}/{setting('AWS_REGION', 'us-east-1')}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access}/{scope}",
        "X-Amz-Date": time,
        "X-Amz-Expires": "3600",
        "X-Amz-SignedHeaders": "host",
    }
    if setting("AWS_SESSION_TOKEN"):
        query["X-Amz-Security-Token"] = setting("AWS_SESSION_TOKEN")
    text = "&".join(f"{n}={urllib.parse.quote(v, safe='~')}" for n, v in sorted(query.items()))
    host = origin.partition("://")[2]
    request = f"GET\n{path}\n{text}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    signed = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}".encode()
    key_bytes = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key_bytes = hmac.new(key_bytes, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key_bytes, signed, hashlib.sha256).hexdigest()
    return f"{origin}{path}?{text}&X-Amz-Signature={signature}"


HINTS = {
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not this key's secret",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known at this endpoint (AWS_ENDPOINT_URL_S3)",
    "XAdminUserNotFound": "AWS_ACCESS_KEY_ID is not known at this endpoint (AWS_ENDPOINT_URL_S3)",
    "AccessDenied": "this key may not read it",
    "NoSuchBucket": "there is no such bucket at this endpoint (AWS_ENDPOINT_URL_S3)",
    "NoSuchKey": "there is no such object; copy dist/lorry-*.whl there",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
}


def explain(error):
    """One sentence about an HTTP error; S3 says in XML what it was."""
    code = re.search(rb"<Code>(\w+)</Code>", error.read(4096))
    code = code.group(1).decode() if code else ""
    return f"{error.code} {code or error.reason}" + (f": {HINTS[code]}" if code in HINTS else "")


def fetch(source, target):
    s3 = re.fullmatch(r"s3://([^/]+)/(.+)", source)
    if not s3 and not re.match(r"https?://", source):
        sys.exit(f"setup.sh: LORRY_WHEEL: {source} is neither https://... nor s3://bucket/key")
    try:
        with urllib.request.urlopen(presign(*s3.groups()) if s3 else source, timeout=60) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"setup.sh: {source.partition('?')[0]}: {explain(error)}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        sys.exit(f"setup.sh: {source.partition('?')[0]}: no answer ({reason})")
    with open(target, "wb") as file:
        file.write(body)


if __name__ == "__main__":
    fetch(*sys.argv[1:3])
