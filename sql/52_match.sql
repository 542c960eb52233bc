-- Which user a record belongs to.
--
-- Matching is one statement for any number of records (_match).  What it works
-- on is either everything, or what has changed since it was last done:
--   sync_run_page.changed   records that a page of a pass added, changed or brought back
--   record_change           records changed otherwise: individually, staled, or to be rechecked
--   user_change             users that were added, changed or removed
-- match_progress says up to where that has been dealt with, and under which
-- settings.  No row there, or one of other settings, means that nothing has: then
-- everything is.  Deleting the row is therefore always right.

CREATE TABLE flohsync.connector_sync_match (
  id                    uuid PRIMARY KEY DEFAULT _flohsync.new_id(),
  -- No foreign key of its own: the record has one.
  connector_id          uuid NOT NULL,
  resource_type         varchar(64) COLLATE "C" NOT NULL,
  connector_resource_id uuid NOT NULL REFERENCES flohsync.resource_record ON DELETE CASCADE,
  external_id           varchar(255) COLLATE "C" NOT NULL,
  external_display_name varchar(255),
  external_email        varchar(255),
  user_id               uuid,
  match_status          varchar(32) NOT NULL
                        CHECK (match_status IN ('matched', 'unmatched', 'ambiguous', 'manual_override', 'skipped', 'create_pending')),
  match_confidence      varchar(32) NOT NULL CHECK (match_confidence IN ('exact', 'probable', 'ambiguous', 'none')),
  match_strategy        varchar(32),
  candidate_user_ids    jsonb,
  resolution_notes      text,
  resolved_by           uuid,
  resolved_at           timestamptz,
  created_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
  -- The record first: it serves the foreign key as well.
  CONSTRAINT connector_sync_match_key UNIQUE (connector_resource_id, connector_id, resource_type)
);
CREATE INDEX connector_sync_match_user ON flohsync.connector_sync_match (user_id) WHERE user_id IS NOT NULL;
-- The status is looked at before the row is.
CREATE INDEX connector_sync_match_list ON flohsync.connector_sync_match (connector_id, resource_type, external_id, match_status);
CREATE INDEX connector_sync_match_review ON flohsync.connector_sync_match (connector_id, resource_type, match_status, external_id)
 WHERE match_status <> 'matched';
CREATE INDEX connector_sync_match_email ON flohsync.connector_sync_match (_flohsync.match_key(external_email) COLLATE "C");
CREATE INDEX connector_sync_match_former ON flohsync.connector_sync_match (connector_id, resource_type)
 WHERE match_status IN ('unmatched', 'create_pending') AND candidate_user_ids IS NOT NULL;
COMMENT ON TABLE flohsync.connector_sync_match IS 'Users that records are matched to, and how';
COMMENT ON COLUMN flohsync.connector_sync_match.id IS 'Identity of the match';
COMMENT ON COLUMN flohsync.connector_sync_match.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.connector_sync_match.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.connector_sync_match.connector_resource_id IS 'Record; its deletion deletes the match';
COMMENT ON COLUMN flohsync.connector_sync_match.external_id IS 'Id of the record in the upstream';
COMMENT ON COLUMN flohsync.connector_sync_match.external_display_name IS 'Name of the record';
COMMENT ON COLUMN flohsync.connector_sync_match.external_email IS 'E-mail address of the record';
COMMENT ON COLUMN flohsync.connector_sync_match.user_id IS 'User, when there is one';
COMMENT ON COLUMN flohsync.connector_sync_match.match_status IS 'matched, unmatched, ambiguous, manual_override, skipped or create_pending';
COMMENT ON COLUMN flohsync.connector_sync_match.match_confidence IS 'exact, probable, ambiguous or none';
COMMENT ON COLUMN flohsync.connector_sync_match.match_strategy IS 'Strategy that led to the outcome; null for a user made from the record';
COMMENT ON COLUMN flohsync.connector_sync_match.candidate_user_ids IS 'Candidates of an ambiguous match; of an unmatched one, the user it was linked to before';
COMMENT ON COLUMN flohsync.connector_sync_match.resolution_notes IS 'Notes of the operator';
COMMENT ON COLUMN flohsync.connector_sync_match.resolved_by IS 'User who resolved the match';
COMMENT ON COLUMN flohsync.connector_sync_match.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN flohsync.connector_sync_match.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_sync_match.updated_at IS 'When the row was last changed';
SELECT _flohsync.allow('reader', 'flohsync.connector_sync_match');

CREATE TABLE _flohsync.match_progress (
  config_id  uuid PRIMARY KEY REFERENCES flohsync.connector_sync_config ON DELETE CASCADE,
  rules      text NOT NULL,
  users_seen xid8 NOT NULL,
  own_xid    xid8
);
COMMENT ON TABLE _flohsync.match_progress IS 'Changes up to which matching has been done; no row: everything has to be matched';
COMMENT ON COLUMN _flohsync.match_progress.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.match_progress.rules IS 'Fingerprint of the settings used; when they change everything has to be matched';
COMMENT ON COLUMN _flohsync.match_progress.users_seen IS 'Changes of users by earlier transactions have been processed';
COMMENT ON COLUMN _flohsync.match_progress.own_xid IS 'So have those of this transaction, in which matching itself changed users';

CREATE TABLE _flohsync.record_change (
  seq           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  resource_id   uuid NOT NULL,
  connector_id  uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  change        text NOT NULL CHECK (change IN ('added', 'updated', 'restored', 'staled', 'recheck'))
);
CREATE INDEX record_change_scope ON _flohsync.record_change (connector_id, resource_type);
CREATE INDEX record_change_record ON _flohsync.record_change (resource_id);
COMMENT ON TABLE _flohsync.record_change IS 'Records to be processed by the next post-sync, in addition to those of its run''s pages; may contain a record more than once, since rows are only inserted';
COMMENT ON COLUMN _flohsync.record_change.resource_id IS 'Record';
COMMENT ON COLUMN _flohsync.record_change.connector_id IS 'Its connector';
COMMENT ON COLUMN _flohsync.record_change.resource_type IS 'Its resource type';
COMMENT ON COLUMN _flohsync.record_change.change IS 'added, updated, restored, staled, or recheck: to be looked at once more';
COMMENT ON COLUMN _flohsync.record_change.seq IS 'Increases with each change, so that only rows that were read are removed';

CREATE TABLE _flohsync.departure (
  seq          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  resource_id  uuid NOT NULL,
  connector_id uuid NOT NULL,
  settled_at   timestamptz
);
CREATE INDEX departure_record ON _flohsync.departure (resource_id, seq);
CREATE TRIGGER departures_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.departure');
COMMENT ON TABLE _flohsync.departure IS 'Whether the deactivation of a user because of a stale record has been decided; the last row of a record counts';
COMMENT ON COLUMN _flohsync.departure.seq IS 'Order of the rows';
COMMENT ON COLUMN _flohsync.departure.resource_id IS 'Stale record';
COMMENT ON COLUMN _flohsync.departure.connector_id IS 'Its connector';
COMMENT ON COLUMN _flohsync.departure.settled_at IS 'When it was decided; valid for the current absence only (later than stale_since); null: undecided again';

CREATE TABLE _flohsync.user_change (
  xid         xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  user_id     uuid NOT NULL,
  email_key   text COLLATE "C",
  sub         text COLLATE "C",
  upstream_id text COLLATE "C"
);
CREATE INDEX user_change_xid ON _flohsync.user_change (xid);
-- For publications of all tables: rows are many and short-lived, a key of their own would cost more.
ALTER TABLE _flohsync.user_change REPLICA IDENTITY FULL;
COMMENT ON TABLE _flohsync.user_change IS 'Match keys, old and new, of changed users';
COMMENT ON COLUMN _flohsync.user_change.xid IS 'Transaction that changed the user';
COMMENT ON COLUMN _flohsync.user_change.user_id IS 'User';
COMMENT ON COLUMN _flohsync.user_change.email_key IS 'E-mail address in the form that is compared';
COMMENT ON COLUMN _flohsync.user_change.sub IS 'Subject of the login';
COMMENT ON COLUMN _flohsync.user_change.upstream_id IS 'Id at the upstream issuer';

-- These two are made from config_keys().
DO $do$
BEGIN
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.config_concerns_users(_c flohsync.connector_sync_config) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    RETURN (_c).resource_type = 'user' OR %s$create$,
    string_agg(format(CASE k.initial WHEN 'null' THEN '(_c).%I IS NOT NULL' ELSE '(_c).%I <> %L' END,
                      k.attribute, k.initial #>> '{}'), ' OR '))
    FROM _flohsync.config_keys() k WHERE k.matching);
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.people_rules(_c flohsync.connector_sync_config) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    RETURN _flohsync.digest(jsonb_build_array(%s)::text)$create$,
    string_agg(format('(_c).%I', k.attribute), ', '))
    FROM _flohsync.config_keys() k WHERE k.matching);
END
$do$;
COMMENT ON FUNCTION _flohsync.config_concerns_users(flohsync.connector_sync_config) IS
  'Whether a configuration concerns users: type user, or any that maps attributes, matches other than by email, creates or deactivates';

CREATE FUNCTION _flohsync.matches_users(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _flohsync.config_concerns_users(_c) THEN
    RETURN true;
  END IF;
  -- In the order of an index, and no EXISTS: that there is none is what a scan of the table finds out last.
  -- A webhook asks the same in its own statement (webhook_scope).
  PERFORM FROM flohsync.connector_sync_match m
    WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
    ORDER BY m.external_id LIMIT 1;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION _flohsync.matches_users(flohsync.connector_sync_config) IS
  'Whether records of a configuration are matched to users: it concerns users, or has matches';

COMMENT ON FUNCTION _flohsync.people_rules(flohsync.connector_sync_config) IS
  'Fingerprint of the settings of a configuration whose change requires everything to be matched again';

CREATE FUNCTION _flohsync.triggers_per_record(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN (_c).sync_trigger_mode = 'per_record' AND (_c).post_sync_workflow_id IS NOT NULL;
COMMENT ON FUNCTION _flohsync.triggers_per_record(flohsync.connector_sync_config) IS 'Whether a workflow is triggered per changed record';

-- Changes of users.

CREATE FUNCTION _flohsync.user_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off  -- the plan is kept, and may have been made for one user
SET jit = off              -- which such a plan would be worth
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM flohsync.connector_sync_config c WHERE _flohsync.matches_users(c)) THEN
    RETURN NULL;
  END IF;
  CASE TG_OP
    WHEN 'INSERT' THEN
      INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id)
      SELECT n.id, _flohsync.match_key(n.email), n.sub, n.upstream_id FROM new_users n WHERE n.deleted_at IS NULL;
    WHEN 'UPDATE' THEN
      INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id)
      SELECT u.id, _flohsync.match_key(u.email), u.sub, u.upstream_id
        FROM new_users n
        JOIN old_users o ON o.id = n.id
       CROSS JOIN LATERAL (VALUES (o.id, o.email, o.sub, o.upstream_id), (n.id, n.email, n.sub, n.upstream_id)) u(id, email, sub, upstream_id)
       WHERE (n.email, n.sub, n.upstream_id, n.upstream_issuer, n.deleted_at IS NULL)
             IS DISTINCT FROM (o.email, o.sub, o.upstream_id, o.upstream_issuer, o.deleted_at IS NULL);
    WHEN 'DELETE' THEN
      INSERT INTO _flohsync.user_change (user_id, email_key, sub, upstream_id)
      SELECT o.id, _flohsync.match_key(o.email), o.sub, o.upstream_id FROM old_users o;
  END CASE;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.user_changed() IS 'Records users that were added or removed, or whose match keys changed';
CREATE TRIGGER user_added AFTER INSERT ON flohsync.floh_user REFERENCING NEW TABLE AS new_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_changed();
CREATE TRIGGER user_changed AFTER UPDATE ON flohsync.floh_user REFERENCING OLD TABLE AS old_users NEW TABLE AS new_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_changed();
CREATE TRIGGER user_removed AFTER DELETE ON flohsync.floh_user REFERENCING OLD TABLE AS old_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_changed();

-- As ON DELETE SET NULL would, but for an application's users there is no foreign key.
CREATE FUNCTION _flohsync.user_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE flohsync.connector_sync_match m
     SET user_id = NULL, match_status = 'unmatched', match_confidence = 'none', match_strategy = NULL, candidate_user_ids = NULL,
         resolution_notes = NULL, resolved_by = NULL, resolved_at = NULL, updated_at = now()
    FROM old_users o WHERE m.user_id = o.id;
  UPDATE flohsync.connector_sync_match m SET resolved_by = NULL
    FROM old_users o WHERE m.resolved_by = o.id;
  DELETE FROM flohsync.user_external_identity i USING old_users o WHERE i.user_id = o.id;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.user_removed() IS 'Unlinks the records of users whose rows are deleted';
CREATE TRIGGER user_unlinked AFTER DELETE ON flohsync.floh_user REFERENCING OLD TABLE AS old_users
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.user_removed();

CREATE FUNCTION _flohsync.users_are_watched() RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN EXISTS (SELECT FROM pg_rewrite r
                   JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                  WHERE r.ev_class = 'flohsync.v_user'::regclass AND d.refobjid = 'flohsync.floh_user'::regclass);
END
$$;
COMMENT ON FUNCTION _flohsync.users_are_watched() IS
  'Whether v_user shows floh_user, whose changes are recorded by triggers; users of an application are always matched again';

-- A post-sync under way may not have said yet which changes it has dealt with:
-- none are removed meanwhile.
CREATE FUNCTION _flohsync.read_user_changes() RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.lock('user changes', '', true);
END;
COMMENT ON FUNCTION _flohsync.read_user_changes() IS 'Prevents forget_user_changes() from removing anything until the end of the transaction';

CREATE FUNCTION _flohsync.forget_user_changes() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT _flohsync.try_lock('user changes', '', false) THEN
    RETURN;
  END IF;
  -- A configuration that never processes them must not keep them all: it will process everything then.
  DELETE FROM _flohsync.match_progress p
   WHERE EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen OFFSET 200000);
  DELETE FROM _flohsync.user_change u
   WHERE u.xid < (SELECT min(p.users_seen) FROM _flohsync.match_progress p);
END
$$;
COMMENT ON FUNCTION _flohsync.forget_user_changes() IS 'Removes the changes of users that every configuration has processed';

-- Changes of records.

CREATE FUNCTION _flohsync.note_changes(_connector uuid, _type text, _ids uuid[], _change text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  older bigint[];
BEGIN
  IF _ids IS NULL OR NOT EXISTS (SELECT FROM flohsync.connector_sync_config c
                                  WHERE c.connector_id = _connector AND c.resource_type = _type
                                    AND (_flohsync.triggers_per_record(c) OR _flohsync.matches_users(c))) THEN
    RETURN;
  END IF;
  WITH noted AS (
    INSERT INTO _flohsync.record_change AS x (resource_id, connector_id, resource_type, change)
    SELECT u.id, _connector, _type, _change FROM unnest(_ids) u(id) ORDER BY u.id
    RETURNING x.seq, x.resource_id)
  SELECT array_agg(q.seq) INTO older
    FROM _flohsync.record_change q JOIN noted n ON n.resource_id = q.resource_id WHERE q.change = _change;
  PERFORM _flohsync.forget_changes(older);
END
$$;
COMMENT ON FUNCTION _flohsync.note_changes(uuid, text, uuid[], text) IS 'Queues some records for the next post-sync of a configuration';

-- Rows that another transaction is removing, or has outdated, are left to it.
CREATE FUNCTION _flohsync.forget_changes(_seqs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _seqs IS NOT NULL AND _seqs <> '{}' THEN
    DELETE FROM _flohsync.record_change q
     WHERE q.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.record_change x WHERE x.seq = ANY (_seqs) FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.forget_changes(bigint[]) IS 'Removes rows of record_change, except locked ones';

CREATE FUNCTION _flohsync.note_departures(_ids uuid[], _settled_at timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  older bigint[];
BEGIN
  IF _ids IS NULL OR _ids = '{}' THEN
    RETURN;
  END IF;
  WITH noted AS (
    INSERT INTO _flohsync.departure AS d (resource_id, connector_id, settled_at)
    SELECT x.id, x.connector_id, _settled_at FROM flohsync.resource_record x WHERE x.id = ANY (_ids)
    RETURNING d.resource_id)
  SELECT array_agg(d.seq) INTO older FROM _flohsync.departure d JOIN noted n ON n.resource_id = d.resource_id;
  IF older IS NOT NULL THEN
    DELETE FROM _flohsync.departure d
     WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.seq = ANY (older) FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.note_departures(uuid[], timestamptz) IS
  'Records when the deactivation because of stale records was decided, or (null) that it is undecided again';

CREATE FUNCTION _flohsync.forget_departures(_ids uuid[]) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  DELETE FROM _flohsync.departure d
   WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.resource_id = ANY (_ids) FOR UPDATE SKIP LOCKED));
END;
COMMENT ON FUNCTION _flohsync.forget_departures(uuid[]) IS 'Removes the decisions about records that were restored or removed';

CREATE FUNCTION _flohsync.departure_open(_record uuid, _stale_since timestamptz) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT d.settled_at < _stale_since FROM _flohsync.departure d
                  WHERE d.resource_id = _record ORDER BY d.seq DESC LIMIT 1), true);
COMMENT ON FUNCTION _flohsync.departure_open(uuid, timestamptz) IS 'Whether the deactivation because of a stale record is still undecided';

-- A user who loses a record may have nothing but stale ones left.
CREATE FUNCTION _flohsync.requeue_stale(_users uuid[], _but uuid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  others uuid[];
BEGIN
  IF _users IS NULL OR NOT EXISTS (SELECT FROM flohsync.connector_sync_config c WHERE c.deactivate_users) THEN
    RETURN;
  END IF;
  SELECT array_agg(x.id ORDER BY x.id) INTO others
    FROM (SELECT DISTINCT m.connector_resource_id AS id
            FROM flohsync.connector_sync_match m
            JOIN flohsync.connector_sync_config c ON c.connector_id = m.connector_id AND c.resource_type = m.resource_type
           WHERE m.user_id = ANY (_users) AND m.match_status IN ('matched', 'manual_override')
             AND c.deactivate_users AND c.id IS DISTINCT FROM _but) o
    JOIN flohsync.resource_record x ON x.id = o.id
   WHERE x.stale_since IS NOT NULL;
  IF others IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.note_departures(ARRAY(
    SELECT x.id FROM flohsync.resource_record x WHERE x.id = ANY (others) AND NOT _flohsync.departure_open(x.id, x.stale_since)), NULL);
  PERFORM _flohsync.note_changes(o.connector_id, o.resource_type, array_agg(o.id), 'recheck')
     FROM flohsync.resource_record o WHERE o.id = ANY (others)
    GROUP BY o.connector_id, o.resource_type;
END
$$;
COMMENT ON FUNCTION _flohsync.requeue_stale(uuid[], uuid) IS
  'Queues the stale records of some users for all configurations that deactivate users, except one';

CREATE FUNCTION _flohsync.keep_page_changes(_run bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.note_changes(r.connector_id, r.resource_type, c.ids, c.change)
    FROM flohsync.sync_run r
   CROSS JOIN LATERAL (SELECT e.change, pg_catalog.array_agg(DISTINCT e.resource_id) AS ids
                         FROM flohsync.sync_run_page p CROSS JOIN LATERAL _flohsync.page_changes(p) e
                        WHERE p.run_id = r.id AND p.changed IS NOT NULL GROUP BY e.change ORDER BY e.change DESC) c
   WHERE r.id = _run;
END;
COMMENT ON FUNCTION _flohsync.keep_page_changes(bigint) IS 'Moves the changes of the pages of a run to record_change before the pages are removed';

-- The matching itself.

CREATE FUNCTION _flohsync.strategies(_c flohsync.connector_sync_config) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  names text[] := ARRAY[_c.user_match_strategy::text];
  fallback text;
BEGIN
  FOR fallback IN SELECT jsonb_array_elements_text(_c.user_match_fallback_strategies) LOOP
    IF fallback <> ALL (names) THEN
      names := names || fallback;
    END IF;
  END LOOP;
  RETURN names;
END
$$;
COMMENT ON FUNCTION _flohsync.strategies(flohsync.connector_sync_config) IS 'The distinct match strategies of a configuration, in the order in which they are tried';

CREATE FUNCTION _flohsync.source_sql(_path text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN CASE split_part(_path, '.', 1)
    WHEN 'externalId' THEN 'pg_catalog.to_jsonb(x.external_id::text)'
    WHEN 'displayName' THEN 'pg_catalog.to_jsonb(x.display_name::text)'
    WHEN 'email' THEN 'pg_catalog.to_jsonb(x.email::text)'
    ELSE format('(x.attributes #> %L::text[])', (string_to_array(_path, '.'))[2:]) END;
END
$$;
COMMENT ON FUNCTION _flohsync.source_sql(text) IS 'SQL expression for the value at a dot path of the record x: jsonb';

-- By their ids, also where nothing is known of the table: the index of a type would do as well then, and reads all of it.
CREATE FUNCTION _flohsync.type_of_sql(_few boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN _few THEN 'x.connector_id IS NOT DISTINCT FROM $1 AND x.resource_type IS NOT DISTINCT FROM $2'
            ELSE 'x.connector_id = $1 AND x.resource_type = $2' END;
COMMENT ON FUNCTION _flohsync.type_of_sql(boolean) IS 'SQL condition for the records x of connector $1 and type $2; few: in a form that does not use the index on them';

CREATE FUNCTION _flohsync.records_of_sql(_few boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN _flohsync.type_of_sql(_few) || CASE WHEN _few THEN ' AND x.id = ANY ($3)' ELSE '' END;
COMMENT ON FUNCTION _flohsync.records_of_sql(boolean) IS 'SQL condition for the records x of connector $1 and type $2, or (few) those of them with ids $3';

-- Records come as "rec", with their keys; where a user has the key of a strategy, that is a hit.
CREATE FUNCTION _flohsync.records_sql(_c flohsync.connector_sync_config, _all boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN format($sql$
  SELECT x.id, x.external_id, x.display_name, x.email, x.stale_since IS NOT NULL AS stale,
         _flohsync.match_key(x.email) COLLATE "C" AS email_key, _flohsync.match_key(%s #>> '{}') COLLATE "C" AS issuer_key
    FROM flohsync.resource_record x
   WHERE %s$sql$,
    _flohsync.source_sql(coalesce(_c.issuer_source_path, 'attributes.identityIssuer')), _flohsync.records_of_sql(NOT _all));
END
$$;
COMMENT ON FUNCTION _flohsync.records_sql(flohsync.connector_sync_config, boolean) IS
  'SQL for the records of connector $1 and type $2, all or those with an id of $3, with their match keys';

CREATE FUNCTION _flohsync.hits_sql(_strategies text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN string_agg(format(
           'SELECT r.id, %s AS step, u.id AS user_id FROM rec r JOIN _flohsync.app_user u ON %s', s.step, m.condition),
           ' UNION ALL ' ORDER BY s.step)
    FROM unnest(_strategies) WITH ORDINALITY AS s(name, step)
    JOIN _flohsync.match_strategies() m ON m.strategy = s.name;
END
$$;
COMMENT ON FUNCTION _flohsync.hits_sql(text[]) IS 'SQL for the users that each strategy finds for the records "rec"';

-- The statement of _match for a few records: its plan is cached.
CREATE FUNCTION _flohsync.match_cached(_sql text, _connector uuid, _type text, _ids uuid[], _back uuid[], _back_users uuid[],
  _strategies text[], _create_users boolean, OUT n bigint, OUT left_alone uuid[])
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.match_cached(text, uuid, text, uuid[], uuid[], uuid[], text[], boolean) IS
  'Runs the statement of match() with a cached plan, for a few records, with users in floh_user';

CREATE FUNCTION _flohsync.use_cached_plan(_ids uuid[]) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- The view of an application is unknown: a plan by indexes may be the wrong one.
  RETURN coalesce(cardinality(_ids) <= 10, false) AND _flohsync.users_are_watched();
END
$$;
COMMENT ON FUNCTION _flohsync.use_cached_plan(uuid[]) IS 'Whether records are few enough for cached plans';

-- _match recomputes the matches of some records (null: all).  An outcome that
-- stays is not written.  What an operator decided stays, and so does
-- - the link of a user made from the record, who may have nothing else in
--   common with it, as long as the user is there;
-- - that of a stale record whose user is deleted: it is the reason of that;
-- - that of a record that came back with its user (_back, _back_users), unless
--   a strategy finds a user.
CREATE FUNCTION _flohsync.match(_c flohsync.connector_sync_config, _ids uuid[], _back uuid[] DEFAULT '{}', _back_users uuid[] DEFAULT '{}')
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET enable_nestloop = on
AS $$
DECLARE
  strategies text[] := _flohsync.strategies(_c);
  statement text;
  n bigint;
  left_alone uuid[];
BEGIN
  statement := format($sql$
  WITH rec AS (%1$s),
  tally AS (SELECT h.id, h.step, count(*) AS hits, array_agg(h.user_id) AS users FROM (%2$s) h GROUP BY h.id, h.step),
  best AS (%3$s),
  known AS (
    SELECT r.id, r.external_id, r.display_name, r.email, r.email_key, r.stale, b.step, b.hits, b.users,
           m.id AS match_id, m.match_status AS status, m.match_confidence AS confidence, m.match_strategy AS strategy,
           m.user_id, m.candidate_user_ids AS candidates, k.user_id AS back_user,
           CASE WHEN m.match_status IN ('manual_override', 'skipped') THEN true
                WHEN m.match_status = 'matched' AND (m.match_strategy IS NULL OR r.stale)
                  THEN CASE WHEN EXISTS (SELECT FROM _flohsync.app_user u WHERE u.id = m.user_id) THEN m.match_strategy IS NULL ELSE r.stale END
                ELSE false END AS stays
      FROM rec r
      LEFT JOIN best b ON b.id = r.id
      LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = r.id
      LEFT JOIN unnest($4, $5) AS k(id, user_id) ON k.id = r.id
    OFFSET 0  -- so that "stays" is computed once
  ), outcome AS (
    SELECT o.id, o.external_id, o.display_name, o.email, o.match_id, o.user_id AS old_user, o.status AS old_status, o.stays,
           CASE WHEN o.stays THEN o.status WHEN o.hits = 1 THEN 'matched' WHEN o.hits > 1 THEN 'ambiguous'
                WHEN o.back_user IS NOT NULL THEN 'matched'
                WHEN o.status = 'create_pending' AND $7 AND o.email_key IS NOT NULL AND NOT o.stale THEN o.status ELSE 'unmatched' END AS status,
           CASE WHEN o.stays THEN o.confidence WHEN o.hits = 1 THEN CASE o.step WHEN 1 THEN 'exact' ELSE 'probable' END
                WHEN o.hits > 1 THEN 'ambiguous' WHEN o.back_user IS NOT NULL THEN 'exact' ELSE 'none' END AS confidence,
           CASE WHEN o.stays THEN o.strategy WHEN o.hits > 0 THEN $6[o.step] END AS strategy,
           CASE WHEN o.stays THEN o.user_id WHEN o.hits = 1 THEN o.users[1] WHEN o.hits IS NULL THEN o.back_user END AS user_id,
           CASE WHEN o.stays THEN o.candidates
                WHEN o.hits > 1 THEN (SELECT jsonb_agg(jsonb_build_object('userId', u.id, 'email', u.email, 'confidence', 'ambiguous',
                                                                          'reason', $6[o.step]) ORDER BY u.id)
                                        FROM _flohsync.app_user u
                                       WHERE u.id = ANY (ARRAY(SELECT e.id FROM unnest(o.users) e(id) ORDER BY e.id LIMIT 100)))
                WHEN o.hits = 1 OR o.back_user IS NOT NULL THEN NULL
                WHEN o.status IN ('unmatched', 'create_pending') AND o.candidates IS NOT NULL
                  THEN (SELECT jsonb_agg(e.candidate) FROM jsonb_array_elements(o.candidates) e(candidate)
                          JOIN _flohsync.app_user u ON u.id::text = e.candidate ->> 'userId')
                -- The record had a user: that is shown to operators, and no second user is created.
                WHEN o.status = 'matched' THEN (SELECT jsonb_build_array(jsonb_build_object('userId', u.id, 'email', u.email,
                                                                           'confidence', 'none', 'reason', 'former_link'))
                                                  FROM _flohsync.app_user u WHERE u.id = o.user_id) END AS candidates
      FROM known o
  ), made AS (
    INSERT INTO flohsync.connector_sync_match AS m (connector_id, resource_type, connector_resource_id, external_id, external_display_name,
           external_email, user_id, match_status, match_confidence, match_strategy, candidate_user_ids)
    SELECT $1, $2, o.id, o.external_id, o.display_name, o.email, o.user_id, o.status, o.confidence, o.strategy, o.candidates
      FROM outcome o WHERE o.match_id IS NULL
    ON CONFLICT (connector_resource_id, connector_id, resource_type) DO NOTHING
    RETURNING m.external_id, m.user_id, m.external_email, m.external_display_name
  ), changed AS (
    UPDATE flohsync.connector_sync_match m
       SET external_id = o.external_id, external_display_name = o.display_name, external_email = o.email, user_id = o.user_id,
           match_status = o.status, match_confidence = o.confidence, match_strategy = o.strategy, candidate_user_ids = o.candidates,
           updated_at = now()
      FROM outcome o
     -- What an operator decided meanwhile stays.
     WHERE m.id = o.match_id AND m.match_status = o.old_status AND m.user_id IS NOT DISTINCT FROM o.old_user
       AND (m.external_display_name, m.external_email, m.user_id, m.match_status, m.match_confidence, m.match_strategy, m.candidate_user_ids)
           IS DISTINCT FROM (o.display_name, o.email, o.user_id, o.status, o.confidence, o.strategy, o.candidates)
    RETURNING m.external_id, m.user_id, m.external_email, m.external_display_name, o.old_user
  ), unlinked AS (
    DELETE FROM flohsync.user_external_identity i USING changed m
     WHERE i.user_id = m.old_user AND i.connector_id = $1 AND i.external_id = m.external_id AND i.source = 'connector_sync'
       AND m.old_user IS DISTINCT FROM m.user_id
    RETURNING i.user_id
  ), linked AS (
    INSERT INTO flohsync.user_external_identity AS i (user_id, connector_id, external_id, external_email, external_display_name, source, verified_at)
    SELECT m.user_id, $1, m.external_id, m.external_email, m.external_display_name, 'connector_sync', now()
      FROM (SELECT external_id, user_id, external_email, external_display_name FROM made
            UNION ALL SELECT external_id, user_id, external_email, external_display_name FROM changed) m
     WHERE m.user_id IS NOT NULL
    ON CONFLICT (external_id, connector_id, user_id) DO UPDATE
       SET external_email = EXCLUDED.external_email, external_display_name = EXCLUDED.external_display_name, verified_at = now()
    RETURNING i.user_id
  )
  SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM changed),
         (SELECT array_agg(DISTINCT m.old_user) FROM changed m WHERE m.old_user IS DISTINCT FROM m.user_id AND m.old_user IS NOT NULL)
  $sql$, _flohsync.records_sql(_c, _ids IS NULL), _flohsync.hits_sql(strategies),
         CASE WHEN cardinality(strategies) = 1 THEN 'SELECT * FROM tally'
              ELSE 'SELECT DISTINCT ON (t.id) t.* FROM tally t ORDER BY t.id, t.step' END);
  IF _flohsync.use_cached_plan(_ids) THEN
    SELECT m.n, m.left_alone INTO n, left_alone
      FROM _flohsync.match_cached(statement, _c.connector_id, _c.resource_type, _ids, _back, _back_users, strategies, _c.create_users) m;
  ELSE
    -- What was just loaded has no statistics yet: all must not be taken for a few.
    PERFORM set_config('enable_nestloop', (_ids IS NOT NULL)::text, true);
    EXECUTE statement INTO n, left_alone USING _c.connector_id, _c.resource_type::text, _ids, _back, _back_users, strategies, _c.create_users;
  END IF;
  IF left_alone IS NOT NULL THEN
    PERFORM _flohsync.requeue_stale(left_alone);
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.match(flohsync.connector_sync_config, uuid[], uuid[], uuid[]) IS
  'Recomputes the matches of some records (null: all) in one statement; returns how many were made or changed';

CREATE FUNCTION _flohsync.lock_matching(_c flohsync.connector_sync_config) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT _flohsync.lock('matching', (_c).id::text, false);
END;
COMMENT ON FUNCTION _flohsync.lock_matching(flohsync.connector_sync_config) IS 'Takes the exclusive lock on the matching of a configuration until the end of the transaction';

CREATE FUNCTION _flohsync.share_matching(_connector uuid, _type text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('matching', c.id::text, true) FROM flohsync.connector_sync_config c WHERE c.connector_id = _connector AND c.resource_type = _type;
END
$$;
COMMENT ON FUNCTION _flohsync.share_matching(uuid, text) IS
  'Takes the shared lock on the matching of a configuration, for changes of a few matches; before records or matches are locked';

CREATE FUNCTION _flohsync.config_of(_connector text, _type text) RETURNS flohsync.connector_sync_config
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _id uuid := _flohsync.connector_id(_connector);
  c flohsync.connector_sync_config;
BEGIN
  PERFORM _flohsync.check_resource_type(_type);
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _id AND x.resource_type = _type;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704',
      _flohsync.clean(format('connector "%s" has no configuration for resource type "%s"', _connector, _type)),
      NULL,
      'Create one with flohsync.configure_sync().');
  END IF;
  RETURN c;
END
$$;
COMMENT ON FUNCTION _flohsync.config_of(text, text) IS 'The configuration of a resource type; 42704 when there is none';
