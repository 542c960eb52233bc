-- Lists: pages of records and matches, in the order of an index, searched or not.
--
-- What is searched for is folded, and so is what it is looked for in (src/record/
-- search_text.c).  How a search is done, and what its total is, src/record/
-- search_page.c decides.

CREATE FUNCTION _flohsync.search_fold(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_search_fold';
COMMENT ON FUNCTION _flohsync.search_fold(text) IS 'A text folded for searches: in lower case, by ICU or the locale';

CREATE FUNCTION _flohsync.search_text(_external_id text, _email text, _display_name text) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'flohsync_search_text';
COMMENT ON FUNCTION _flohsync.search_text(text, text, text) IS
  'The searchable texts of a record, folded, in one text; for the indexes of enable_search()';

CREATE FUNCTION _flohsync.search_marks(_external_id text, _email text, _display_name text) RETURNS int[]
LANGUAGE c IMMUTABLE PARALLEL SAFE COST 20 AS 'MODULE_PATHNAME', 'flohsync_search_marks';
COMMENT ON FUNCTION _flohsync.search_marks(text, text, text) IS
  'What trigrams do not tell of the searchable texts of a record, null when there is nothing; for the indexes of '
  'enable_search()';

-- By what it is, not by its name alone: it is read without the planner, which would see that.
CREATE FUNCTION _flohsync.search_index(_table regclass) RETURNS regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT i.indexrelid::regclass
          FROM pg_class t
          JOIN pg_index i ON i.indrelid = t.oid
          JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = t.relname || '_search'
          JOIN pg_am a ON a.oid = c.relam AND a.amname = 'gin'
          JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcname = 'gin_trgm_ops'
         WHERE t.oid = _table AND i.indisvalid AND i.indnatts = 1 AND i.indpred IS NULL
           AND pg_get_expr(i.indexprs, i.indrelid) = CASE _table
             WHEN 'flohsync.resource_record'::regclass
             THEN '_flohsync.search_text((external_id)::text, (email)::text, (display_name)::text)'
             ELSE '_flohsync.search_text((external_id)::text, (external_email)::text, (external_display_name)::text)'
             END);
COMMENT ON FUNCTION _flohsync.search_index(regclass) IS
  'Index that enable_search() created on a table; null when there is none';

CREATE FUNCTION _flohsync.search_marks_index(_table regclass) RETURNS regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT i.indexrelid::regclass
          FROM pg_class t
          JOIN pg_index i ON i.indrelid = t.oid
          JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = t.relname || '_search_marks'
          JOIN pg_am a ON a.oid = c.relam AND a.amname = 'gin'
          JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcname = 'array_ops'
         CROSS JOIN (SELECT CASE _table
             WHEN 'flohsync.resource_record'::regclass
             THEN '_flohsync.search_marks((external_id)::text, (email)::text, (display_name)::text)'
             ELSE '_flohsync.search_marks((external_id)::text, (external_email)::text, (external_display_name)::text)'
             END) m(expression)
         WHERE t.oid = _table AND i.indisvalid AND i.indnatts = 1
           AND pg_get_expr(i.indexprs, i.indrelid) = m.expression
           AND pg_get_expr(i.indpred, i.indrelid) = format('(%s IS NOT NULL)', m.expression));
COMMENT ON FUNCTION _flohsync.search_marks_index(regclass) IS
  'Index that enable_search() created on a table for one and two characters; null when there is none';

CREATE FUNCTION _flohsync.make_search_indexes(_opclass oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'flohsync_make_search_indexes';
COMMENT ON FUNCTION _flohsync.make_search_indexes(oid) IS
  'Creates the indexes of enable_search() with a GIN operator class, whatever privileges the owner of '
  'flohsync has on its schema';

CREATE FUNCTION _flohsync.search_hint() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
  THEN 'SELECT flohsync.enable_search() makes indexes for searches.'
  WHEN EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')
  THEN 'Run CREATE EXTENSION pg_trgm, which is part of PostgreSQL, and then SELECT flohsync.enable_search().'
  ELSE 'pg_trgm is part of PostgreSQL, in a package such as postgresql-contrib. Install that, run CREATE EXTENSION '
       'pg_trgm, and then SELECT flohsync.enable_search().' END;
COMMENT ON FUNCTION _flohsync.search_hint() IS 'How to come to indexes for searches';

CREATE FUNCTION flohsync.enable_search() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  _opclass oid;
  broken regclass;
BEGIN
  -- By what belongs to the extension: its schema can be any.
  SELECT o.oid INTO _opclass
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        AND d.classid = 'pg_opclass'::regclass AND d.deptype = 'e'
    JOIN pg_opclass o ON o.oid = d.objid AND o.opcname = 'gin_trgm_ops'
   WHERE e.extname = 'pg_trgm';
  IF NOT FOUND THEN
    RAISE NOTICE USING
      MESSAGE = 'extension pg_trgm is not installed: searches with few hits read all records of a type',
      HINT = _flohsync.search_hint();
    RETURN false;
  END IF;
  IF num_nulls(_flohsync.search_index('flohsync.resource_record'),
               _flohsync.search_index('flohsync.connector_sync_match'),
               _flohsync.search_marks_index('flohsync.resource_record'),
               _flohsync.search_marks_index('flohsync.connector_sync_match')) = 0 THEN
    RETURN true;
  END IF;
  -- Others who make them wait here, and find them made.
  LOCK TABLE flohsync.resource_record, flohsync.connector_sync_match IN SHARE ROW EXCLUSIVE MODE;
  -- What a CREATE INDEX CONCURRENTLY that failed has left behind.
  FOR broken IN SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid IN ('flohsync.resource_record'::regclass, 'flohsync.connector_sync_match'::regclass)
                   AND NOT i.indisvalid
                   AND c.relname IN (SELECT t.relname || k.kind FROM pg_class t
                                      CROSS JOIN unnest(ARRAY['_search', '_search_marks']) k(kind)
                                      WHERE t.oid = i.indrelid) LOOP
    EXECUTE format('DROP INDEX %s', broken);
  END LOOP;
  PERFORM _flohsync.make_search_indexes(_opclass);
  -- Without statistics of what they index they would be used where they do not pay.
  ANALYZE flohsync.resource_record, flohsync.connector_sync_match;
  RAISE NOTICE USING
    MESSAGE = 'searches in list_resources() and list_matches() now have indexes',
    HINT = 'DROP INDEX flohsync.resource_record_search, flohsync.resource_record_search_marks, '
           'flohsync.connector_sync_match_search, flohsync.connector_sync_match_search_marks removes them. A dump '
           'does not include them.';
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.enable_search() IS
  'Creates the indexes for searches in list_resources() and list_matches(), flohsync.resource_record_search and '
  'flohsync.connector_sync_match_search, of pg_trgm, and with …_marks behind these names, for one and two characters, '
  'unless they exist; blocks writes meanwhile; false where extension pg_trgm is missing. A dump does not include them: '
  'call it again in a restored database. DROP INDEX removes them';
SELECT _flohsync.allow('manager', 'flohsync.enable_search()');

CREATE FUNCTION _flohsync.check_page(_page int, _page_size int) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF _page IS NULL OR _page < 1 THEN
    PERFORM _flohsync.invalid('page', 'it must be at least 1', 'Pages are counted from 1.');
  ELSIF _page_size IS NULL OR _page_size NOT BETWEEN 1 AND 2000 THEN
    PERFORM _flohsync.invalid('page_size', 'it must be from 1 to 2000', 'The default is 50.');
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_page(int, int) IS 'Raises 22023 for an invalid page number or size';

CREATE FUNCTION _flohsync.page_object(_data jsonb, _total bigint, _page int, _page_size int) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN pg_catalog.jsonb_build_object('data', coalesce(_data, '[]'), 'total', _total, 'page', _page,
                                     'pageSize', _page_size,
                                     'totalPages', (_total + _page_size - 1) / _page_size);
COMMENT ON FUNCTION _flohsync.page_object(jsonb, bigint, int, int) IS 'A page of a list in its public JSON form';

-- Where a list is gone on with.  A total that took long to find goes along: it is
-- that of the first page; and how many rows were seen, which is the total at the end.
CREATE FUNCTION _flohsync.page_mark(_external_id text, _type text, _list text, _total bigint, _seen bigint,
                                    _estimated boolean) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN pg_catalog.translate(pg_catalog.encode(pg_catalog.convert_to(
         pg_catalog.jsonb_build_array(_external_id, _type, _list, _total, _seen, _estimated)::text, 'UTF8'), 'base64'),
         E'+/=\n', '-_');
COMMENT ON FUNCTION _flohsync.page_mark(text, text, text, bigint, bigint, boolean) IS
  'The value that list_resources() returns as nextAfter';

-- One of version 0.2 has no more than the total.
CREATE FUNCTION _flohsync.read_page_mark(_mark text, _list text, OUT external_id text, OUT resource_type text,
                                         OUT total bigint, OUT seen bigint, OUT estimated boolean)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  mark jsonb;
BEGIN
  IF _mark IS NULL THEN
    RETURN;
  END IF;
  BEGIN
    IF length(_mark) <= 4000 AND _mark ~ '^[A-Za-z0-9_-]+$' THEN
      mark := convert_from(decode(rpad(translate(_mark, '-_', '+/'), (length(_mark) + 3) / 4 * 4, '='), 'base64'),
                           'UTF8')::jsonb;
    END IF;
  EXCEPTION WHEN data_exception THEN
    NULL;  -- not base64, not UTF-8, or not JSON
  END;
  IF coalesce(jsonb_typeof(mark) <> 'array' OR jsonb_typeof(mark -> 0) <> 'string'
              OR jsonb_typeof(mark -> 1) <> 'string' OR jsonb_typeof(mark -> 2) <> 'string'
              OR jsonb_typeof(mark -> 3) NOT IN ('number', 'null') OR length(mark ->> 0) > 255
              OR length(mark ->> 1) > 64, true) THEN
    PERFORM _flohsync.invalid('after', 'it is not a nextAfter of this list',
                              'Omit it to begin at the start of the list.');
  END IF;
  external_id := mark ->> 0;
  resource_type := mark ->> 1;
  IF mark ->> 2 = _list THEN
    total := CASE WHEN mark ->> 3 ~ '^[0-9]{1,15}$' THEN (mark ->> 3)::bigint END;
    seen := CASE WHEN mark ->> 4 ~ '^[0-9]{1,15}$' THEN (mark ->> 4)::bigint END;
    estimated := mark -> 5 IS DISTINCT FROM 'false';
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.read_page_mark(text, text) IS
  'The position of a nextAfter, and, if it is of the same list, what is known of the total; 22023 for anything else';

-- The plan is known; statistics are not.
CREATE FUNCTION _flohsync.walk_list(_sql text, _connector uuid, _types text[], _after_id text, _after_type text,
                                    _limit bigint, _offset bigint, OUT external_ids text[], OUT types text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
BEGIN
  EXECUTE _sql INTO external_ids, types USING _connector, _types, _after_id, _after_type, _limit, _offset;
END
$$;
COMMENT ON FUNCTION _flohsync.walk_list(text, uuid, text[], text, text, bigint, bigint) IS
  'Runs a statement that reads a list in the order of its index';

-- The keys of one page, and one more if there is one.  _from and _where say of
-- which rows x the list consists, beside connector and types.
CREATE FUNCTION _flohsync.list_keys(_from text, _where text, _connector uuid, _types text[], _after_id text,
                                    _after_type text, _page_size int, _offset bigint,
                                    OUT external_ids text[], OUT types text[])
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
-- One stretch of the index for each type.
BEGIN ATOMIC
SELECT w.external_ids, w.types FROM _flohsync.walk_list(
  pg_catalog.format('SELECT array_agg(p.external_id ORDER BY p.external_id, p.resource_type),
                            array_agg(p.resource_type ORDER BY p.external_id, p.resource_type)
    FROM (SELECT x.external_id, x.resource_type FROM unnest($2) t(type)
           CROSS JOIN LATERAL (SELECT x.external_id, x.resource_type FROM %s
                                WHERE x.connector_id = $1 AND x.resource_type = t.type%s%s
                                ORDER BY x.external_id LIMIT $5 + $6) x
           ORDER BY x.external_id, x.resource_type LIMIT $5 OFFSET $6) p',
    _from, _where, CASE WHEN _after_id IS NOT NULL
                     THEN ' AND x.external_id >= $3 AND (x.external_id > $3 OR x.resource_type > $4)' ELSE '' END),
  _connector, _types, _after_id, _after_type, _page_size + 1, _offset) w;
END;
COMMENT ON FUNCTION _flohsync.list_keys(text, text, uuid, text[], text, text, int, bigint) IS
  'The ids and types of a page of a list, and of the row after it';

CREATE FUNCTION _flohsync.search_page(_matches boolean, _index regclass, _marks regclass, _connector uuid,
                                      _types text[], _status text, _stale boolean, _folded text, _after_id text,
                                      _after_type text, _before bigint, _limit int, _scope bigint, _base bigint,
                                      INOUT total bigint, INOUT estimated boolean,
                                      OUT external_ids text[], OUT types text[])
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_search_page';
COMMENT ON FUNCTION _flohsync.search_page(boolean, regclass, regclass, uuid, text[], text, boolean, text, text, text,
                                          bigint, int, bigint, bigint, bigint, boolean) IS
  'The first hits of a search in records or matches behind a key or a number of them, and how many there are in all; '
  '_scope: rows of the list without a search, _base: those of matches whether their records are stale or not';

CREATE FUNCTION _flohsync.search_keys(_table regclass, _connector uuid, _types text[], _status text, _stale boolean,
                                      _folded text, _after_id text, _after_type text, _before bigint, _page_size int,
                                      _scope bigint, _base bigint, INOUT total bigint, INOUT estimated boolean,
                                      OUT external_ids text[], OUT types text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- No text is that long.
  IF length(_folded) > 1000 THEN
    total := 0;
    estimated := false;
    RETURN;
  END IF;
  SELECT p.* INTO total, estimated, external_ids, types
    FROM _flohsync.search_page(_table = 'flohsync.connector_sync_match'::regclass, _flohsync.search_index(_table),
      _flohsync.search_marks_index(_table), _connector, _types, _status, _stale, _folded, _after_id, _after_type,
      _before, _page_size + 1, _scope, _base, total, estimated) p;
END
$$;
COMMENT ON FUNCTION _flohsync.search_keys(regclass, uuid, text[], text, boolean, text, text, text, bigint, int, bigint,
                                          bigint, bigint, boolean) IS
  'The ids and types of a page of a search and of the row after it, and how many there are in all; _before: rows '
  'before the page';

CREATE FUNCTION _flohsync.count_of(_connector uuid, _type text, _states text[]) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN coalesce(CASE WHEN _type IS NULL
    THEN (SELECT sum(t.n) FROM _flohsync.tally t WHERE t.connector_id = _connector AND t.state = ANY (_states))
    ELSE (SELECT sum(t.n) FROM _flohsync.tally t WHERE t.connector_id = _connector AND t.resource_type = _type
          AND t.state = ANY (_states)) END, 0);
END
$$;
COMMENT ON FUNCTION _flohsync.count_of(uuid, text, text[]) IS
  'Number of records (live, stale) or matches (by status) of a type, or (null) of all types';

DO $$
DECLARE
  messages text := current_setting('client_min_messages');
BEGIN
  -- As in 00_guard.sql: a script runs with notices off.
  PERFORM set_config('client_min_messages', s.reset_val, true)
     FROM pg_settings s WHERE s.name = 'client_min_messages' AND s.setting = 'warning';
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
    RAISE NOTICE USING
      MESSAGE = 'searches in list_resources() and list_matches() have no indexes yet',
      HINT = _flohsync.search_hint();
  ELSE
    RAISE NOTICE USING
      MESSAGE = 'extension pg_trgm is not installed: searches with few hits read all records of a type',
      HINT = _flohsync.search_hint();
  END IF;
  PERFORM set_config('client_min_messages', messages, true);
END
$$;
