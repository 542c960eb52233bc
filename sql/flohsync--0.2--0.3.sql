--:include upgrade/begin.sql

-- Searches: 58_search.sql, 59_resolve.sql, 62_list.sql
-- By what it is, not by its name alone: it is read without the planner, which would see that.
CREATE OR REPLACE FUNCTION _flohsync.search_index(_table regclass) RETURNS regclass
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

CREATE OR REPLACE FUNCTION flohsync.enable_search() RETURNS boolean
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
  IF _flohsync.search_index('flohsync.resource_record') IS NOT NULL
      AND _flohsync.search_index('flohsync.connector_sync_match') IS NOT NULL THEN
    RETURN true;
  END IF;
  -- Others who make them wait here, and find them made.
  LOCK TABLE flohsync.resource_record, flohsync.connector_sync_match IN SHARE ROW EXCLUSIVE MODE;
  -- What a CREATE INDEX CONCURRENTLY that failed has left behind.
  FOR broken IN SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE i.indrelid IN ('flohsync.resource_record'::regclass, 'flohsync.connector_sync_match'::regclass)
                   AND NOT i.indisvalid
                   AND c.relname = (SELECT t.relname || '_search' FROM pg_class t WHERE t.oid = i.indrelid) LOOP
    EXECUTE format('DROP INDEX %s', broken);
  END LOOP;
  PERFORM _flohsync.make_search_indexes(_opclass);
  -- Without statistics of what they index they would be used where they do not pay.
  ANALYZE flohsync.resource_record, flohsync.connector_sync_match;
  RAISE NOTICE USING
    MESSAGE = 'searches in list_resources() and list_matches() now have indexes',
    HINT = 'DROP INDEX flohsync.resource_record_search, flohsync.connector_sync_match_search removes them. A '
           'dump does not include them.';
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.enable_search() IS
  'Creates the pg_trgm indexes for searches in list_resources() and list_matches(), flohsync.resource_record_search '
  'and flohsync.connector_sync_match_search, unless they exist; blocks writes meanwhile; false where extension pg_trgm '
  'is missing. A dump does not include them: call it again in a restored database. DROP INDEX removes them';

DROP FUNCTION _flohsync.list_keys(text, text, text, text, regclass, uuid, text[], text, text, text, int, bigint,
                                  boolean, bigint, bigint);
DROP FUNCTION _flohsync.walk_list(text, uuid, text[], text, text, text, bigint, bigint, bigint);
DROP FUNCTION _flohsync.search_found(text, text, text, text);
DROP FUNCTION _flohsync.read_page_mark(text, text);
DROP FUNCTION _flohsync.page_mark(text, text, text, bigint);

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

CREATE FUNCTION _flohsync.search_page(_matches boolean, _index regclass, _connector uuid, _types text[], _status text,
                                      _stale boolean, _folded text, _pattern text, _after_id text, _after_type text,
                                      _before bigint, _limit int, _scope bigint, _base bigint,
                                      INOUT total bigint, INOUT estimated boolean,
                                      OUT external_ids text[], OUT types text[])
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_search_page';
COMMENT ON FUNCTION _flohsync.search_page(boolean, regclass, uuid, text[], text, boolean, text, text, text, text,
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
      _connector, _types, _status, _stale, _folded,
      -- Fewer than three characters have no trigram; what is between the texts of a record is no part of one.
      CASE WHEN length(_folded) >= 3 AND strpos(_folded, E'\n') = 0 THEN _flohsync.like_pattern(_folded) END,
      _after_id, _after_type, _before, _page_size + 1, _scope, _base, total, estimated) p;
END
$$;
COMMENT ON FUNCTION _flohsync.search_keys(regclass, uuid, text[], text, boolean, text, text, text, bigint, int, bigint,
                                          bigint, bigint, boolean) IS
  'The ids and types of a page of a search and of the row after it, and how many there are in all; _before: rows '
  'before the page';

CREATE OR REPLACE FUNCTION flohsync.list_matches(connector text, resource_type text, status text DEFAULT NULL,
                                      search text DEFAULT NULL,
  page int DEFAULT 1, page_size int DEFAULT 50, stale boolean DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _statuses text[] := '{matched,unmatched,ambiguous,manual_override,skipped,create_pending}';
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(list_matches.resource_type);
  _status text := nullif(list_matches.status, '');
  _search text := _flohsync.search_fold(nullif(list_matches.search, ''));
  _of_scope bigint;
  _of_stale bigint;
  _of_all bigint;
  _stale boolean := list_matches.stale;
  _from text := 'flohsync.connector_sync_match x';
  _where text := '';
  _size constant int := list_matches.page_size;
  _before constant bigint := (list_matches.page - 1)::bigint * _size;
  _types text[];
  _ids text[];
  _total bigint;
  _estimated boolean := false;
  _data jsonb;
BEGIN
  PERFORM _flohsync.check_page(list_matches.page, _size);
  IF _status <> ALL (_statuses) THEN
    PERFORM _flohsync.invalid('status', format('%L is not a match status', _status),
      'Match statuses are matched, unmatched, ambiguous, manual_override, skipped and create_pending.');
  END IF;
  IF _status IS NOT NULL THEN
    _statuses := ARRAY[_status];
    _where := format(' AND x.match_status = %L', _status);
  END IF;
  _of_scope := _flohsync.count_of(_connector, _type, _statuses);
  _of_all := _of_scope;
  IF list_matches.stale IS NOT NULL AND _search IS NOT NULL THEN
    -- At most; a search looks at its hits alone.
    _of_stale := _flohsync.count_of(_connector, _type, '{stale}');
    IF list_matches.stale THEN
      _of_scope := least(_of_scope, _of_stale);
    ELSIF _of_stale = 0 THEN
      _stale := NULL;
    END IF;
  ELSIF list_matches.stale IS NOT NULL THEN
    _of_stale := (SELECT coalesce(sum(s.n), 0) FROM _flohsync.stale_matches(_connector, _type, _statuses) s);
    _of_scope := CASE WHEN list_matches.stale THEN _of_stale ELSE _of_scope - _of_stale END;
    IF list_matches.stale THEN
      _from := 'flohsync.resource_record s JOIN ' || _from || '
                ON x.connector_id = s.connector_id AND x.resource_type = s.resource_type
                  AND x.external_id = s.external_id';
      _where := _where || ' AND s.stale_since IS NOT NULL';
    ELSIF _of_stale > 0 THEN
      _where := _where || ' AND NOT EXISTS (SELECT FROM flohsync.resource_record s
                WHERE s.connector_id = x.connector_id AND s.resource_type = x.resource_type
                  AND s.external_id = x.external_id AND s.stale_since IS NOT NULL)';
    END IF;
  END IF;
  _types := CASE WHEN _of_scope > 0 THEN ARRAY[_type] ELSE '{}' END;
  IF _search IS NULL AND list_matches.stale AND _of_scope <= 20000 THEN
    -- From the few stale records, in no order of their own.
    EXECUTE format('SELECT ARRAY(SELECT x.external_id FROM %s WHERE x.connector_id = $1 AND x.resource_type = $2%s
                                  ORDER BY x.external_id LIMIT $3 OFFSET $4)', _from, _where)
       INTO _ids USING _connector, _type, _size, _before;
    _total := _of_scope;
  ELSIF _search IS NULL THEN
    SELECT k.external_ids INTO _ids
      FROM _flohsync.list_keys(_from, _where, _connector, _types, NULL, NULL, _size, _before) k;
    _total := _of_scope;
  ELSE
    SELECT k.external_ids, k.total, k.estimated INTO _ids, _total, _estimated
      FROM _flohsync.search_keys('flohsync.connector_sync_match', _connector, _types, _status, _stale, _search,
                                 NULL, NULL, _before, _size, _of_scope, _of_all, NULL, NULL) k;
  END IF;
  SELECT jsonb_agg(_flohsync.match_dto(m) || jsonb_build_object('staleSince', _flohsync.iso(r.stale_since))
                   ORDER BY k.position) INTO _data
    FROM unnest(_ids[:_size]) WITH ORDINALITY AS k(external_id, position)
   CROSS JOIN LATERAL (SELECT m.* FROM flohsync.connector_sync_match m
     -- by index, whatever their number
     WHERE m.connector_id = _connector AND m.resource_type = _type AND m.external_id = k.external_id OFFSET 0) m
   CROSS JOIN LATERAL (SELECT r.stale_since FROM flohsync.resource_record r
                       WHERE r.id = m.connector_resource_id OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _total, list_matches.page, _size)
         || CASE WHEN _estimated THEN '{"totalIsEstimate": true}' ELSE '{}' END::jsonb;
END
$$;
COMMENT ON FUNCTION flohsync.list_matches(text, text, text, text, int, int, boolean) IS
  'A page of matches in the order of their external ids, of one status, with a text in id, name or e-mail address, '
  'ignoring case, and of stale or active records, where these are given; pages of 1 to 2000 (50), counted from 1; '
  'staleSince is set for stale records; with a search, a total above 10000 may be an estimate, totalIsEstimate';

CREATE OR REPLACE FUNCTION flohsync.list_resources(connector text, resource_type text DEFAULT NULL,
                                                   search text DEFAULT NULL,
                                        stale boolean DEFAULT NULL,
  page int DEFAULT 1, page_size int DEFAULT 50, after text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := CASE WHEN list_resources.resource_type IS NOT NULL
    THEN _flohsync.check_resource_type(list_resources.resource_type) END;
  _search text := _flohsync.search_fold(nullif(list_resources.search, ''));
  -- What a total belongs to
  _list text := _flohsync.digest(jsonb_build_array(_connector, _type, _search, list_resources.stale)::text);
  _after record := _flohsync.read_page_mark(nullif(list_resources.after, ''), _list);
  _size constant int := list_resources.page_size;
  _before bigint := CASE WHEN _after.external_id IS NULL THEN (list_resources.page - 1)::bigint * _size
                         ELSE _after.seen END;
  _scope bigint;
  _types text[];
  _keys record;
  _total bigint;
  _estimated boolean := false;
  _data jsonb;
  _more boolean;
BEGIN
  PERFORM _flohsync.check_page(list_resources.page, _size);
  _types := CASE WHEN _type IS NULL THEN _flohsync.types_of(_connector) ELSE ARRAY[_type] END;
  _scope := _flohsync.count_of(_connector, _type, CASE WHEN stale THEN '{stale}' WHEN NOT stale THEN '{live}'
                                                      ELSE '{live,stale}' END::text[]);
  IF _search IS NULL THEN
    SELECT * INTO _keys FROM _flohsync.list_keys('flohsync.resource_record x',
      CASE WHEN stale THEN ' AND x.stale_since IS NOT NULL'
           WHEN NOT stale THEN ' AND x.stale_since IS NULL' ELSE '' END,
      _connector, _types, _after.external_id, _after.resource_type, _size,
      CASE WHEN _after.external_id IS NULL THEN _before ELSE 0 END);
    _total := _scope;
  ELSE
    SELECT * INTO _keys FROM _flohsync.search_keys('flohsync.resource_record', _connector, _types, NULL,
      list_resources.stale, _search, _after.external_id, _after.resource_type, _before, _size, _scope, _scope,
      _after.total, _after.estimated);
    _total := _keys.total;
    _estimated := _keys.estimated;
  END IF;
  _more := cardinality(_keys.external_ids) > _size;
  SELECT jsonb_agg(_flohsync.resource_dto(r) ORDER BY k.position) INTO _data
    FROM unnest(_keys.external_ids[:_size], _keys.types[:_size]) WITH ORDINALITY AS k(external_id, type, position)
   CROSS JOIN LATERAL (SELECT r.* FROM flohsync.connector_resource r
     -- by index, whatever their number
     WHERE r.external_id = k.external_id AND r.resource_type = k.type AND r.connector_id = _connector OFFSET 0) r;
  RETURN _flohsync.page_object(_data, _total, list_resources.page, _size)
         || CASE WHEN _estimated THEN '{"totalIsEstimate": true}' ELSE '{}' END::jsonb
         || jsonb_build_object('nextAfter', CASE WHEN _more
              THEN _flohsync.page_mark(_keys.external_ids[_size], _keys.types[_size], _list,
                                       CASE WHEN _search IS NOT NULL AND _total > 10000 THEN _total END,
                                       CASE WHEN _search IS NOT NULL THEN _before + _size END, _estimated) END);
END
$$;
COMMENT ON FUNCTION flohsync.list_resources(text, text, text, boolean, int, int, text) IS
  'A page of records of a connector, of all types or one, in byte order of external id and type; search: only those '
  'with this text in id, e-mail address or name, ignoring case; stale: only stale, or only active ones; pages of 1 to '
  '2000 (50), counted from 1; after: instead of page, the nextAfter of the page before, which is null at the end; '
  'with a search, a total above 10000 may be an estimate, totalIsEstimate. '
  '42704 for an unknown connector, 22023 names the invalid argument';

--:include upgrade/end.sql
