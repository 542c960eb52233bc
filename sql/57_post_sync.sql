-- What follows a pass: match, create, deactivate and reactivate, map
-- attributes, trigger workflows.
--
-- _post_sync is one transaction of the run's worker, or of approve_run; each
-- stage is a subtransaction of its own, whose failure is recorded and fails
-- nothing else.  Errors that pass by themselves are raised: the worker does the
-- transaction again.
--
-- What is behind the seam, and the application's own rules about its tables, can
-- refuse one user or one profile.  So a stage gives all rows to the seam at once,
-- and where that fails halves them until those that fail are alone
-- (_in_halves).  These are noted, in sync_error and in setback, and the others are
-- done.  The next run tries them again: apart from the others, so that its one
-- statement for these succeeds, and no more than a hundred of them in a stage,
-- those that have waited longest, so that no run becomes slow by what was refused
-- before.

-- After a first load there are no statistics yet, and autovacuum comes too late: what
-- follows would be planned for empty tables.  Matching and mapping do not depend on
-- that; the other stages, and whoever reads the records next, do.  It takes a third
-- of a second for a table of any size, once until it has doubled again.  Nobody is
-- waited for who has the table locked.
CREATE FUNCTION _flohsync.analyze_grown() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  grown regclass;
BEGIN
  FOR grown IN
    SELECT c.oid FROM pg_class c
     WHERE c.oid = ANY ('{flohsync.resource_record, flohsync.connector_sync_match, flohsync.user_external_identity,
                          flohsync.floh_user, flohsync.user_profile}'::regclass[])
       AND pg_relation_size(c.oid) > 4000000
       AND (pg_relation_size(c.oid) > 2::bigint * c.relpages * current_setting('block_size')::int
            OR NOT EXISTS (SELECT FROM pg_stats s
                            WHERE s.schemaname = c.relnamespace::regnamespace::text AND s.tablename = c.relname))
     ORDER BY c.oid
  LOOP
    BEGIN
      EXECUTE format('ANALYZE (SKIP_LOCKED) %s', grown);
    EXCEPTION WHEN OTHERS THEN
      -- An index of others may be at fault; autovacuum will say so as well.
      RAISE LOG USING MESSAGE = _flohsync.clean(format('could not analyze %s: %s', grown, SQLERRM));
    END;
  END LOOP;
END
$$;
COMMENT ON FUNCTION _flohsync.analyze_grown() IS
  'Has PostgreSQL look again at those tables of records, matches and users that have doubled since it did';

-- Each probe by its own index and the scope afterwards: without statistics, as
-- right after a first load, the planner takes the scope for the better index.
CREATE FUNCTION _flohsync.reached_by_users(_c flohsync.connector_sync_config, _since xid8, _but xid8)
  RETURNS TABLE (id uuid, user_id uuid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
BEGIN ATOMIC
  SELECT m.id, u.user_id
    FROM _flohsync.user_change u
   CROSS JOIN LATERAL (
         SELECT x.connector_resource_id AS id, x.connector_id, x.resource_type
           FROM flohsync.connector_sync_match x WHERE x.user_id = u.user_id OFFSET 0) m
   WHERE u.xid >= _since AND u.xid IS DISTINCT FROM _but AND m.connector_id = (_c).connector_id
     AND m.resource_type = (_c).resource_type
  UNION ALL
  SELECT m.id, u.user_id
    FROM _flohsync.user_change u
   CROSS JOIN LATERAL (
         SELECT x.connector_resource_id AS id, x.connector_id, x.resource_type
           FROM flohsync.connector_sync_match x WHERE _flohsync.match_key(x.external_email) COLLATE "C"
             = u.email_key OFFSET 0) m
   WHERE u.xid >= _since AND u.xid IS DISTINCT FROM _but AND m.connector_id = (_c).connector_id
     AND m.resource_type = (_c).resource_type
  UNION ALL
  SELECT x.id, u.user_id
    FROM _flohsync.user_change u
    JOIN flohsync.resource_record x ON x.external_id = u.sub
   WHERE 'external_id' = ANY (_flohsync.strategies(_c)) AND u.xid >= _since AND u.xid IS DISTINCT FROM _but
     AND x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type
  UNION ALL
  SELECT x.id, u.user_id
    FROM _flohsync.user_change u
    JOIN flohsync.resource_record x ON x.external_id = u.upstream_id
   WHERE 'upstream_identity' = ANY (_flohsync.strategies(_c)) AND u.xid >= _since AND u.xid IS DISTINCT FROM _but
     AND x.connector_id = (_c).connector_id AND x.resource_type = (_c).resource_type
  UNION ALL
  -- those that wait because they once belonged to the user
  SELECT m.connector_resource_id, u.user_id
    FROM flohsync.connector_sync_match m
    JOIN _flohsync.user_change u ON u.user_id::text = m.candidate_user_ids -> 0 ->> 'userId'
   WHERE m.connector_id = (_c).connector_id AND m.resource_type = (_c).resource_type
     AND m.match_status IN ('unmatched', 'create_pending') AND m.candidate_user_ids IS NOT NULL
     AND u.xid >= _since AND u.xid IS DISTINCT FROM _but;
END;
COMMENT ON FUNCTION _flohsync.reached_by_users(flohsync.connector_sync_config, xid8, xid8) IS
  'Records of a configuration that match, matched or may match users changed since a transaction, except by one '
  'transaction';

-- _pending_records collects the records that post-sync has to process.  The page rows are
-- few: only those not dealt with have something in "changed".
CREATE FUNCTION _flohsync.pending_records(_c flohsync.connector_sync_config, _p _flohsync.match_progress,
  OUT ids uuid[], OUT by_record uuid[], OUT queued uuid[], OUT seqs bigint[], OUT setbacks uuid[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  changed_in bigint[] := _flohsync.runs_with_changes(_c.connector_id, _c.resource_type);
BEGIN
  SELECT coalesce(array_agg(r.resource_id), '{}'), coalesce(array_agg(r.seq), '{}') INTO queued, seqs
    FROM _flohsync.record_change r
   WHERE r.connector_id = _c.connector_id AND r.resource_type = _c.resource_type;
  setbacks := ARRAY(SELECT s.resource_id FROM _flohsync.setback s WHERE s.config_id = _c.id
                     ORDER BY s.tried_at LIMIT 100);
  IF _p.config_id IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(d.id) INTO by_record
    FROM (SELECT unnest(_flohsync.changed_by_pages(changed_in))
          UNION
          SELECT unnest(queued || setbacks)) d(id);
  SELECT array_agg(d.id) INTO ids
    FROM (SELECT unnest(by_record)
          UNION
          -- That is planned each time, and most times no user has changed.
          SELECT u.id FROM _flohsync.reached_by_users(_c, _p.users_seen, _p.own_xid) u
           WHERE EXISTS (SELECT FROM _flohsync.user_change x
                          WHERE x.xid >= _p.users_seen AND x.xid IS DISTINCT FROM _p.own_xid))
      d(id);
END
$$;
COMMENT ON FUNCTION _flohsync.pending_records(flohsync.connector_sync_config, _flohsync.match_progress) IS
  'Records that post-sync has to process (null when _p is: all), those of them that changed themselves, the rows of '
  'record_change read for that, and the failed rows to retry';

CREATE FUNCTION _flohsync.stage_failed(_run bigint, _stage text, _state text, _message text, _attempt int DEFAULT 3,
  _record flohsync.resource_record DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  _message := _flohsync.clean(_message);
  -- Of a deadlock, what the transaction holds already may be part: a run does it again as a whole.
  IF _run IS NOT NULL AND _state = '40P01' THEN
    RAISE deadlock_detected USING MESSAGE = _message;
  END IF;
  -- A lock, deadlock or deletion of another session: worth a retry.
  IF _attempt < 3 AND _state IN ('40P01', '40001', '55P03', '23503', '23505') THEN
    RETURN '[]';
  END IF;
  INSERT INTO flohsync.sync_error (run_id, connector_id, resource_type, external_id, error_class, message)
  VALUES (_run, _record.connector_id, _record.resource_type, _record.external_id, _flohsync.error_class('post_sync'),
          format('%s: %s', _stage, _message));
  RETURN jsonb_build_array(jsonb_build_object('stage', _stage, 'sqlstate', _state, 'message', _message));
END
$$;
COMMENT ON FUNCTION _flohsync.stage_failed(bigint, text, text, text, int, flohsync.resource_record) IS
  'Records the failure of a stage of post-sync, of a run or (null) of a webhook about a record, and returns it; an '
  'empty list when it should be retried; re-raises 40P01 for a run';

-- _process_users does what is configured about the users of some records.  Each stage
-- is a subtransaction of its own, with three attempts.
CREATE FUNCTION _flohsync.process_users(_c flohsync.connector_sync_config, _ids uuid[], INOUT touched uuid[],
                                        _run bigint, _held boolean,
  _deactivating boolean, _approved boolean, _widen boolean, _record flohsync.resource_record,
  OUT report jsonb, OUT errors jsonb, OUT broken boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _stage text;
  _failed jsonb;
  _refused bigint := 0;
  _done boolean;
  back record;
  did record;
BEGIN
  report := '{}';
  errors := '[]';
  broken := false;
  held := false;
  FOREACH _stage IN ARRAY ARRAY['match', 'create', 'deactivate', 'map'] LOOP
    PERFORM _flohsync.stage(CASE _stage WHEN 'match' THEN 'matching' WHEN 'create' THEN 'creating'
                            WHEN 'map' THEN 'mapping' ELSE 'deactivating' END);
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        _done := true;
        CASE
          WHEN _stage = 'match' THEN
            back := _flohsync.reactivate(_c, touched, _run, _record);
            -- Of all that are processed, those that are back are matched besides those that changed.
            report := report || jsonb_build_object(
              'matchesChanged',
              _flohsync.match(_c, CASE WHEN touched IS NULL AND _ids IS NOT NULL AND back.records <> '{}'
                                       THEN ARRAY(SELECT unnest(_ids) UNION SELECT unnest(back.records))
                                       ELSE _ids END, back.records, back.users),
              'usersReactivated', back.reactivated);
            -- Whatever an application's users did shows in the matches that it changed.
            IF _widen THEN
              touched := ARRAY(SELECT unnest(touched)
                               UNION SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
                                      WHERE m.connector_id = _c.connector_id AND m.resource_type = _c.resource_type
                                        AND (m.updated_at = now() OR m.match_status = 'create_pending'));
            END IF;
            SELECT back.refused, back.errors, true AS complete INTO did;
          WHEN _stage = 'create' AND _c.create_users THEN
            did := _flohsync.create_users(_c, touched, _run, _held, _record);
            report := report || jsonb_build_object('usersCreated', did.created, 'createPending', did.pending);
          WHEN _stage = 'deactivate' THEN
            IF _deactivating THEN
              did := _flohsync.deactivate(_c, touched, _run, _approved);
            END IF;
            IF _run IS NOT NULL THEN
              PERFORM _flohsync.requeue_in_other_configs(_c, touched);
            END IF;
            _done := _deactivating;
            IF _deactivating THEN
              report := report || jsonb_build_object('usersDeactivated', did.deactivated);
              held := did.message IS NOT NULL;
              message := did.message;
            END IF;
          WHEN _stage = 'map' AND _c.attribute_mappings IS NOT NULL THEN
            did := _flohsync.map_attributes(_c, touched, _run, _record);
            report := report || jsonb_build_object('profilesUpdated', did.updated, 'valuesRefused', did.failed);
          ELSE
            _done := false;
        END CASE;
        IF _done THEN
          errors := errors || did.errors;
          _refused := _refused + did.refused;
          IF NOT did.complete THEN
            errors := errors || _flohsync.stage_failed(_run, _stage, '54000',
                                                       'too many rows failed: the others wait for the next run', 3,
                                                       _record);
            broken := true;
          END IF;
        END IF;
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        _failed := _flohsync.stage_failed(_run, _stage, SQLSTATE, SQLERRM, _attempt, _record);
        errors := errors || _failed;
        broken := broken OR _failed <> '[]';
        EXIT WHEN _failed <> '[]';
      END;
    END LOOP;
    -- The other stages lean on the matches.
    EXIT WHEN _stage = 'match' AND broken;
  END LOOP;
  IF _refused > 0 THEN
    report := report || jsonb_build_object('rowsRefused', _refused);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.process_users(flohsync.connector_sync_config, uuid[], uuid[], bigint, boolean, boolean,
                                            boolean, boolean, flohsync.resource_record) IS
  'Matches the records _ids to users and runs the other stages for "touched" (null: all), on behalf of a run or (null) '
  'of a webhook about one record: returns what was done, what failed (broken: a complete stage), and the message of '
  'the deactivation safeguard';

CREATE FUNCTION _flohsync.post_sync(_run bigint, _held boolean, OUT held boolean, OUT message text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config := _flohsync.keep_config(_run);
  p _flohsync.match_progress;  -- up to where everything is done,
  known _flohsync.match_progress;  -- and, where other mappings have everybody processed, all are matched
  horizon xid8;
  watched boolean := _flohsync.users_are_watched();
  todo record;
  ids uuid[];  -- records whose user is looked for; null: all
  touched uuid[];  -- records that the other stages process; null: all
  did record;
  users boolean;
  report jsonb := '{}';
  errors jsonb := '[]';
  broken boolean := false;  -- a stage could not be done at all: everything is to be done again
  failed jsonb := '[]';
  told record;
  changed_in bigint[];
BEGIN
  held := false;
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.lock_matching(c);
  PERFORM _flohsync.read_user_changes();
  users := _flohsync.matches_users(c);
  horizon := pg_snapshot_xmin(pg_current_snapshot());
  SELECT * INTO known FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  IF known.config_id IS NOT NULL AND NOT users THEN
    -- Nothing is noted of users meanwhile, and nothing kept of records.
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  END IF;
  IF users AND known.users_seen <= pg_snapshot_xmax(pg_current_snapshot()) THEN
    IF known.rules = _flohsync.people_rules(c) THEN
      p := known;
    ELSIF known.matched_by IS DISTINCT FROM _flohsync.match_rules(c) THEN
      known := NULL;
    END IF;
  ELSE
    known := NULL;
  END IF;
  todo := _flohsync.pending_records(c, known);
  ids := CASE WHEN known.config_id IS NOT NULL AND watched THEN coalesce(todo.ids, '{}') END;
  IF p.config_id IS NOT NULL THEN
    touched := coalesce(todo.ids, '{}');
  ELSE
    todo.ids := NULL;
    todo.by_record := NULL;
  END IF;
  IF users AND (ids IS NULL OR ids <> '{}' OR touched IS NULL) THEN
    -- Who comes to a record that went before does not leave by that.
    IF c.deactivate_users AND cardinality(touched) > coalesce(cardinality(todo.by_record), 0) THEN
      PERFORM _flohsync.note_departures(ARRAY(
        SELECT x.id FROM flohsync.resource_record x
         WHERE x.id = ANY (touched) AND x.id <> ALL (coalesce(todo.by_record, '{}')) AND x.stale_since IS NOT NULL
           AND _flohsync.departure_open(x.id, x.stale_since)), clock_timestamp());
    END IF;
    did := _flohsync.process_users(c, ids, touched, _run, _held, c.deactivate_users AND NOT _held, r.status = 'held',
                            NOT watched AND p.config_id IS NOT NULL, NULL);
    touched := did.touched;
    report := did.report;
    errors := did.errors;
    broken := did.broken;
    held := did.held;
    message := did.message;
  END IF;

  IF _flohsync.triggers_per_record(c) THEN
    FOR _attempt IN 1 .. 3 LOOP
      BEGIN
        told := _flohsync.trigger_per_record(c, _run, todo.seqs, todo.setbacks);
        EXIT;
      EXCEPTION WHEN OTHERS THEN
        failed := _flohsync.stage_failed(_run, 'workflow', SQLSTATE, SQLERRM, _attempt);
        EXIT WHEN failed <> '[]';
      END;
    END LOOP;
    IF failed <> '[]' THEN
      -- The workflow is told of these changes after the next pass.
      errors := errors || failed;
      broken := true;
      PERFORM _flohsync.keep_page_changes(y.id)
         FROM (SELECT DISTINCT x.id FROM flohsync.sync_run x JOIN flohsync.sync_run_page g ON g.run_id = x.id
               AND g.changed IS NOT NULL
                WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type ORDER BY x.id) y;
      todo.seqs := ARRAY(SELECT q.seq FROM _flohsync.record_change q WHERE q.seq = ANY (todo.seqs)
                         AND q.change = 'recheck');
    ELSE
      errors := errors || told.errors;
      report := report || CASE WHEN told.jobs > 0 THEN jsonb_build_object('workflowJobs', told.jobs) ELSE '{}' END
                       || CASE WHEN told.refused > 0
                         THEN jsonb_build_object('rowsRefused',
                                                 told.refused + coalesce((report ->> 'rowsRefused')::bigint, 0))
                                                 ELSE '{}' END;
    END IF;
  END IF;

  -- What has been dealt with is not needed any more, but for what waits for a decision.
  changed_in := _flohsync.runs_with_changes(c.connector_id, c.resource_type);
  IF changed_in <> '{}' THEN
    PERFORM _flohsync.forget_page_changes(changed_in);
  END IF;
  PERFORM _flohsync.forget_changes(todo.seqs);
  IF NOT broken AND todo.setbacks <> '{}' THEN
    -- What was tried again and did not fail again.
    DELETE FROM _flohsync.setback s WHERE s.config_id = c.id AND s.resource_id = ANY (todo.setbacks)
        AND s.tried_at < now();
  END IF;
  IF todo.by_record <> '{}' THEN
    PERFORM _flohsync.forget_departures(ARRAY(
      SELECT x.id FROM flohsync.resource_record x
       WHERE x.id = ANY (todo.by_record) AND x.stale_since IS NULL
         AND EXISTS (SELECT FROM _flohsync.departure d WHERE d.resource_id = x.id)));
  END IF;
  IF users AND (held OR _held) THEN
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
      SELECT m.connector_resource_id FROM _flohsync.users_to_deactivate(c, touched) l(id)
        JOIN flohsync.connector_sync_match m ON m.user_id = l.id AND m.connector_id = c.connector_id
            AND m.resource_type = c.resource_type
       WHERE c.deactivate_users
      UNION
      SELECT m.connector_resource_id FROM flohsync.connector_sync_match m
       WHERE _held AND m.connector_id = c.connector_id AND m.resource_type = c.resource_type
         AND m.match_status = 'create_pending'
         AND (touched IS NULL OR m.connector_resource_id = ANY (touched))), 'recheck');
  END IF;
  IF errors <> '[]' THEN
    report := report || jsonb_build_object('errors', errors);
  END IF;
  IF broken THEN
    -- All of it once more, next time.
    PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, touched, 'recheck');
  END IF;
  IF broken AND touched IS NULL THEN
    DELETE FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  ELSIF users AND (p.config_id IS NULL OR todo.ids IS NOT NULL
                   OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= p.users_seen)) THEN
    -- If the settings are changed meanwhile, the new ones are others than these.
    INSERT INTO _flohsync.match_progress AS x (config_id, rules, users_seen, own_xid, matched_by)
    VALUES (c.id, _flohsync.people_rules(c), horizon,
            CASE WHEN r.status = 'running' THEN pg_current_xact_id_if_assigned() END, _flohsync.match_rules(c))
    ON CONFLICT (config_id) DO UPDATE SET rules = EXCLUDED.rules, users_seen = EXCLUDED.users_seen,
      own_xid = EXCLUDED.own_xid, matched_by = EXCLUDED.matched_by;
    -- The users that this changed are processed, except for other records that could be theirs.
    IF r.status = 'running'
        AND EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid = pg_current_xact_id_if_assigned()) THEN
      PERFORM _flohsync.note_changes(c.connector_id, c.resource_type, ARRAY(
        SELECT DISTINCT u.id FROM _flohsync.reached_by_users(c, pg_current_xact_id_if_assigned(), NULL) u
          LEFT JOIN flohsync.connector_sync_match m ON m.connector_resource_id = u.id
         WHERE m.user_id IS DISTINCT FROM u.user_id
           AND coalesce(m.match_status, '') NOT IN ('manual_override', 'skipped')), 'recheck');
    END IF;
    -- The transaction of approve_run() may stay open: every other post-sync would wait for its end.
    IF r.status = 'running' THEN
      PERFORM _flohsync.forget_user_changes();
    END IF;
  END IF;
  IF report ? 'matchesChanged' THEN
    report := report || jsonb_build_object('matches', flohsync.match_stats(c.connector_id::text, c.resource_type)
                                           - 'resourceType');
  END IF;
  IF report <> '{}' THEN
    -- An approved run has been here before.
    UPDATE flohsync.sync_run x
       SET post_sync = report || _flohsync.add_counters(_flohsync.totals_of(coalesce(x.post_sync, '{}')),
                                                        _flohsync.totals_of(report))
     WHERE x.id = _run;
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync(bigint, boolean) IS
  'Post-sync processing of a run (_held: held by the staling safeguard); returns held when the deactivation safeguard '
  'holds it';

CREATE FUNCTION _flohsync.post_sync_failed(_run bigint, _state text, _message text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.match_progress p
   USING flohsync.sync_run r JOIN flohsync.connector_sync_config c ON c.connector_id = r.connector_id
       AND c.resource_type = r.resource_type
   WHERE r.id = _run AND p.config_id = c.id;
  INSERT INTO flohsync.sync_error (run_id, error_class, message)
    VALUES (_run, _flohsync.error_class('post_sync'), _message);
  UPDATE flohsync.sync_run x
     SET post_sync = jsonb_build_object('errors',
                                        jsonb_build_array(jsonb_build_object('stage', 'post_sync', 'sqlstate', _state,
                                            'message', _message)))
   WHERE x.id = _run;
END
$$;
COMMENT ON FUNCTION _flohsync.post_sync_failed(bigint, text, text) IS
  'Records that post-sync failed completely, so that the next one processes everything';
