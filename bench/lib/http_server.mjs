// flohsync-http and PostgREST, in front of a database of the benchmark's cluster.  They run as
// the user of the PostgreSQL server: flohsync-http refuses to be root.
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { chmodSync, chownSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const SECRET = 'a secret of more than thirty-two bytes';
const POOL = 8;

const part = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

// A token that both servers take.
export function token(role) {
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ aud: 'flohsync', sub: 'bench', role, exp: Math.floor(Date.now() / 1000) + 86400 })}`;
  return `${text}.${createHmac('sha256', SECRET).update(text).digest('base64url')}`;
}

// The roles that they need, once for the cluster, and their rights in a database.
export async function roles(db) {
  await db.run(`do $$ begin
    if to_regrole('flohsync_http') is null then
      create role app_reader; create role app_manager; create role flohsync_http login noinherit;
      grant app_reader, app_manager to flohsync_http;
    end if; end $$`);
  await db.run(`select flohsync.grant_reader('app_reader'); select flohsync.grant_manager('app_manager'); select flohsync.grant_gateway('flohsync_http')`);
}

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

const answers = (port, path) => new Promise((resolve) => {
  http.get({ host: '127.0.0.1', port, path, agent: false }, (response) => { response.resume(); resolve(response.statusCode === 200); }).on('error', () => resolve(false));
});

class Server {
  // program is a file of the folder `programs`; server is "uid:gid".
  static async start({ programs, server }, program, settings, port, ready) {
    const self = new Server();
    const [uid, gid] = server.split(':').map(Number);
    const config = `${programs}/${program}.${port}.conf`;
    writeFileSync(config, settings);
    if (process.getuid() === 0) chmodSync(config, 0o644);
    const log = openSync(`${programs}/${program}.${port}.log`, 'a');
    self.child = spawn(`${programs}/${program}`, program === 'postgrest' ? [config] : ['--config', config], {
      cwd: '/', stdio: ['ignore', log, log], ...(process.getuid() === 0 ? { uid, gid } : {}),
    });
    self.pid = self.child.pid;
    self.port = port;
    process.on('exit', () => self.child.kill('SIGKILL'));
    for (let i = 0; !(await answers(...ready)); i++) {
      if (self.child.exitCode !== null || i === 1200) throw new Error(`${program}: ${readFileSync(`${programs}/${program}.${port}.log`, 'utf8')}`);
      await sleep(50);
    }
    return self;
  }

  async stop() {
    const gone = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    await gone;
  }
}

export async function gateway(where, database, settings = {}) {
  const port = await freePort();
  const secret = `${where.programs}/secret`;
  writeFileSync(secret, SECRET);
  // It must be the server's own: nobody else may read it.
  if (process.getuid() === 0) chownSync(secret, ...where.server.split(':').map(Number));
  chmodSync(secret, 0o600);
  const all = {
    db: `host=${process.env.PGHOST} dbname=${database} user=flohsync_http`, listen: `127.0.0.1:${port}`, roles: 'app_manager app_reader',
    jwt_keys: secret, jwt_audience: 'flohsync', pool_size: POOL, log_level: 'warning', ...settings,
  };
  return Server.start(where, 'flohsync-http', Object.entries(all).map(([k, v]) => `${k} = ${v}\n`).join(''), port, [port, '/ready']);
}

export const hasPostgrest = ({ programs }) => existsSync(`${programs}/postgrest`);

export async function postgrest(where, database) {
  const port = await freePort();
  const admin = await freePort();
  return Server.start(where, 'postgrest', `db-uri = "host=${process.env.PGHOST} dbname=${database} user=flohsync_http"
db-schemas = "flohsync_api, flohsync"
db-pool = ${POOL}
jwt-secret = "${SECRET}"
jwt-aud = "flohsync"
server-host = "127.0.0.1"
server-port = ${port}
admin-server-port = ${admin}
log-level = "crit"
`, port, [admin, '/ready']);
}
