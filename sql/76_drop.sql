-- Dropping a connector in parts: each call of drop_connector_part() is a transaction
-- of drop_connector_in_parts(), and says what the next one is to go on with.
-- - Configurations go before records.  Fingerprints of pages, delta links and
--   watermarks say that a record is here and need not be asked for, setbacks that it is
--   to be tried again, and a held run could still be approved; and nobody is
--   deactivated because the one of two records has gone that came first.
-- - Others write between two transactions.  So a table counts as empty only when
--   it has been looked through from its start, and what little has come since goes with
--   the connector itself.

-- How far it came is remembered: what was removed before is in the way until it is vacuumed.
CREATE FUNCTION _flohsync.drop_rows(_table regclass, _column name, _keys uuid[], _rows integer,
                                    INOUT _after text, OUT n bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_rows tid[];
BEGIN
  EXECUTE format('SELECT array_agg(x.ctid) FROM (SELECT t.ctid FROM %s t WHERE t.%I = ANY ($1) AND t.ctid > $2
                                                  LIMIT $3) x', _table, _column)
     INTO found_rows USING _keys, coalesce(_after, '(0,0)')::tid, _rows;
  n := coalesce(cardinality(found_rows), 0);
  _after := (SELECT max(f.id) FROM unnest(found_rows) f(id))::text;
  EXECUTE format('DELETE FROM %s t WHERE t.ctid = ANY ($1) AND t.%I = ANY ($2)', _table, _column)
    USING found_rows, _keys;
END
$$;
COMMENT ON FUNCTION _flohsync.drop_rows(regclass, name, uuid[], integer, text) IS
  'Removes some rows of a table whose column has one of the keys, behind a place in it, and says how many and where '
  'it ended';

-- By index, whatever the planner knows of the tables.
CREATE FUNCTION _flohsync.drop_records(_connector uuid, _rows integer, INOUT _after text, OUT n bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  _last constant text[] := coalesce(_after::text[], '{"", ""}');
  ids uuid[];
  keys text[];
  types text[];
BEGIN
  SELECT count(*), array_agg(x.id), array_agg(x.external_id), array_agg(x.resource_type) INTO n, ids, keys, types
    FROM (SELECT r.id, r.external_id, r.resource_type FROM flohsync.resource_record r
           WHERE r.connector_id = _connector
             AND (r.resource_type, r.external_id) > (_last[1], _last[2])
           ORDER BY r.resource_type, r.external_id LIMIT _rows) x;
  _after := ARRAY[types[n], keys[n]];
  IF n = 0 THEN
    RETURN;
  END IF;
  PERFORM _flohsync.records_dropped(_connector, ids, keys);
END
$$;
COMMENT ON FUNCTION _flohsync.drop_records(uuid, integer, text) IS
  'Removes some records of a connector, behind one in the order of their types and ids, with what hangs on them, and '
  'says how many and where it ended';

CREATE FUNCTION _flohsync.drop_history(_connector uuid, _rows integer) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  runs bigint[] := ARRAY(SELECT r.id FROM flohsync.sync_run r WHERE r.connector_id = _connector LIMIT _rows);
  n bigint := 0;
  more bigint;
BEGIN
  -- What hangs on a run may be more than a transaction is to remove.
  DELETE FROM flohsync.sync_run_page p
   WHERE p.ctid = ANY (ARRAY(SELECT x.ctid FROM flohsync.sync_run_page x WHERE x.run_id = ANY (runs) LIMIT _rows));
  GET DIAGNOSTICS n = ROW_COUNT;
  DELETE FROM flohsync.sync_error e
   WHERE e.id = ANY (ARRAY(SELECT x.id FROM flohsync.sync_error x WHERE x.run_id = ANY (runs) LIMIT _rows - n));
  GET DIAGNOSTICS more = ROW_COUNT;
  n := n + more;
  UPDATE flohsync.workflow_job j SET run_id = NULL
   WHERE j.id = ANY (ARRAY(SELECT x.id FROM flohsync.workflow_job x WHERE x.run_id = ANY (runs) LIMIT _rows - n));
  GET DIAGNOSTICS more = ROW_COUNT;
  n := n + more;
  IF n < _rows THEN
    DELETE FROM flohsync.sync_run r WHERE r.id = ANY (runs[:_rows - n]);
    GET DIAGNOSTICS more = ROW_COUNT;
    n := n + more;
  END IF;
  RETURN n;
END
$$;
COMMENT ON FUNCTION _flohsync.drop_history(uuid, integer) IS
  'Removes some of the runs of a connector, after the pages, errors and references of jobs that they have, and returns '
  'how many rows it has written';

CREATE FUNCTION _flohsync.drop_connector_part(_connector text, _rows integer, _state jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  of_configs constant regclass[] := '{_flohsync.page_print, _flohsync.page_list, _flohsync.setback}';
  of_connector constant regclass[] := '{_flohsync.record_change, _flohsync.departure, _flohsync.dirty_record,
    _flohsync.resource_tombstone, flohsync.user_external_identity, flohsync.sync_error, flohsync.entitlement_event,
    _flohsync.webhook_delivery}';
  _id uuid := (_state ->> 'id')::uuid;
  configs uuid[];
  step integer := (_state ->> 'step')::integer;
  _from text := _state ->> 'after';
  _after text;
  n bigint;
BEGIN
  IF _state IS NULL THEN
    IF _rows IS NULL OR _rows NOT BETWEEN 1 AND 1000000 THEN
      PERFORM _flohsync.invalid('batch_size', 'it must be a number from 1 to 1000000',
                                'It is how many records, or rows of another table, a transaction removes at most.');
    END IF;
    _id := _flohsync.connector_id(_connector);
    PERFORM _flohsync.stop_connector(_id, _connector, true);
    RETURN jsonb_build_object('id', _id, 'step', 1);
  END IF;
  PERFORM _flohsync.lock('connector', _id::text, false);
  PERFORM FROM flohsync.connector_definition d WHERE d.id = _id;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42704', _flohsync.clean(format('connector "%s" was dropped meanwhile', _connector)));
  END IF;
  configs := ARRAY(SELECT c.id FROM flohsync.connector_sync_config c WHERE c.connector_id = _id
                    ORDER BY c.id LIMIT _rows);
  LOOP
    _after := NULL;
    CASE
      WHEN step <= 3 THEN
        SELECT d.n, d._after INTO n, _after
          FROM _flohsync.drop_rows(of_configs[step], 'config_id', configs, _rows, _from) d;
      WHEN step = 4 THEN
        DELETE FROM flohsync.connector_sync_config c WHERE c.id = ANY (configs);
        GET DIAGNOSTICS n = ROW_COUNT;
        -- There may be more, each with what the steps before remove.
        IF n = _rows THEN
          step := 1;
        END IF;
      WHEN step = 5 THEN
        SELECT d.n, d._after INTO n, _after FROM _flohsync.drop_records(_id, _rows, _from) d;
      WHEN step = 6 THEN
        n := _flohsync.drop_history(_id, _rows);
      WHEN step <= 14 THEN
        SELECT d.n, d._after INTO n, _after
          FROM _flohsync.drop_rows(of_connector[step - 6], 'connector_id', ARRAY[_id], _rows, _from) d;
      WHEN EXISTS (SELECT FROM flohsync.resource_record r WHERE r.connector_id = _id OFFSET _rows) THEN
        step := 1;
        CONTINUE;
      ELSE
        PERFORM _flohsync.stop_connector(_id, _connector, false);
        PERFORM _flohsync.remove_connector(_id);
        RETURN NULL;
    END CASE;
    IF n < _rows THEN
      step := step + CASE WHEN _from IS NULL THEN 1 ELSE 0 END;
      _after := NULL;
    END IF;
    EXIT WHEN n > 0;
    _from := NULL;
  END LOOP;
  RETURN jsonb_build_object('id', _id, 'step', step, 'after', _after);
END
$$;
COMMENT ON FUNCTION _flohsync.drop_connector_part(text, integer, jsonb) IS
  'A transaction of drop_connector_in_parts(): removes some rows of a connector, _state null: stops it; returns the '
  '_state of the next one, and null when the connector has been removed';

CREATE PROCEDURE flohsync.drop_connector_in_parts(connector text, batch_size integer DEFAULT 10000)
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_drop_connector_in_parts';
COMMENT ON PROCEDURE flohsync.drop_connector_in_parts(text, integer) IS
  'Removes a connector as drop_connector() does, in transactions of at most batch_size records (1 to 1000000); it is '
  'disabled first; what was removed when the call is cancelled or fails stays removed, and another call goes on; not '
  'inside a transaction block; 42704 for an unknown connector, 22023 for an invalid batch_size';
SELECT _flohsync.allow('manager', 'flohsync.drop_connector_in_parts(text, integer)');
