-- What writes records in SQL, and nothing else does: the verbs.  Pages, upserts
-- and webhooks, which add, update, restore and touch records, do that in
-- src/record/statements.c.
--
-- Each verb has its change noted by records_changed, as apply.c does: that is the
-- one place where whoever has to know of a change is told of it.
--
-- The callers have locked the records, many of them in the order of their
-- external ids (40_run).  What the absence of a record means for its user is
-- written elsewhere (departure, 51_change).

-- By which rules a write gives way.

-- src/record/write.h says the same for statements in C.
CREATE FUNCTION _flohsync.is_news(_r flohsync.resource_record, _observed_at timestamptz,
                                  _event_at timestamptz)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce((_r).event_at <= _event_at, true)
  AND ((_r).observed_at > pg_catalog.clock_timestamp()
       OR _observed_at >= greatest((_r).observed_at, CASE WHEN (_r).stale_since IS NULL THEN
            _flohsync.confirmed_at((_r).connector_id, (_r).resource_type) END));
COMMENT ON FUNCTION _flohsync.is_news(flohsync.resource_record, timestamptz, timestamptz) IS
  'Whether an event is not older than the stored record; a stored time in the future is ignored as a clock error';

-- The note of change.

CREATE FUNCTION _flohsync.records_changed(_connector uuid, _type text, _change text, _ids uuid[],
  _external_ids text[], _queue boolean, _nums bigint[]) RETURNS void
LANGUAGE c VOLATILE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_records_changed';
COMMENT ON FUNCTION _flohsync.records_changed(uuid, text, text, uuid[], text[], boolean, bigint[]) IS
  'Notes that records of a type were added, updated, restored, staled or removed: the cache forgets the external ids '
  '(null: none), post-sync finds the ids in record_change if they are to be queued for it, and pages with one of '
  'their record_no are read in full';

-- The verbs.

CREATE FUNCTION _flohsync.records_staled(_connector uuid, _type text, _ids uuid[], _confirmed_at timestamptz,
  _observed_at timestamptz DEFAULT NULL, _event_at timestamptz DEFAULT NULL, _queue boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- To plan for the one record of a webhook would take longer than to write it; nor
-- does the plan depend on how large the table was when it was made.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $$
DECLARE
  n bigint;
  staled uuid[];
  _caching boolean := _flohsync.caching();
  _keys text[];
  _nums bigint[];
BEGIN
  WITH done AS (
    UPDATE flohsync.resource_record r
       SET stale_since = coalesce(r.stale_since, clock_timestamp()),
           observed_at = coalesce(_observed_at, greatest(r.observed_at, _confirmed_at)),
           event_at = coalesce(_event_at, r.event_at),
           event_keys = CASE WHEN _observed_at IS NULL THEN r.event_keys END
      FROM unnest(_ids) u(id) WHERE r.id = u.id
    RETURNING r.id, r.external_id, r.record_no)
  SELECT count(*), array_agg(d.id), array_agg(d.external_id) FILTER (WHERE _caching), array_agg(d.record_no)
    INTO n, staled, _keys, _nums FROM done d;
  PERFORM _flohsync.records_changed(_connector, _type, 'staled', staled, _keys, _queue, _nums);
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.records_staled(uuid, text, uuid[], timestamptz, timestamptz, timestamptz, boolean) IS
  'Marks records stale and returns their number: they were found missing, and had been confirmed by a pass that began '
  'at _confirmed_at; or an event said so, which was observed at _observed_at and happened at _event_at (null: unknown)';

CREATE FUNCTION _flohsync.records_leaving(_ids uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.resource_record r
     SET stale_since = coalesce(r.stale_since, clock_timestamp())
    FROM unnest(_ids) u(id) WHERE r.id = u.id;
END
$$;
COMMENT ON FUNCTION _flohsync.records_leaving(uuid[]) IS
  'Has records that are about to be removed count as stale while their users are looked at; then records_removed '
  'follows, or records_staled';

CREATE FUNCTION _flohsync.records_removed(_connector uuid, _type text, _ids uuid[], _tell boolean, _run bigint)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
  removed uuid[];
  gone jsonb[];
  did record;
  c flohsync.connector_sync_config;
  _caching boolean := _flohsync.caching();
  _keys text[];
  _nums bigint[];
BEGIN
  IF _ids IS NULL OR _ids = '{}' THEN
    RETURN 0;
  END IF;
  -- In one order, which that of the deletion is not.
  PERFORM FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids) ORDER BY m.id FOR UPDATE;
  WITH purged AS (
    DELETE FROM flohsync.resource_record r
     USING unnest(_ids) AS old(id)
     WHERE r.id = old.id
    RETURNING r.id, r.external_id, r.display_name, r.email, r.record_no
  ), identities AS (
    -- Of a user who was deactivated it stays: by it he is known when he comes back.
    DELETE FROM flohsync.user_external_identity i
     USING purged p JOIN flohsync.connector_sync_match m ON m.connector_resource_id = p.id
     WHERE i.user_id = m.user_id AND i.connector_id = _connector AND i.external_id = p.external_id
       AND i.source = 'connector_sync' AND EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = i.user_id)
    RETURNING 1
  )
  SELECT count(*), array_agg(p.id),
         array_agg(_flohsync.changed_record(p.id, p.external_id, p.display_name, p.email, 'removed',
                                            m.user_id, m.match_status)
                   ORDER BY p.external_id) FILTER (WHERE _tell),
         array_agg(p.external_id) FILTER (WHERE _caching), array_agg(p.record_no)
    INTO n, removed, gone, _keys, _nums
    FROM purged p LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = p.id;
  PERFORM _flohsync.records_changed(_connector, _type, 'removed', removed, _keys, false, _nums);
  PERFORM _flohsync.forget_departures(_ids);
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _connector AND x.resource_type = _type;
  IF gone IS NOT NULL AND _flohsync.triggers_per_record(c) THEN
    did := _flohsync.in_halves('workflow', c, _run, cardinality(gone), 0, NULL, NULL, NULL, gone);
    -- A record of which the workflow cannot be told goes all the same.
    PERFORM _flohsync.note_setbacks('workflow', c, _run, NULL, NULL,
                                    array_agg(gone[f.nr] ->> 'externalId' ORDER BY f.i),
                                    array_agg(f.state ORDER BY f.i), array_agg(f.message ORDER BY f.i))
       FROM unnest(did.failed, did.states, did.messages) WITH ORDINALITY AS f(nr, state, message, i);
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.records_removed(uuid, text, uuid[], boolean, bigint) IS
  'Removes records with what depends on them, under the lock of their matching; workflows are told if they shall be, '
  'on behalf of a run or (null) of none';

CREATE FUNCTION _flohsync.records_dropped(_connector uuid, _ids uuid[], _keys text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- A deletion by another connector's webhook holds all matches of its user, in this order.
  PERFORM FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids) ORDER BY m.id FOR UPDATE;
  PERFORM _flohsync.requeue_stale(ARRAY(SELECT DISTINCT m.user_id FROM flohsync.connector_sync_match m
                                        WHERE m.connector_resource_id = ANY (_ids) AND m.user_id IS NOT NULL));
  DELETE FROM flohsync.connector_sync_match m WHERE m.connector_resource_id = ANY (_ids);
  DELETE FROM flohsync.user_external_identity i WHERE i.connector_id = _connector AND i.external_id = ANY (_keys);
  DELETE FROM _flohsync.record_change q WHERE q.resource_id = ANY (_ids);
  DELETE FROM _flohsync.departure p WHERE p.resource_id = ANY (_ids);
  DELETE FROM flohsync.resource_record r WHERE r.id = ANY (_ids);
  PERFORM _flohsync.invalidate_all(_connector, NULL);
END
$$;
COMMENT ON FUNCTION _flohsync.records_dropped(uuid, uuid[], text[]) IS
  'Removes records of a connector that is being dropped, given their ids and external ids, with what hangs on them; '
  'nobody is told of each';

CREATE FUNCTION _flohsync.record_absent(_connector uuid, _type text, _external_id text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  own uuid;
BEGIN
  -- Waits for, or makes wait, whoever else inserts that key.
  INSERT INTO flohsync.resource_record AS r (connector_id, resource_type, external_id, sync_hash, observed_at)
  VALUES (_connector, _type, _external_id, '', clock_timestamp())
  ON CONFLICT (external_id, resource_type, connector_id) DO NOTHING
  RETURNING r.id INTO own;
  DELETE FROM flohsync.resource_record r WHERE r.id = own;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION _flohsync.record_absent(uuid, text, text) IS
  'Whether there is no record of an id, and nobody can insert one until the end of the transaction';
