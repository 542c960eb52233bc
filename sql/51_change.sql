-- Matches of records with users, and what has changed since they were matched.

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
                        CHECK (match_status IN ('matched', 'unmatched', 'ambiguous', 'manual_override', 'skipped',
                                                'create_pending')),
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
CREATE INDEX connector_sync_match_list
  ON flohsync.connector_sync_match (connector_id, resource_type, external_id, match_status);
CREATE INDEX connector_sync_match_review
  ON flohsync.connector_sync_match (connector_id, resource_type, match_status, external_id)
 WHERE match_status <> 'matched';
CREATE INDEX connector_sync_match_email
  ON flohsync.connector_sync_match (_flohsync.match_key(external_email) COLLATE "C");
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
COMMENT ON COLUMN flohsync.connector_sync_match.match_status IS
  'matched, unmatched, ambiguous, manual_override, skipped or create_pending';
COMMENT ON COLUMN flohsync.connector_sync_match.match_confidence IS 'exact, probable, ambiguous or none';
COMMENT ON COLUMN flohsync.connector_sync_match.match_strategy IS
  'Strategy that led to the outcome; null for a user made from the record';
COMMENT ON COLUMN flohsync.connector_sync_match.candidate_user_ids IS
  'Candidates of an ambiguous match; of an unmatched one, the user it was linked to before';
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
  own_xid    xid8,
  matched_by text
);
COMMENT ON TABLE _flohsync.match_progress IS
  'Changes up to which matching has been done; no row: everything has to be matched';
COMMENT ON COLUMN _flohsync.match_progress.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.match_progress.rules IS
  'Fingerprint of the settings used; when they change everything has to be processed';
COMMENT ON COLUMN _flohsync.match_progress.users_seen IS 'Changes of users by earlier transactions have been processed';
COMMENT ON COLUMN _flohsync.match_progress.own_xid IS
  'So have those of this transaction, in which matching itself changed users';
COMMENT ON COLUMN _flohsync.match_progress.matched_by IS
  'Fingerprint of the settings that decide who matches; while they stay only changes are matched; null: unknown';

CREATE TABLE _flohsync.record_change (
  seq           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  resource_id   uuid NOT NULL,
  connector_id  uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  change        text NOT NULL CHECK (change IN ('added', 'updated', 'restored', 'staled', 'recheck'))
);
CREATE INDEX record_change_scope ON _flohsync.record_change (connector_id, resource_type);
CREATE INDEX record_change_record ON _flohsync.record_change (resource_id);
COMMENT ON TABLE _flohsync.record_change IS
  'Records to be processed by the next post-sync, in addition to those of its run''s pages; may contain a record more '
  'than once, since rows are only inserted';
COMMENT ON COLUMN _flohsync.record_change.resource_id IS 'Record';
COMMENT ON COLUMN _flohsync.record_change.connector_id IS 'Its connector';
COMMENT ON COLUMN _flohsync.record_change.resource_type IS 'Its resource type';
COMMENT ON COLUMN _flohsync.record_change.change IS
  'added, updated, restored, staled, or recheck: to be looked at once more';
COMMENT ON COLUMN _flohsync.record_change.seq IS
  'Increases with each change, so that only rows that were read are removed';

CREATE TABLE _flohsync.departure (
  seq          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  resource_id  uuid NOT NULL,
  connector_id uuid NOT NULL,
  settled_at   timestamptz
);
CREATE INDEX departure_record ON _flohsync.departure (resource_id, seq);
CREATE TRIGGER departures_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.departure');
COMMENT ON TABLE _flohsync.departure IS
  'Whether the deactivation of a user because of a stale record has been decided; the last row of a record counts';
COMMENT ON COLUMN _flohsync.departure.seq IS 'Order of the rows';
COMMENT ON COLUMN _flohsync.departure.resource_id IS 'Stale record';
COMMENT ON COLUMN _flohsync.departure.connector_id IS 'Its connector';
COMMENT ON COLUMN _flohsync.departure.settled_at IS
  'When it was decided; valid for the current absence only (later than stale_since); null: undecided again';

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

-- These three are made from config_keys().
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
    RETURN _flohsync.digest(jsonb_build_array(%s)::text)$create$,
    string_agg(format('(_c).%I', k.attribute), ', '))
    FROM _flohsync.config_keys() k WHERE k.matching);
  EXECUTE (SELECT format($create$
    CREATE FUNCTION _flohsync.match_rules(_c flohsync.connector_sync_config) RETURNS text
    LANGUAGE sql STABLE
    RETURN _flohsync.digest(jsonb_build_array(%s)::text)$create$,
    string_agg(format('(_c).%I', k.attribute), ', '))
    FROM _flohsync.config_keys() k WHERE k.matching AND k.key <> 'attributeMappings');
END
$do$;
COMMENT ON FUNCTION _flohsync.config_concerns_users(flohsync.connector_sync_config) IS
  'Whether a configuration concerns users: type user, or any that maps attributes, matches other than by '
  'email, creates or deactivates';

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
  'Fingerprint of the settings of a configuration whose change requires everybody to be processed again';
COMMENT ON FUNCTION _flohsync.match_rules(flohsync.connector_sync_config) IS
  'Fingerprint of those of people_rules() that may change who matches: all but the attribute mappings';

CREATE FUNCTION _flohsync.triggers_per_record(_c flohsync.connector_sync_config) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN (_c).sync_trigger_mode = 'per_record' AND (_c).post_sync_workflow_id IS NOT NULL;
COMMENT ON FUNCTION _flohsync.triggers_per_record(flohsync.connector_sync_config) IS
  'Whether a workflow is triggered per changed record';

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
       CROSS JOIN LATERAL (VALUES (o.id, o.email, o.sub, o.upstream_id), (n.id, n.email, n.sub, n.upstream_id))
         u(id, email, sub, upstream_id)
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
     SET user_id = NULL, match_status = 'unmatched', match_confidence = 'none', match_strategy = NULL,
       candidate_user_ids = NULL,
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
  'Whether v_user shows floh_user, whose changes are recorded by triggers; users of an application are always '
  'matched again';

-- A post-sync under way may not have said yet which changes it has dealt with:
-- none are removed meanwhile.
CREATE FUNCTION _flohsync.read_user_changes() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('user changes', '', true);
END
$$;
COMMENT ON FUNCTION _flohsync.read_user_changes() IS
  'Prevents forget_user_changes() from removing anything until the end of the transaction';

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
COMMENT ON FUNCTION _flohsync.forget_user_changes() IS
  'Removes the changes of users that every configuration has processed';

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
COMMENT ON FUNCTION _flohsync.note_changes(uuid, text, uuid[], text) IS
  'Queues some records for the next post-sync of a configuration';

-- Rows that another transaction is removing, or has outdated, are left to it.
CREATE FUNCTION _flohsync.forget_changes(_seqs bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _seqs IS NOT NULL AND _seqs <> '{}' THEN
    DELETE FROM _flohsync.record_change q
     WHERE q.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.record_change x WHERE x.seq = ANY (_seqs)
                              FOR UPDATE SKIP LOCKED));
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
     WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.seq = ANY (older)
                              FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.note_departures(uuid[], timestamptz) IS
  'Records when the deactivation because of stale records was decided, or (null) that it is undecided again';

CREATE FUNCTION _flohsync.forget_departures(_ids uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _ids IS NOT NULL AND _ids <> '{}' THEN
    DELETE FROM _flohsync.departure d
     WHERE d.seq = ANY (ARRAY(SELECT x.seq FROM _flohsync.departure x WHERE x.resource_id = ANY (_ids)
                              FOR UPDATE SKIP LOCKED));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.forget_departures(uuid[]) IS
  'Removes the decisions about records that were restored or removed';

CREATE FUNCTION _flohsync.departure_open(_record uuid, _stale_since timestamptz) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN coalesce((SELECT d.settled_at < _stale_since FROM _flohsync.departure d
                  WHERE d.resource_id = _record ORDER BY d.seq DESC LIMIT 1), true);
COMMENT ON FUNCTION _flohsync.departure_open(uuid, timestamptz) IS
  'Whether the deactivation because of a stale record is still undecided';

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
            JOIN flohsync.connector_sync_config c ON c.connector_id = m.connector_id
                AND c.resource_type = m.resource_type
           WHERE m.user_id = ANY (_users) AND m.match_status IN ('matched', 'manual_override')
             AND c.deactivate_users AND c.id IS DISTINCT FROM _but) o
    JOIN flohsync.resource_record x ON x.id = o.id
   WHERE x.stale_since IS NOT NULL;
  IF others IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.note_departures(ARRAY(
    SELECT x.id FROM flohsync.resource_record x WHERE x.id = ANY (others)
        AND NOT _flohsync.departure_open(x.id, x.stale_since)), NULL);
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
COMMENT ON FUNCTION _flohsync.keep_page_changes(bigint) IS
  'Moves the changes of the pages of a run to record_change before the pages are removed';

-- The matching itself.
