// A database of the benchmark's cluster: a connection, and what every
// measurement needs around it.
import { readFileSync } from 'node:fs';
import pg from 'pg';

pg.types.setTypeParser(pg.types.builtins.INT8, Number);
pg.types.setTypeParser(pg.types.builtins.NUMERIC, Number);

const here = new URL('../baselines/', import.meta.url);

export class Database {
  static async connect(name) {
    const db = new Database();
    db.name = name;
    db.client = new pg.Client({ host: process.env.PGHOST, user: process.env.PGUSER, database: name });
    await db.client.connect();
    db.pid = (await db.one('select pg_backend_pid()')).pg_backend_pid;
    return db;
  }

  // A fresh database with the extension, and a connector "upstream".  Its users are
  // synced as a type of their own: those of type user would be matched as well.
  static async create(name, upstream) {
    const admin = await Database.connect('postgres');
    await admin.run(`drop database if exists ${name} with (force)`);
    await admin.run(`create database ${name}`);
    await admin.close();
    const db = await Database.connect(name);
    await db.run('create extension flohsync cascade');
    await db.rows(`select flohsync.create_connector('upstream', 'command', jsonb_build_object('url', $1::text, 'commandNames', jsonb_build_object('record', 'listUsers')))`, [upstream.url]);
    await db.rows(`select flohsync.configure_sync('upstream', 'record', '{}')`);
    db.connector = (await db.one('select id from flohsync.connector_definition')).id;
    return db;
  }

  async drop() {
    await this.close();
    const admin = await Database.connect('postgres');
    await admin.run(`drop database ${this.name} with (force)`);
    await admin.close();
  }

  async close() {
    await this.side?.close();
    await this.client.end();
  }

  // A second connection, for what is read while the first one is busy.
  async aside() {
    return (this.side ??= await Database.connect(this.name));
  }

  async rows(sql, values) {
    return (await this.client.query(sql, values)).rows;
  }

  async one(sql, values) {
    return (await this.rows(sql, values))[0];
  }

  run(sql) {
    return this.client.query(sql);
  }

  // A file of baselines/.
  load(file) {
    return this.run(readFileSync(new URL(file, here), 'utf8'));
  }

  // As a pass finds its tables some time after the one before: vacuumed, and behind a checkpoint.
  async settle(...tables) {
    for (const table of tables) await this.run(`vacuum analyze ${table}`);
    await this.run('checkpoint');
  }

  async walPosition() {
    return (await this.one(`select pg_current_wal_insert_lsn() - '0/0' as bytes`)).bytes;
  }

  // What has been written to a table so far, and its size with all indexes.
  async tableState(table) {
    return this.one(
      `select n_tup_ins + n_tup_upd + n_tup_del as written, n_dead_tup as dead, pg_total_relation_size(relid) as bytes
         from pg_stat_all_tables where relid = $1::regclass`, [table]);
  }
}
