// Preloaded (node --require) into servers that would listen on every address,
// or that miss a global which Node.js 18 does not have yet.
"use strict";
const net = require("node:net");
const listen = net.Server.prototype.listen;

globalThis.crypto ??= require("node:crypto").webcrypto;

net.Server.prototype.listen = function (...args) {
  const host = "127.0.0.1";
  if (args[0] !== null && typeof args[0] === "object" && args[0].path === undefined) {
    args[0] = { ...args[0], host };
  } else if (typeof args[0] === "number" || /^\d+$/.test(args[0])) {
    const done = args.find((x) => typeof x === "function");
    args = [{ port: Number(args[0]), host }, ...(done ? [done] : [])];
  }
  return listen.apply(this, args);
};
