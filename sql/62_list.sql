-- Asking for records.

CREATE FUNCTION _flohsync.resource_dto(_r flohsync.connector_resource) RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_build_object(
  'id', (_r).id, 'connectorId', (_r).connector_id, 'resourceType', (_r).resource_type, 'externalId', (_r).external_id,
  'displayName', (_r).display_name, 'email', (_r).email, 'attributes', (_r).attributes, 'syncHash', (_r).sync_hash,
  'staleSince', _flohsync.iso((_r).stale_since), 'syncedAt', _flohsync.iso((_r).synced_at), 'createdAt',
    _flohsync.iso((_r).created_at));
COMMENT ON FUNCTION _flohsync.resource_dto(flohsync.connector_resource) IS 'A record in its public JSON form';

-- From one type to the next, not from record to record.
CREATE FUNCTION _flohsync.types_of(_connector uuid) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
  types text[] := '{}';
  type text;
BEGIN
  LOOP
    SELECT x.resource_type INTO type FROM flohsync.resource_record x
     WHERE x.connector_id = _connector AND x.resource_type > coalesce(type, '') ORDER BY x.resource_type LIMIT 1;
    EXIT WHEN NOT FOUND;
    types := types || type;
  END LOOP;
  RETURN types;
END
$$;
COMMENT ON FUNCTION _flohsync.types_of(uuid) IS 'The resource types for which a connector has records';

CREATE FUNCTION flohsync.list_resources(connector text, resource_type text DEFAULT NULL, search text DEFAULT NULL,
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
SELECT _flohsync.allow('reader', 'flohsync.list_resources(text, text, text, boolean, int, int, text)');

CREATE FUNCTION flohsync.get_resource(connector text, resource_type text, external_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  _connector uuid := _flohsync.connector_id(connector);
  _type text := _flohsync.check_resource_type(get_resource.resource_type);
BEGIN
  RETURN (SELECT _flohsync.resource_dto(r) FROM flohsync.connector_resource r
           WHERE r.external_id = get_resource.external_id AND r.resource_type = _type AND r.connector_id = _connector);
END
$$;
COMMENT ON FUNCTION flohsync.get_resource(text, text, text) IS
  'One record in the form of list_resources(); null when there is none; 42704 for an unknown connector, 22023 '
  'for a malformed resource type';
SELECT _flohsync.allow('reader', 'flohsync.get_resource(text, text, text)');
