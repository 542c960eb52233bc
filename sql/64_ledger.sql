-- The ledger of a pass: which records its pages have seen.
--
-- A page that came as it came before (63_page_print) has seen what its fingerprint says.
-- As long as the run goes on, that is looked up there: most such passes are complete, and
-- then nobody asks for it again.  Where a run ends in another way, or is gone on with after
-- a crash, fill_ledger() has it in the page's own row, and the fingerprint may go.

CREATE FUNCTION _flohsync.pass_pages(_pass bigint) RETURNS SETOF flohsync.sync_run_page
LANGUAGE sql STABLE
BEGIN ATOMIC
  -- By run, whatever the planner knows of the tables: a plan is kept while they grow.
  SELECT p.run_id, p.page, p.cursor, p.next_cursor, p.fetched_at, p.records, p.bytes, p.fetch_ms, p.apply_ms,
    p.added, p.updated, p.unchanged, p.restored, p.filtered, p.errored, p.ignored, p.duplicates, p.truncated,
    p.unidentified, p.total_estimate,
    coalesce(p.seen, (SELECT f.seen FROM _flohsync.page_print f WHERE f.id = p.print AND r.status = 'running')),
    p.deleted, p.changed, p.incomplete, p.link, p.unread, p.print
    FROM flohsync.sync_run r
   CROSS JOIN LATERAL (SELECT x.* FROM flohsync.sync_run_page x WHERE x.run_id = r.id OFFSET 0) p
   WHERE r.pass_id = _pass;
END;
COMMENT ON FUNCTION _flohsync.pass_pages(bigint) IS 'The ledger of a pass';

CREATE FUNCTION _flohsync.seen_since(_connector uuid, _type text, _since timestamptz, _run bigint) RETURNS bytea
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  pages bytea[];
BEGIN
  pages := ARRAY(
    SELECT p.seen
      FROM flohsync.sync_run r JOIN flohsync.sync_run_page p ON p.run_id = r.id AND p.seen IS NOT NULL
     WHERE r.connector_id = _connector AND r.resource_type = _type AND p.fetched_at >= _since AND r.id > _run
    UNION ALL
    SELECT f.seen
      FROM flohsync.sync_run r
      JOIN flohsync.sync_run_page p ON p.run_id = r.id AND p.seen IS NULL AND p.print IS NOT NULL
      LEFT JOIN _flohsync.page_print f ON f.id = p.print
     WHERE r.connector_id = _connector AND r.resource_type = _type AND p.fetched_at >= _since AND r.id > _run
       AND r.status = 'running');
  -- Without that of a page, nothing counts as missing.
  IF array_position(pages, NULL) IS NOT NULL THEN
    PERFORM _flohsync.raise('55000', 'the ledger of a run is incomplete', NULL, 'Try again when the run has ended.');
  END IF;
  RETURN _flohsync.ledger_union(pages);
END
$$;
COMMENT ON FUNCTION _flohsync.seen_since(uuid, text, timestamptz, bigint) IS
  'Union of the records seen by pages fetched since a time, of runs after one, complete or not, for ledger_has';

CREATE FUNCTION _flohsync.fill_ledger(_run bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
  UPDATE flohsync.sync_run_page p SET seen = f.seen
    FROM _flohsync.page_print f
   WHERE p.run_id = _run AND p.seen IS NULL AND f.id = p.print;
END
$$;
COMMENT ON FUNCTION _flohsync.fill_ledger(bigint) IS
  'Writes into the ledger of a run what the pages have seen that it did not read; before it ends without being '
  'complete';

-- Where nothing has changed, and nothing is left to do, one update settles a pass, with what follows it.
CREATE FUNCTION _flohsync.settle_as_before(_run bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off  -- whatever is known of the tables: what is asked for is mostly not there
AS $$
DECLARE
  c flohsync.connector_sync_config;
  known _flohsync.match_progress;
BEGIN
  SELECT x.* INTO c
    FROM flohsync.sync_run r
    JOIN flohsync.connector_sync_config x ON x.connector_id = r.connector_id AND x.resource_type = r.resource_type
   WHERE r.id = _run FOR NO KEY UPDATE OF x;
  IF NOT FOUND
     OR NOT EXISTS (SELECT FROM _flohsync.page_print_scope s JOIN flohsync.sync_run r ON r.id = _run
                     WHERE s.config_id = c.id AND s.open_pass = r.pass_id AND s.pass_id IS NOT NULL)
     OR EXISTS (SELECT FROM _flohsync.dirty_record d
                 WHERE d.connector_id = c.connector_id AND d.resource_type = c.resource_type)
     OR EXISTS (SELECT FROM flohsync.sync_run r
                 WHERE r.connector_id = c.connector_id AND r.resource_type = c.resource_type AND r.status = 'held')
     OR EXISTS (SELECT FROM _flohsync.record_change q
                 WHERE q.connector_id = c.connector_id AND q.resource_type = c.resource_type)
     OR (EXISTS (SELECT FROM flohsync.sync_run_page p WHERE p.changed IS NOT NULL)
         AND _flohsync.runs_with_changes(c.connector_id, c.resource_type) <> '{}')
     OR EXISTS (SELECT FROM _flohsync.setback b WHERE b.config_id = c.id)
     OR EXISTS (SELECT FROM flohsync.resource_record x
                 WHERE x.connector_id = c.connector_id AND x.resource_type = c.resource_type
                   AND x.stale_since < clock_timestamp() - _flohsync.duration(c.stale_retention)) THEN
    RETURN false;
  END IF;
  -- As in post_sync(): is everybody matched, by these rules, and has no user changed since?
  SELECT * INTO known FROM _flohsync.match_progress x WHERE x.config_id = c.id;
  IF _flohsync.matches_users(c) THEN
    IF known.config_id IS NULL OR known.users_seen > pg_snapshot_xmax(pg_current_snapshot())
       OR known.rules <> _flohsync.people_rules(c) OR NOT _flohsync.users_are_watched()
       OR EXISTS (SELECT FROM _flohsync.user_change u WHERE u.xid >= known.users_seen) THEN
      RETURN false;
    END IF;
  ELSIF known.config_id IS NOT NULL THEN
    RETURN false;
  END IF;
  UPDATE flohsync.connector_sync_config x
     SET last_full_pass_at = greatest(x.last_full_pass_at,
                                      (SELECT r.pass_started_at FROM flohsync.sync_run r WHERE r.id = _run))
   WHERE x.id = c.id;
  RETURN true;
END
$$;
COMMENT ON FUNCTION _flohsync.settle_as_before(bigint) IS
  'Settles a full pass all of whose pages came as before, in place of settle_pass(), post_sync() and purge_run(); '
  'false, and nothing is done, where one of these may have something to do';
