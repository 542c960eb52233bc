-- Fingerprints of pages: what a page was like, byte for byte, in the last complete
-- full pass, and what came of it.  A page that comes again with the same bytes is
-- not read, and its records are not looked up (src/run/prints.c).
--
-- Such a page says nothing new if, and only if, its records are stored as it left
-- them.  So whoever writes a record notes its record_no (dirty_record), and a page
-- that has seen one of these is read in full:
-- - Notes are inserted whether or not there are fingerprints.  Who looked first
--   could look before a pass begins, and commit behind its page.
-- - A note that was committed before a pass began is of no use after it: each page
--   with that record was read in full.  All others stay: the pass may have read
--   the page before.
-- - A full pass notes what it writes as well: another of its pages may have the
--   same record.  When it is complete, no two pages have, or none is kept.
-- Incremental passes have no fingerprints: the same bytes never come twice but for
-- a list that is empty.

CREATE TABLE _flohsync.page_print_scope (
  config_id     uuid PRIMARY KEY REFERENCES flohsync.connector_sync_config ON DELETE CASCADE,
  made_for      text NOT NULL,
  pass_id       bigint,
  open_pass     bigint NOT NULL,
  open_snapshot pg_snapshot NOT NULL
);
COMMENT ON TABLE _flohsync.page_print_scope IS 'Configurations whose pages have fingerprints';
COMMENT ON COLUMN _flohsync.page_print_scope.config_id IS 'Configuration';
COMMENT ON COLUMN _flohsync.page_print_scope.made_for IS
  'Settings that the pages were read by: fingerprint of the pass, and version of the library';
COMMENT ON COLUMN _flohsync.page_print_scope.pass_id IS
  'Last complete full pass: fingerprints of it and of passes before it can be used; null: none can';
COMMENT ON COLUMN _flohsync.page_print_scope.open_pass IS 'Full pass that began last';
COMMENT ON COLUMN _flohsync.page_print_scope.open_snapshot IS 'What was committed before that pass began';

CREATE TABLE _flohsync.page_print (
  id             bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  config_id      uuid NOT NULL,
  pass_id        bigint NOT NULL,
  page           integer NOT NULL,
  cursor         text,
  next_cursor    text,
  digest         bytea NOT NULL,
  bytes          bigint NOT NULL,
  records        integer NOT NULL,
  unchanged      integer NOT NULL,
  filtered       integer NOT NULL,
  truncated      integer NOT NULL,
  total_estimate bigint,
  seen           bytea NOT NULL,
  read_from      text NOT NULL,
  read_to        text NOT NULL,
  etag           text,
  last_modified  text,
  list_id        bigint,
  came           bytea
);
ALTER TABLE _flohsync.page_print ALTER COLUMN seen SET STORAGE EXTERNAL;
ALTER TABLE _flohsync.page_print ALTER COLUMN came SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX page_print_order ON _flohsync.page_print (config_id, page, pass_id);
COMMENT ON TABLE _flohsync.page_print IS 'Fingerprints of pages';
COMMENT ON COLUMN _flohsync.page_print.id IS 'Identity of the fingerprint';
COMMENT ON COLUMN _flohsync.page_print.config_id IS 'Configuration, of page_print_scope';
COMMENT ON COLUMN _flohsync.page_print.pass_id IS 'Full pass that read the page';
COMMENT ON COLUMN _flohsync.page_print.page IS 'Number of the page in that pass';
COMMENT ON COLUMN _flohsync.page_print.cursor IS 'Cursor of the request for the page; null: the first page';
COMMENT ON COLUMN _flohsync.page_print.next_cursor IS 'Cursor of the next page; null on the last one';
COMMENT ON COLUMN _flohsync.page_print.digest IS
  'SHA-256 of the answer; empty where the page had changed in two passes in a row: it is known by its list alone';
COMMENT ON COLUMN _flohsync.page_print.bytes IS 'Size of the answer';
COMMENT ON COLUMN _flohsync.page_print.records IS 'Records received, before filters';
COMMENT ON COLUMN _flohsync.page_print.unchanged IS 'Records in scope; each is stored as the page has it';
COMMENT ON COLUMN _flohsync.page_print.filtered IS 'Records out of scope';
COMMENT ON COLUMN _flohsync.page_print.truncated IS 'Display names cut to 255 characters';
COMMENT ON COLUMN _flohsync.page_print.total_estimate IS 'Total number of records reported by the upstream';
COMMENT ON COLUMN _flohsync.page_print.seen IS 'Ledger of the page, as in sync_run_page';
COMMENT ON COLUMN _flohsync.page_print.read_from IS
  'What the reading of the page went by besides the answer: the state of the list, and headers';
COMMENT ON COLUMN _flohsync.page_print.read_to IS 'The state of the list behind the page';
COMMENT ON COLUMN _flohsync.page_print.etag IS 'ETag of the answer, for conditional requests';
COMMENT ON COLUMN _flohsync.page_print.last_modified IS 'Last-Modified of the answer, for conditional requests';
COMMENT ON COLUMN _flohsync.page_print.list_id IS
  'List of the records, of page_list; null: the page has not changed since the first pass';
COMMENT ON COLUMN _flohsync.page_print.came IS
  'What is different from that list (src/page/known_text.c); null: nothing';

-- A page changes little from pass to pass, and its list is long.
CREATE TABLE _flohsync.page_list (
  id        bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  config_id uuid NOT NULL,
  came      bytea NOT NULL
);
ALTER TABLE _flohsync.page_list ALTER COLUMN came SET STORAGE EXTERNAL;
CREATE INDEX page_list_config ON _flohsync.page_list (config_id);
COMMENT ON TABLE _flohsync.page_list IS 'Lists of the records of pages; fingerprints refer to them';
COMMENT ON COLUMN _flohsync.page_list.id IS 'Identity of the list';
COMMENT ON COLUMN _flohsync.page_list.config_id IS 'Configuration, of page_print_scope';
COMMENT ON COLUMN _flohsync.page_list.came IS
  'Of each record, in its order, a digest of its text and its record_no (src/page/known_text.c)';

CREATE TABLE _flohsync.dirty_record (
  seq           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  nums          bytea,
  pass_id       bigint,
  xid           xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id()
);
CREATE INDEX dirty_record_scope ON _flohsync.dirty_record (connector_id, resource_type, pass_id);
CREATE TRIGGER dirty_records_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.dirty_record');
COMMENT ON TABLE _flohsync.dirty_record IS
  'Records that were written since: a page that has seen one of them is read in full; rows are only inserted';
COMMENT ON COLUMN _flohsync.dirty_record.seq IS 'Identity of the row';
COMMENT ON COLUMN _flohsync.dirty_record.connector_id IS 'Connector of the records';
COMMENT ON COLUMN _flohsync.dirty_record.resource_type IS 'Resource type of the records';
COMMENT ON COLUMN _flohsync.dirty_record.nums IS 'Their record_no, as ranges (ledger.c); null: of any record';
COMMENT ON COLUMN _flohsync.dirty_record.pass_id IS 'Full pass that wrote them; null: something else did';
COMMENT ON COLUMN _flohsync.dirty_record.xid IS 'Transaction that wrote them';

CREATE FUNCTION _flohsync.page_prints_removed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  -- A run that goes on, or is over by this, has not written what it has seen (64_ledger).
  UPDATE flohsync.sync_run_page p SET seen = f.seen
    FROM flohsync.sync_run r, _flohsync.page_print f
   WHERE r.status = 'running' AND p.run_id = r.id AND p.seen IS NULL AND f.id = p.print AND f.config_id = OLD.config_id;
  DELETE FROM _flohsync.page_print p WHERE p.config_id = OLD.config_id;
  DELETE FROM _flohsync.page_list l WHERE l.config_id = OLD.config_id;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.page_prints_removed() IS
  'Removes fingerprints whose page_print_scope is deleted; no foreign key, which would cost more than a fingerprint';
CREATE TRIGGER page_prints_removed AFTER DELETE ON _flohsync.page_print_scope
FOR EACH ROW EXECUTE FUNCTION _flohsync.page_prints_removed();

-- Who writes to records by hand, as a superuser can, notes nothing.
CREATE FUNCTION _flohsync.records_written_by_hand() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- A note, as of any other writer: whoever writes by hand and does not commit keeps no run from beginning.
  INSERT INTO _flohsync.dirty_record (connector_id, resource_type)
    SELECT c.connector_id, c.resource_type FROM flohsync.connector_sync_config c;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.records_written_by_hand() IS
  'Notes that any record may have been written, when somebody but the extension does so: full passes read all pages '
  'again';
CREATE TRIGGER written_by_hand AFTER INSERT OR UPDATE OR DELETE ON flohsync.resource_record
FOR EACH STATEMENT WHEN (current_user <> 'flohsync_owner'
  AND current_user <> coalesce(nullif(pg_catalog.current_setting('flohsync.worker_role', true), ''), 'flohsync_worker'))
EXECUTE FUNCTION _flohsync.records_written_by_hand();
CREATE TRIGGER truncated_by_hand AFTER TRUNCATE ON flohsync.resource_record
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.records_written_by_hand();

CREATE FUNCTION _flohsync.ledger_encode(_nums bigint[]) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_encode';
COMMENT ON FUNCTION _flohsync.ledger_encode(bigint[]) IS 'Some record_no as a page''s ledger has them';
CREATE FUNCTION _flohsync.ledger_repeats(_pages bytea[]) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_repeats';
COMMENT ON FUNCTION _flohsync.ledger_repeats(bytea[]) IS
  'How many times a record was seen on one more page, over all records';
CREATE FUNCTION _flohsync.ledger_meets(_seen bytea, _page bytea) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_ledger_meets';
COMMENT ON FUNCTION _flohsync.ledger_meets(bytea, bytea) IS
  'Whether a page has seen one of the records that are in what ledger_union returned';

-- With a filter that depends on other records, or that counts records, what comes of
-- a page does not follow from the page.
CREATE FUNCTION _flohsync.begin_page_prints(_run bigint, _wanted boolean, _version text,
  OUT config_id uuid, OUT pass_id bigint, OUT open_pass bigint, OUT last_complete bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  r flohsync.sync_run;
  c flohsync.connector_sync_config;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT * INTO c FROM flohsync.connector_sync_config x
   WHERE x.connector_id = r.connector_id AND x.resource_type = r.resource_type;
  IF r.strategy <> 'full' THEN
    RETURN;
  ELSIF NOT _wanted OR coalesce(c.filter_rules ?| ARRAY['memberOfSyncedGroups', 'maxRecords'], false) THEN
    -- The pass does not note what it writes.
    DELETE FROM _flohsync.page_print_scope s WHERE s.config_id = c.id;
    RETURN;
  END IF;
  INSERT INTO _flohsync.page_print_scope AS s (config_id, made_for, open_pass, open_snapshot)
  VALUES (c.id, concat_ws(' ', r.fingerprint, _version), r.pass_id, pg_current_snapshot())
  ON CONFLICT (config_id) DO UPDATE
    SET made_for = EXCLUDED.made_for,
        pass_id = CASE WHEN s.made_for = EXCLUDED.made_for THEN s.pass_id END,
        open_snapshot = CASE WHEN s.open_pass = EXCLUDED.open_pass AND s.made_for = EXCLUDED.made_for
                             THEN s.open_snapshot ELSE EXCLUDED.open_snapshot END,
        open_pass = EXCLUDED.open_pass
  RETURNING s.config_id, s.pass_id, s.open_pass INTO config_id, pass_id, open_pass;
  -- By the history's index, as in start_run().
  SELECT x.pass_id INTO last_complete FROM flohsync.sync_run x
   WHERE x.connector_id BETWEEN r.connector_id AND r.connector_id AND x.resource_type = r.resource_type
     AND x.id < _run AND x.status = 'success' AND x.complete AND x.strategy = 'full'
   ORDER BY x.connector_id, x.id DESC LIMIT 1;
END
$$;
COMMENT ON FUNCTION _flohsync.begin_page_prints(bigint, boolean, text) IS
  'Notes that a full pass begins, or goes on; returns the configuration of its fingerprints (null: it has none), up to '
  'which pass they can be used (null: none can), the pass, and the last complete full one';

-- Nothing has changed: each page came as before, and nobody else has written since.
CREATE FUNCTION _flohsync.pass_is_as_before(_run bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  IF NOT EXISTS (SELECT FROM _flohsync.page_print_scope s
                   JOIN flohsync.connector_sync_config c ON c.id = s.config_id
                  WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
                    AND s.open_pass = r.pass_id AND s.pass_id IS NOT NULL)
     OR EXISTS (SELECT FROM _flohsync.dirty_record d
                 WHERE d.connector_id = r.connector_id AND d.resource_type = r.resource_type) THEN
    RETURN false;
  END IF;
  RETURN (SELECT count(*) > 0 AND count(*) = count(l.print) AND count(*) = max(l.page) AND count(*) = count(l.seen)
            FROM _flohsync.pass_pages(r.pass_id) l);
END
$$;
COMMENT ON FUNCTION _flohsync.pass_is_as_before(bigint) IS
  'Whether all pages of the pass of a run had the fingerprints of the last complete one, and no record was written '
  'since: then its records are those that are there';

CREATE FUNCTION _flohsync.pass_was_alone(_run bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  RETURN EXISTS (SELECT FROM _flohsync.page_print_scope s
                   JOIN flohsync.connector_sync_config c ON c.id = s.config_id
                  WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type
                    AND s.open_pass = r.pass_id)
     AND NOT EXISTS (SELECT FROM _flohsync.dirty_record d
                      WHERE d.connector_id = r.connector_id AND d.resource_type = r.resource_type
                        AND d.pass_id IS NULL)
     AND NOT EXISTS (SELECT FROM _flohsync.dirty_record d
                      WHERE d.connector_id = r.connector_id AND d.resource_type = r.resource_type
                        AND d.pass_id < r.pass_id)
     AND NOT EXISTS (SELECT FROM _flohsync.dirty_record d
                      WHERE d.connector_id = r.connector_id AND d.resource_type = r.resource_type
                        AND d.pass_id > r.pass_id);
END
$$;
COMMENT ON FUNCTION _flohsync.pass_was_alone(bigint) IS
  'Whether nobody else is known to have written records of its type since the full pass of a run began, or before it '
  'and after the last complete one';

-- Whatever a pass has seen and could store is not stale afterwards, if nobody else has written it.  So if as
-- many records are live, these are all.
CREATE FUNCTION _flohsync.pass_misses_nothing(_run bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  r flohsync.sync_run;
  live bigint;
BEGIN
  IF NOT _flohsync.pass_was_alone(_run) THEN
    RETURN false;
  END IF;
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT sum(t.n) INTO live FROM _flohsync.tally t
   WHERE t.connector_id = r.connector_id AND t.resource_type = r.resource_type AND t.state = 'live';
  -- Of records that were set aside, or are newer than the page, it is not known whether they are stale.
  RETURN (SELECT count(*) > 0 AND count(*) = max(l.page) AND count(*) = count(l.seen) AND count(l.deleted) = 0
                 AND sum(l.errored + l.ignored) = 0
                 AND _flohsync.ledger_count(_flohsync.ledger_union(array_agg(l.seen))) = coalesce(live, 0)
            FROM _flohsync.pass_pages(r.pass_id) l);
END
$$;
COMMENT ON FUNCTION _flohsync.pass_misses_nothing(bigint) IS
  'Whether the complete full pass of a run has seen all live records, as far as that can be told without reading them';

CREATE FUNCTION _flohsync.keep_page_prints(_run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET work_mem = '16MB'
AS $$
DECLARE
  r flohsync.sync_run;
  s _flohsync.page_print_scope;
  used bigint[];
  again boolean;
BEGIN
  SELECT * INTO STRICT r FROM flohsync.sync_run x WHERE x.id = _run;
  SELECT p.* INTO s FROM _flohsync.page_print_scope p
    JOIN flohsync.connector_sync_config c ON c.id = p.config_id
   WHERE c.connector_id = r.connector_id AND c.resource_type = r.resource_type;
  IF s.config_id IS NULL THEN
    RETURN;
  END IF;
  SELECT array_agg(l.print) FILTER (WHERE l.print IS NOT NULL), count(l.print) = count(*) INTO used, again
    FROM _flohsync.pass_pages(r.pass_id) l;
  IF s.open_pass <> r.pass_id
     OR (NOT again AND (SELECT _flohsync.ledger_repeats(coalesce(array_agg(l.seen), '{}')) > 0
                          FROM _flohsync.pass_pages(r.pass_id) l)) THEN
    DELETE FROM _flohsync.page_print_scope p WHERE p.config_id = s.config_id;
    RETURN;
  END IF;
  IF NOT again THEN
    DELETE FROM _flohsync.page_print p
     WHERE p.config_id = s.config_id AND p.pass_id <> r.pass_id
       AND NOT EXISTS (SELECT FROM unnest(used) u(id) WHERE u.id = p.id);
    -- Whatever is known of the tables, the lists that are needed are looked up in memory.
    DELETE FROM _flohsync.page_list l
     WHERE l.config_id = s.config_id
       AND l.id NOT IN (SELECT p.list_id FROM _flohsync.page_print p
                         WHERE p.config_id = s.config_id AND p.list_id IS NOT NULL);
    UPDATE _flohsync.page_print_scope p SET pass_id = r.pass_id WHERE p.config_id = s.config_id;
  END IF;
  DELETE FROM _flohsync.dirty_record d
   WHERE d.connector_id = r.connector_id AND d.resource_type = r.resource_type
     AND (d.pass_id = r.pass_id OR pg_visible_in_snapshot(d.xid, s.open_snapshot));
END
$$;
COMMENT ON FUNCTION _flohsync.keep_page_prints(bigint) IS
  'Has the fingerprints that the complete pass of a run made, and those that it used, take the place of all others';

CREATE FUNCTION _flohsync.forget_dirty_records() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.dirty_record d
   WHERE d.seq = ANY (ARRAY(
     SELECT x.seq FROM _flohsync.dirty_record x
      WHERE NOT EXISTS (SELECT FROM _flohsync.page_print_scope s
                          JOIN flohsync.connector_sync_config c ON c.id = s.config_id
                         WHERE c.connector_id = x.connector_id AND c.resource_type = x.resource_type)
      FOR UPDATE SKIP LOCKED));
END
$$;
COMMENT ON FUNCTION _flohsync.forget_dirty_records() IS
  'Removes the notes of types without fingerprints; writers call it now and then';

CREATE FUNCTION _flohsync.forget_page_prints() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Whatever is known of these tables: by index.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
  -- To read each page in full costs less than to ask of each whether it is among so many.
  DELETE FROM _flohsync.page_print_scope s
   USING flohsync.connector_sync_config c
   WHERE c.id = s.config_id
     AND EXISTS (SELECT FROM _flohsync.dirty_record d
                  WHERE d.connector_id = c.connector_id AND d.resource_type = c.resource_type OFFSET 10000)
     AND NOT EXISTS (SELECT FROM flohsync.sync_run r
                      WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type
                        AND r.status IN ('queued', 'running'));
  PERFORM _flohsync.forget_dirty_records();
END
$$;
COMMENT ON FUNCTION _flohsync.forget_page_prints() IS
  'Removes the fingerprints of types with so many notes that they are of no use, and notes that are of none';
