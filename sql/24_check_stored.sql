-- What is stored was checked when it was stored, by functions and triggers; and
-- yet it may have been written past them, or have come with a dump of another
-- version.  A run looks again before it begins, so that what cannot be used is
-- named, and never read as something else.

CREATE FUNCTION _flohsync.check_stored(_connector uuid, _type text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d flohsync.connector_definition;
  c flohsync.connector_sync_config;
  problem text;
BEGIN
  SELECT * INTO d FROM flohsync.connector_definition x WHERE x.id = _connector;
  SELECT * INTO c FROM flohsync.connector_sync_config x WHERE x.connector_id = _connector AND x.resource_type = _type;
  IF d.id IS NULL OR c.id IS NULL THEN
    RETURN;
  END IF;
  PERFORM _flohsync.check_connector(d.kind, d.config, d.definition, false);
  IF d.kind = 'rest' THEN
    PERFORM _flohsync.check_strategy(d.definition, _type, c.strategy);
  END IF;
  IF c.filter_rules IS NOT NULL THEN
    PERFORM _flohsync.check_filter_rules(c.filter_rules);
  END IF;
  IF c.hash_ignore IS NOT NULL THEN
    PERFORM _flohsync.check_texts('hashIgnore', c.hash_ignore);
  END IF;
  IF c.attribute_mappings IS NOT NULL THEN
    PERFORM _flohsync.check_mappings(c.attribute_mappings);
  END IF;
  IF c.user_match_fallback_strategies IS NOT NULL THEN
    PERFORM _flohsync.check_fallbacks(c.user_match_fallback_strategies);
  END IF;
  IF jsonb_typeof(c.create_user_defaults) <> 'object' THEN
    PERFORM _flohsync.invalid('createUserDefaults', 'it must be an object or null');
  END IF;
  PERFORM _flohsync.check_safeguards(c.safeguards);
  problem := CASE WHEN c.issuer_source_path IS NOT NULL THEN _flohsync.path_problem(c.issuer_source_path) END;
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('issuerSourcePath', problem);
  END IF;
  IF _flohsync.duration(c.stale_retention) IS NULL THEN
    PERFORM _flohsync.invalid('staleRetention', format('%L is not a duration', c.stale_retention));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_stored(uuid, text) IS
  'Raises 22023 when the stored connector or the stored configuration of a resource type is invalid';
