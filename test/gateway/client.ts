// client.ts: a client whose types are generated from the OpenAPI document (api.d.ts); URL,
// MANAGER, READER, UPSTREAM and USER in the environment.  Below "@ts-expect-error" are calls
// that must not compile.
import createClient from 'openapi-fetch';
import type { components, paths } from './api.js';
import { check, is } from './check.mjs';

const env = (name: string): string => process.env[name] ?? '';
const client = createClient<paths>({ baseUrl: env('URL'), headers: { Authorization: `Bearer ${env('MANAGER')}` } });
const reader = createClient<paths>({ baseUrl: env('URL'), headers: { Authorization: `Bearer ${env('READER')}` } });

type Match = components['schemas']['Match'];

const { data: me } = await reader.GET('/api/me');
is(me?.permissions, ['connector:read'], 'who asks');

const created = await client.POST('/api/connectors', {
  body: { name: 'typed', kind: 'command', config: { url: env('UPSTREAM'), commands: ['listUsers'] } },
});
const id: string = created.data?.id ?? 'none';
is(created.data?.resourceTypes, ['user'], 'a connector is created');
const of = { path: { id, type: 'user' } };

const configured = await client.PUT('/api/connectors/{id}/sync-config/{type}', {
  params: of,
  body: { strategy: 'full', userMatchStrategy: 'email', attributeMappings: [{ sourcePath: 'attributes.department', targetField: 'department' }] },
});
is(configured.response.status, 201, 'a configuration is new');
const minRecords: number | null | undefined = configured.data?.safeguards.minRecords;
is(minRecords, 10, 'and has its defaults');

const triggered = await client.POST('/api/connectors/{id}/sync-config/{type}/trigger', { params: of, body: { strategy: 'full' } });
check(triggered.data !== undefined && 'stats' in triggered.data && triggered.data.stats?.added === 60, 'a run is awaited', triggered);
const later = await client.POST('/api/connectors/{id}/sync-config/{type}/trigger', {
  params: { ...of, query: { wait: false } },
});
const runId = later.data && 'runId' in later.data ? later.data.runId : undefined;
check(typeof runId === 'number', 'or asked for', later);
for (;;) {
  const { data: run, error } = await client.GET('/api/connectors/{id}/runs/{runId}', { params: { path: { id, runId: runId ?? 0 } } });
  if (error || (run.status !== 'queued' && run.status !== 'running')) {
    is(run?.status, 'success', 'and looked after');
    break;
  }
}

const page = await reader.GET('/api/connectors/{id}/resources', { params: { path: { id }, query: { type: 'user', pageSize: 5, stale: false } } });
is([page.data?.data.length, page.data?.total], [5, 60], 'records are listed');
const first = page.data?.data[0];
const record = await reader.GET('/api/connectors/{id}/resources/{type}/{externalId}', {
  params: { path: { ...of.path, externalId: first?.externalId ?? '' } },
});
is(record.data, first, 'and read');

const matches = await reader.GET('/api/connectors/{id}/sync-matches', { params: { path: { id }, query: { type: 'user', status: 'unmatched' } } });
const match: Match | undefined = matches.data?.data[0];
const resolved = await client.POST('/api/connectors/{id}/sync-matches/{matchId}/resolve', {
  params: { path: { id, matchId: match?.id ?? '' } },
  body: { action: 'link', userId: env('USER'), notes: 'by hand' },
});
is(resolved.data?.matchStatus, 'manual_override', 'a match is resolved');
const stats = await reader.GET('/api/connectors/{id}/sync-matches/stats', { params: { path: { id }, query: { type: 'user' } } });
is(stats.data?.manualOverride, 1, 'and counted');
const bulk = await client.POST('/api/connectors/{id}/sync-matches/bulk-resolve', {
  params: { path: { id } },
  body: { matchIds: matches.data?.data.slice(1, 4).map((m) => m.id) ?? [], action: 'skip' },
});
is(bulk.data, { failed: [], updated: 3, notFound: [] } as typeof bulk.data, 'several at once');
const unlinked = await client.POST('/api/connectors/{id}/sync-matches/{matchId}/unlink', { params: { path: { id, matchId: match?.id ?? '' } } });
is(unlinked.data?.userId, null, 'and taken apart');

const jobs = await reader.GET('/api/jobs', { params: { query: { pageSize: 1 } } });
is(jobs.data?.data[0]?.connector, 'typed', 'schedules');
const runs = await reader.GET('/api/runs', { params: { query: { connector: 'typed', status: 'success' } } });
is(runs.data?.total, 2, 'runs of all connectors');
const templates = await reader.GET('/api/connectors/templates');
check((templates.data?.length ?? 0) > 3, 'templates');
const faults = await reader.POST('/api/connectors/validate-definition', { body: { version: 1 } });
check(faults.data?.some((f) => f.pointer === '/base_url') ?? false, 'faults of a definition', faults);
const health = await reader.GET('/api/health');
is(health.data?.database, 'primary', 'health');

const refused = await reader.DELETE('/api/connectors/{id}', { params: { path: { id } } });
is([refused.response.status, refused.error?.code], [403, '42501'], 'an error has its type');
const missing = await client.GET('/api/connectors/{id}', { params: { path: { id: 'none' } } });
is([missing.response.status, missing.error?.code], [404, '42704'], 'so has another one');
const gone = await client.DELETE('/api/connectors/{id}', { params: { path: { id } } });
is(gone.response.status, 204, 'the connector is removed');

// Never called
export async function wrong(): Promise<void> {
  // @ts-expect-error: there is no such path
  await client.GET('/api/connector');
  // @ts-expect-error: nor this method of it
  await client.DELETE('/api/connectors');
  // @ts-expect-error: a parameter of the path is missing
  await client.GET('/api/connectors/{id}', {});
  // @ts-expect-error: a parameter of the query is missing
  await client.GET('/api/connectors/{id}/sync-matches', { params: { path: { id } } });
  // @ts-expect-error: one is not known
  await client.GET('/api/connectors', { params: { query: { size: 5 } } });
  // @ts-expect-error: one has another type
  await client.GET('/api/connectors', { params: { query: { pageSize: 'many' } } });
  // @ts-expect-error: a value that there is not
  await client.GET('/api/runs', { params: { query: { status: 'done' } } });
  // @ts-expect-error: a required member of the body is missing
  await client.POST('/api/connectors', { body: { name: 'x' } });
  // @ts-expect-error: a value that a setting does not have
  await client.PUT('/api/connectors/{id}/sync-config/{type}', { params: of, body: { strategy: 'all' } });
  // @ts-expect-error: a setting that must not be null
  await client.PUT('/api/connectors/{id}/sync-config/{type}', { params: of, body: { timezone: null } });
  // @ts-expect-error: an action that there is not
  await client.POST('/api/connectors/{id}/sync-matches/{matchId}/resolve', { params: { path: { id, matchId: id } }, body: { action: 'merge' } });
  // @ts-expect-error: a member that the answer does not have
  (await client.GET('/api/me')).data?.name;
  // @ts-expect-error: one that may be null
  (await client.GET('/api/jobs')).data?.data[0]?.nextRunAt.length;
}
