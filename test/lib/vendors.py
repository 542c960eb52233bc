"""Answers as the services do that templates are for, as far as their manuals
say: paths, parameters and their limits, paging, logins, shapes of records.
Okta, GitHub and SCIM are tested against servers by others as well
(test/t/037_rest_servers.t); of the rest there is none to install.

Listens on 127.0.0.1, prints the port.  /VENDOR/... are the services; /change
changes one user, takes away another and adds one, at all of them.  Whatever a
client gets wrong is a status of 400 or 401 that says so."""
import base64
import json
import re
import sys
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

USERS, GROUPS, CAP = 230, 7, 60  # CAP: pages are never larger, whatever is asked for


class Wrong(Exception):
    def __init__(self, message, status=400):
        super().__init__(message)
        self.status = status


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


OLD = "2024-05-01T10:00:00.000Z"
users = {i: {"n": i, "name": f"User {i}", "gone": False, "at": OLD} for i in range(1, USERS + 1)}


def active():
    return [u for u in users.values() if not u["gone"]]


def members(group):
    return [u for u in active() if u["n"] % GROUPS + 1 == group]


def change():
    users[3].update(name="User 3 renamed", at=now())
    users[5].update(gone=True, at=now())
    users[USERS + 1] = {"n": USERS + 1, "name": f"User {USERS + 1}", "gone": False, "at": now()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.serve("")

    def do_POST(self):
        self.serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())

    def serve(self, body):
        self.extra = []
        try:
            url = urlsplit(self.path)
            self.query = dict(parse_qsl(url.query, keep_blank_values=True))
            self.form = dict(parse_qsl(body))
            self.origin = f"http://{self.headers['Host']}"
            if url.path == "/change":
                change()
                status, answer = 200, {}
            else:
                _, vendor, path = url.path.split("/", 2)
                status, answer = 200, getattr(self, vendor)("/" + path)
        except Wrong as e:
            status, answer = e.status, {"error": str(e), "path": self.path}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in self.extra:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def want(self, header, value):
        if self.headers.get(header) != value:
            raise Wrong(f"{header} is {self.headers.get(header)}", 401)

    def only(self, *names):
        for name in self.query:
            if name not in names:
                raise Wrong(f"unknown parameter {name}")

    def size(self, name, most):
        asked = int(self.query.get(name) or CAP)
        if not 1 <= asked <= most:
            raise Wrong(f"{name} must be 1 to {most}")
        return min(asked, CAP)

    def need(self, **wanted):
        for name, value in wanted.items():
            if self.form.get(name) != value:
                raise Wrong(f"{name} is {self.form.get(name)}", 401)

    # A page that begins at a position: the records, and where the next begins.
    def slice(self, items, at, size):
        return items[at:at + size], at + size if at + size < len(items) else None

    def link_pages(self, items, size, path, param):
        page, after = self.slice(items, int(self.query.get(param) or 0), size)
        keep = "&".join(f"{k}={v}" for k, v in self.query.items() if k not in (param, "filter"))
        if self.query.get("filter"):
            from urllib.parse import quote
            keep += "&filter=" + quote(self.query["filter"])
        self.extra.append(("Link", f'<{self.origin}{path}?{keep}>; rel="self"'))
        if after is not None:
            self.extra.append(("Link", f'<{self.origin}{path}?{keep}&{param}={after}>; rel="next"'))
        return page

    def okta(self, path):
        self.want("Authorization", "SSWS okta-secret")
        self.extra += [("X-Rate-Limit-Limit", "600"), ("X-Rate-Limit-Remaining", "599"),
                       ("X-Rate-Limit-Reset", str(int(datetime.now().timestamp()) + 60))]
        self.only("limit", "after", "filter")
        size = self.size("limit", 200)

        def user(u):
            return {"id": f"00u{u['n']}", "status": "DEPROVISIONED" if u["gone"] else "ACTIVE", "lastUpdated": u["at"],
                    "lastLogin": now(), "profile": {"login": f"u{u['n']}@acme.example", "email": f"u{u['n']}@acme.example",
                                                    "displayName": u["name"], "department": "R&D"},
                    "_links": {"self": {"href": self.origin}}}

        found = re.findall(r'lastUpdated gt "([^"]*)"', self.query.get("filter") or "")
        if path == "/api/v1/users":
            # Deactivated users are listed only to who asks for their status.
            items = [u for u in users.values() if (not u["gone"] or 'status eq "DEPROVISIONED"' in self.query.get("filter", ""))
                     and (not found or u["at"] > found[0])]
            return self.link_pages([user(u) for u in items], size, "/okta" + path, "after")
        if path == "/api/v1/groups":
            items = [{"id": f"00g{g}", "lastUpdated": OLD, "type": "OKTA_GROUP", "profile": {"name": f"Group {g}"},
                      "_links": {}} for g in range(1, GROUPS + 1) if not found or OLD > found[0]]
            return self.link_pages(items, size, "/okta" + path, "after")
        if match := re.fullmatch(r"/api/v1/groups/00g(\d+)/users", path):
            return self.link_pages([user(u) for u in members(int(match[1]))], size, "/okta" + path, "after")
        raise Wrong("not found", 404)

    def graph_login(self, path):
        if path != "/contoso/oauth2/v2.0/token":
            raise Wrong("no such tenant", 401)
        self.need(grant_type="client_credentials", client_id="app", client_secret="entra-secret", scope="https://graph.microsoft.com/.default")
        return {"token_type": "Bearer", "expires_in": 3599, "access_token": "graph-token"}

    def graph(self, path):
        self.want("Authorization", "Bearer graph-token")
        self.only("$select", "$top", "$skiptoken", "$deltatoken")
        path = path.removeprefix("/v1.0")
        keys = self.query.get("$select", "id,displayName").split(",")
        link = f"{self.origin}/graph/v1.0{path}?$select={','.join(keys)}"

        def user(u):
            whole = {"id": f"e{u['n']}", "displayName": u["name"], "mail": f"u{u['n']}@acme.example",
                     "userPrincipalName": f"u{u['n']}@acme.onmicrosoft.com", "accountEnabled": True, "department": None}
            return {k: v for k, v in whole.items() if k in keys}

        def group(g):
            return {k: v for k, v in {"id": f"eg{g}", "displayName": f"Group {g}", "mail": None, "groupTypes": []}.items() if k in keys}

        if path.endswith("/delta"):
            if "$top" in self.query:
                raise Wrong("$top is not supported here")
            if since := self.query.get("$deltatoken"):
                items = [{"id": f"e{u['n']}", "@removed": {"reason": "changed"}} if u["gone"] else
                         user(u) if u["n"] > USERS else {"id": f"e{u['n']}", "displayName": u["name"]}
                         for u in users.values() if path == "/users/delta" and u["at"] > since]
                return {"value": items, "@odata.deltaLink": f"{link}&$deltatoken={now()}"}
            items = [user(u) for u in active()] if path == "/users/delta" else [group(g) for g in range(1, GROUPS + 1)]
            size, end = CAP, {"@odata.deltaLink": f"{link}&$deltatoken={now()}"}
        elif match := re.fullmatch(r"/users/e(\d+)", path):
            for u in active():
                if u["n"] == int(match[1]):
                    return {"@odata.context": "x", **user(u)}
            raise Wrong("Request_ResourceNotFound", 404)
        else:
            size, end = self.size("$top", 999), {}
            if path == "/users":
                items = [user(u) for u in active()]
            elif path == "/groups":
                items = [group(g) for g in range(1, GROUPS + 1)]
            elif match := re.fullmatch(r"/groups/eg(\d+)/members", path):
                items = [user(u) for u in members(int(match[1]))]
            else:
                raise Wrong("not found", 404)
        token = self.query.get("$skiptoken")
        if token is None:  # the first page of a list is empty, and goes on
            return {"@odata.context": "x", "value": [], "@odata.nextLink": f"{link}&$skiptoken=0"}
        page, after = self.slice(items, int(token), size)
        return {"value": page, **({"@odata.nextLink": f"{link}&$skiptoken={after}"} if after else end)}

    def google_login(self, path):
        self.need(grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer")
        claims = json.loads(base64.urlsafe_b64decode(self.form["assertion"].split(".")[1] + "=="))
        if (claims["iss"], claims["sub"]) != ("sync@p.iam.gserviceaccount.com", "admin@acme.example") or \
                "admin.directory.user.readonly" not in claims["scope"] or claims["aud"] != f"{self.origin}/google_login/token":
            raise Wrong(f"claims {claims}", 401)
        return {"access_token": "google-token", "expires_in": 3599, "token_type": "Bearer"}

    def google(self, path):
        self.want("Authorization", "Bearer google-token")
        self.only("customer", "projection", "maxResults", "pageToken")
        path = path.removeprefix("/admin/directory/v1")
        if path in ("/users", "/groups") and self.query.get("customer") != "my_customer":
            raise Wrong("customer or domain is required")
        if path == "/users":
            name, most = "users", 500
            items = [{"kind": "k", "id": str(10 ** 20 + u["n"]), "etag": now(), "primaryEmail": f"u{u['n']}@acme.example",
                      "name": {"fullName": u["name"]}, "lastLoginTime": now(), "suspended": False} for u in active()]
        elif path == "/groups":
            name, most = "groups", 200
            items = [{"id": f"g{g}", "etag": now(), "email": f"g{g}@acme.example", "name": f"Group {g}"} for g in range(1, GROUPS + 2)]
        elif match := re.fullmatch(r"/groups/g(\d+)/members", path):
            name, most = "members", 200
            items = [{"id": str(10 ** 20 + u["n"]), "email": f"u{u['n']}@acme.example", "role": "MEMBER", "etag": now()}
                     for u in members(int(match[1]))]
        else:
            raise Wrong("not found", 404)
        page, after = self.slice(items, int(self.query.get("pageToken") or 0), self.size("maxResults", most))
        # An empty list is not there at all.
        return {"kind": "k", "etag": now(), **({name: page} if page else {}), **({"nextPageToken": str(after)} if after else {})}

    def github(self, path):
        self.want("Authorization", "Bearer github-secret")
        self.want("X-GitHub-Api-Version", "2022-11-28")
        if not self.headers.get("User-Agent"):
            raise Wrong("a User-Agent is required", 403)
        self.only("per_page", "page")
        self.extra += [("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", str(int(datetime.now().timestamp()) + 3600))]
        size, at = self.size("per_page", 100), int(self.query.get("page") or 1)

        def user(u):
            return {"login": f"u{u['n']}", "id": 583000 + u["n"], "type": "User", "site_admin": False, "gravatar_id": now()}

        if path == "/orgs/acme/members":
            items = [user(u) for u in active()]
        elif path == "/orgs/acme/teams":
            items = [{"id": g, "name": f"Group {g}", "slug": f"group-{g}", "members_url": now()} for g in range(1, GROUPS + 1)]
        elif match := re.fullmatch(r"/orgs/acme/teams/group-(\d+)/members", path):
            items = [user(u) for u in members(int(match[1]))]
        else:
            raise Wrong("not found", 404)
        page, after = self.slice(items, (at - 1) * size, size)
        if after:
            link = f"<{self.origin}/github{path}?per_page={size}&page="
            self.extra.append(("Link", f'{link}{at + 1}>; rel="next", {link}{-(-len(items) // size)}>; rel="last"'))
        return page

    def keycloak(self, path):
        if path == "/realms/acme/protocol/openid-connect/token":
            self.need(grant_type="client_credentials", client_id="flohsync", client_secret="keycloak-secret")
            return {"access_token": "keycloak-token", "expires_in": 300, "token_type": "Bearer"}
        self.want("Authorization", "Bearer keycloak-token")
        self.only("first", "max", "briefRepresentation")
        path = path.removeprefix("/admin/realms/acme")

        def user(u):
            return {"id": f"k{u['n']}", "username": f"u{u['n']}", "email": f"u{u['n']}@acme.example", "enabled": True,
                    "attributes": {"displayName": [u["name"]]}, "access": {"view": now()}}

        if path == "/users":
            items = [user(u) for u in active()]
        elif path == "/groups":
            items = [{"id": f"kg{g}", "name": f"Group {g}", "path": f"/Group {g}", "subGroups": [], "access": {"view": now()}} for g in range(1, GROUPS + 1)]
        elif path == "/roles":
            items = [{"id": "kr1", "name": "offline_access", "composite": False}]
        elif match := re.fullmatch(r"/groups/kg(\d+)/members", path):
            items = [user(u) for u in members(int(match[1]))]
        else:
            raise Wrong("not found", 404)
        return self.slice(items, int(self.query.get("first") or 0), min(int(self.query.get("max") or 100), CAP))[0]

    def authifi(self, path):
        self.want("Authorization", "Bearer authifi-secret")
        self.only("pageSize", "cursor")
        if path == "/users":
            items = [{"externalId": f"a{u['n']}", "displayName": u["name"], "email": f"u{u['n']}@acme.example",
                      "attributes": {"department": "R&D"}} for u in active()]
        else:
            items = [{"externalId": f"ag{g}", "displayName": f"Group {g}", "attributes": {}} for g in range(1, GROUPS + 1)]
        page, after = self.slice(items, int(self.query.get("cursor") or 0), self.size("pageSize", 500))
        return {"resources": page, "nextCursor": str(after) if after else None, "totalEstimate": len(items)}

    def scim(self, path):
        self.want("Authorization", "Bearer scim-secret")
        self.only("startIndex", "count", "filter")
        if "application/scim+json" not in self.headers.get("Accept", ""):
            raise Wrong("not acceptable", 406)
        found = re.fullmatch(r'meta\.lastModified gt "([^"]*)"', self.query.get("filter") or "")
        if path == "/scim/v2/Users":
            items = [{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": f"s{u['n']}", "userName": f"u{u['n']}",
                      "displayName": u["name"], "active": True, "meta": {"lastModified": u["at"], "version": now()},
                      "emails": [{"value": f"alias{u['n']}@acme.example"}, {"value": f"u{u['n']}@acme.example", "primary": True}]}
                     for u in active() if not found or u["at"] > found[1]]
        else:
            items = [{"id": f"sg{g}", "displayName": f"Group {g}", "members": [{"value": f"s{u['n']}"} for u in members(g)]}
                     for g in range(1, GROUPS + 1) if not found]
        page, _ = self.slice(items, int(self.query.get("startIndex") or 1) - 1, self.size("count", 1000))
        return {"schemas": [], "totalResults": len(items), "startIndex": 1, "itemsPerPage": len(page), **({"Resources": page} if page else {})}


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
