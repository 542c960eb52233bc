-- Maintained counts of records and matches.
--
-- Counting a million rows takes a third of a second.  So each statement that
-- changes their number leaves a row that says by how many (src/entry/tally.c),
-- and now and then several such rows are folded into one.  A figure is the sum
-- of the rows that one sees: exact in every snapshot, right after a rollback, a
-- crash and a restore, and no transaction waits for another one because of it.
--
-- Rows that are written with triggers off are not counted: tally_recount().

CREATE TABLE _flohsync.tally (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  id            bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  state         text COLLATE "C" NOT NULL,
  confidence    text COLLATE "C",
  n             bigint NOT NULL,
  PRIMARY KEY (connector_id, resource_type, id)
);
COMMENT ON TABLE _flohsync.tally IS 'Numbers of records and matches, as sums of n';
COMMENT ON COLUMN _flohsync.tally.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.tally.resource_type IS 'Resource type';
COMMENT ON COLUMN _flohsync.tally.id IS 'Identity of the row';
COMMENT ON COLUMN _flohsync.tally.state IS 'live or stale: records; else matches, of this match_status';
COMMENT ON COLUMN _flohsync.tally.confidence IS 'match_confidence of the matches';
COMMENT ON COLUMN _flohsync.tally.n IS 'Change of the number; may be negative';
CREATE TRIGGER tally_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('_flohsync.tally');

CREATE FUNCTION _flohsync.tally_row() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_tally_row';
COMMENT ON FUNCTION _flohsync.tally_row() IS 'Counts a row that is inserted, deleted, or changes its state';
CREATE FUNCTION _flohsync.tally_statement() RETURNS trigger
LANGUAGE c SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_tally_statement';
COMMENT ON FUNCTION _flohsync.tally_statement() IS 'Stores the counts of a statement';

-- Rows that another transaction is folding are left to it.
CREATE FUNCTION _flohsync.tally_fold(_connector uuid, _type text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH old AS (
    DELETE FROM _flohsync.tally t
     WHERE t.connector_id = _connector AND t.resource_type = _type
       AND t.id IN (SELECT x.id FROM _flohsync.tally x WHERE x.connector_id = _connector AND x.resource_type = _type
                    FOR UPDATE SKIP LOCKED)
    RETURNING t.state, t.confidence, t.n
  )
  INSERT INTO _flohsync.tally (connector_id, resource_type, state, confidence, n)
  SELECT _connector, _type, o.state, o.confidence, pg_catalog.sum(o.n) FROM old o
   GROUP BY o.state, o.confidence HAVING pg_catalog.sum(o.n) <> 0;
END;
COMMENT ON FUNCTION _flohsync.tally_fold(uuid, text) IS 'Merges the rows with the same state of a resource type';

CREATE FUNCTION _flohsync.tally_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.tally t WHERE (t.state IN ('live', 'stale')) = (TG_ARGV[0] = 'record');
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _flohsync.tally_truncated() IS 'Resets the counts of a truncated table';

CREATE FUNCTION _flohsync.tally_recount() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  LOCK TABLE flohsync.resource_record, flohsync.connector_sync_match IN SHARE MODE;
  DELETE FROM _flohsync.tally;
  INSERT INTO _flohsync.tally (connector_id, resource_type, state, n)
  SELECT r.connector_id, r.resource_type, CASE WHEN r.stale_since IS NULL THEN 'live' ELSE 'stale' END, count(*)
    FROM flohsync.resource_record r GROUP BY 1, 2, 3;
  INSERT INTO _flohsync.tally (connector_id, resource_type, state, confidence, n)
  SELECT m.connector_id, m.resource_type, m.match_status, m.match_confidence, count(*)
    FROM flohsync.connector_sync_match m GROUP BY 1, 2, 3, 4;
END
$$;
COMMENT ON FUNCTION _flohsync.tally_recount() IS
  'Recounts records and matches; for superusers, after rows were written with triggers disabled';

CREATE TRIGGER tally_row AFTER INSERT OR DELETE ON flohsync.resource_record
FOR EACH ROW EXECUTE FUNCTION _flohsync.tally_row('record');
CREATE TRIGGER tally_state AFTER UPDATE ON flohsync.resource_record
FOR EACH ROW WHEN ((OLD.stale_since IS NULL, OLD.connector_id, OLD.resource_type)
                   IS DISTINCT FROM (NEW.stale_since IS NULL, NEW.connector_id, NEW.resource_type))
EXECUTE FUNCTION _flohsync.tally_row('record');
CREATE TRIGGER tally_statement AFTER INSERT OR UPDATE OR DELETE ON flohsync.resource_record
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_statement();
CREATE TRIGGER tally_truncated AFTER TRUNCATE ON flohsync.resource_record
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_truncated('record');

CREATE TRIGGER tally_row AFTER INSERT OR DELETE ON flohsync.connector_sync_match
FOR EACH ROW EXECUTE FUNCTION _flohsync.tally_row('match');
CREATE TRIGGER tally_state AFTER UPDATE ON flohsync.connector_sync_match
FOR EACH ROW WHEN ((OLD.match_status, OLD.match_confidence, OLD.connector_id, OLD.resource_type)
                   IS DISTINCT FROM (NEW.match_status, NEW.match_confidence, NEW.connector_id, NEW.resource_type))
EXECUTE FUNCTION _flohsync.tally_row('match');
CREATE TRIGGER tally_statement AFTER INSERT OR UPDATE OR DELETE ON flohsync.connector_sync_match
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_statement();
CREATE TRIGGER tally_truncated AFTER TRUNCATE ON flohsync.connector_sync_match
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.tally_truncated('match');
