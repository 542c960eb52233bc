"""Judges answers of HTTP by an OpenAPI document: argument: the document; standard input: an
answer a line, {"method", "path", "status", "headers", "body" (base64)}; standard output: for
each a line, an array of what is wrong with it.  {"schema", "value"} is a value for a schema
of the document.  It goes by an implementation of JSON Schema that is not ours."""
import base64
import datetime
import json
import re
import sys
import uuid

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
formats = jsonschema.FormatChecker(formats=())


@formats.checks("uuid", raises=ValueError)
def is_uuid(value):
    return not isinstance(value, str) or str(uuid.UUID(value)) == value


@formats.checks("date-time", raises=ValueError)
def is_time(value):
    if isinstance(value, str):
        datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")
    return True


@formats.checks("int32")
def is_int32(value):
    return not isinstance(value, int) or -(2**31) <= value < 2**31


@formats.checks("int64")
def is_int64(value):
    return not isinstance(value, int) or -(2**63) <= value < 2**63


resolver = jsonschema.RefResolver("", document)
error_response = {"$ref": "#/components/responses/Error"}
# What a status must come with, whatever the document says.
NEEDED = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}


def resolved(node):
    while "$ref" in node:
        node = resolver.resolve(node["$ref"])[1]
    return node


def operation(method, path):
    """The operation that answers; literal segments come before parameters."""
    segments = path.split("/")
    fits = []
    for pattern, operations in document["paths"].items():
        parts = pattern.split("/")
        if len(parts) == len(segments) and all(
            p == s or (p.startswith("{") and s != "") for p, s in zip(parts, segments)
        ):
            fits.append((sum(p.startswith("{") for p in parts), operations))
    for _, operations in sorted(fits, key=lambda f: f[0]):
        return operations.get("get" if method == "HEAD" else method.lower())
    return None


def body_faults(response, media, body):
    content = response.get("content")
    if content is None:
        if body:
            yield "it has a body"
        return
    media = media.split(";")[0].strip().lower()
    if media not in content:
        yield f"its Content-Type is {media!r}"
        return
    if media != "application/json":
        return
    try:
        value = json.loads(body)
    except ValueError as error:
        yield f"its body is no JSON: {error}"
        return
    yield from value_faults(content[media]["schema"], value)


def value_faults(schema, value):
    validator = jsonschema.Draft202012Validator(schema, resolver=resolver, format_checker=formats)
    for error in validator.iter_errors(value):
        while error.context:
            error = jsonschema.exceptions.best_match([error])
            if not error.context:
                break
            error = error.context[0]
        yield f"/{'/'.join(str(p) for p in error.absolute_path)}: {error.message}"[:500]


def faults(answer):
    if "schema" in answer:
        yield from value_faults(
            {"$ref": f"#/components/schemas/{answer['schema']}"}, answer["value"]
        )
        return
    method, status = answer["method"], answer["status"]
    path = answer["path"].split("?")[0].split("#")[0]
    headers = {k.lower(): v for k, v in answer["headers"].items()}
    found = operation(method, path.rstrip("/") or "/")
    if method == "OPTIONS" and status == 204:
        return
    if found is None:
        if status < 400:
            yield "the document has no such operation"
            return
        response = error_response
    else:
        response = found["responses"].get(str(status))
        if response is None:
            if status < 400:
                yield f"status {status} is not in the document"
                return
            response = found["responses"]["default"]
    response = resolved(response)
    for name, header in response.get("headers", {}).items():
        header = resolved(header)
        value = headers.get(name.lower())
        if value is None:
            if header.get("required"):
                yield f"it has no header {name}"
        elif header["schema"].get("type") == "integer" and not re.fullmatch("[0-9]+", value):
            yield f"its header {name} is no number: {value!r}"
    if status in NEEDED and NEEDED[status].lower() not in headers:
        yield f"it has no header {NEEDED[status]}"
    body = base64.b64decode(answer["body"])
    if method == "HEAD":
        if body:
            yield "it has a body"
        return
    yield from body_faults(response, headers.get("content-type", ""), body)


for line in sys.stdin:
    print(json.dumps(list(faults(json.loads(line)))), flush=True)
