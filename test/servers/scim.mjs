// A SCIM 2.0 directory by SCIMMY: node scim.mjs PORT USERS TOKEN
import express from "express";
import SCIMMY from "scimmy";
import SCIMMYRouters from "scimmy-routers";

const [port, count, token] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
let last = 0;

// The handlers of a resource type over a Map.
function directory(records) {
  const get = (id) => {
    if (!records.has(id)) throw new SCIMMY.Types.Error(404, null, `no resource ${id}`);
    return records.get(id);
  };
  return {
    egress: (resource) => {
      if (resource.id) return get(resource.id);
      const all = [...records.values()];
      return resource.filter ? resource.filter.match(all) : all;
    },
    ingress: (resource, data) => {
      const now = new Date().toISOString();
      const id = resource.id ?? String(++last);
      const created = resource.id ? get(id).meta.created : now;
      const record = { ...data, id, meta: { ...data.meta, created, lastModified: now } };
      records.set(id, record);
      return record;
    },
    degress: (resource) => {
      get(resource.id);
      records.delete(resource.id);
    },
  };
}

const users = new Map();
const groups = new Map();
const long_ago = "2024-01-01T00:00:00.000Z";

for (let i = 1; i <= count; i++) {
  const id = String(++last);
  users.set(id, {
    id,
    userName: `u${i}@acme.test`,
    displayName: `User ${i}`,
    name: { givenName: "User", familyName: String(i) },
    active: true,
    emails: [
      { value: `home${i}@acme.test`, type: "home" },
      { value: `u${i}@acme.test`, type: "work", primary: true },
    ],
    meta: { created: long_ago, lastModified: long_ago },
  });
}
for (let i = 1; i <= 25; i++) {
  const id = `g${i}`;
  groups.set(id, {
    id,
    displayName: `Group ${i}`,
    members: [{ value: String(i) }],
    meta: { created: long_ago, lastModified: long_ago },
  });
}

SCIMMY.Resources.declare(SCIMMY.Resources.User, directory(users));
SCIMMY.Resources.declare(SCIMMY.Resources.Group, directory(groups));
SCIMMY.Resources.User.extend(SCIMMY.Schemas.EnterpriseUser, false);

const app = express();
app.use("/scim/v2", new SCIMMYRouters({
  type: "bearer",
  handler: (request) => {
    if (request.header("Authorization") !== `Bearer ${token}`) throw new Error("bad token");
    return "sync";
  },
}));
app.listen(port, "127.0.0.1");
