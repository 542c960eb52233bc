-- A definition beside the connector's config and its configurations.

CREATE FUNCTION _flohsync.definition_names(_definition jsonb, _kind text) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT DISTINCT pg_catalog.substr(p.name, pg_catalog.length(_kind) + 2)
    FROM pg_catalog.jsonb_path_query(
           (_definition - ARRAY['description', '$schema', 'resources']) || pg_catalog.jsonb_build_object('resources',
             (SELECT pg_catalog.jsonb_object_agg(r.type, r.resource - 'description')
              FROM _flohsync.resources(_definition) r)),
           'strict $.** ? (@.type() == "string")') t(value)
   CROSS JOIN LATERAL _flohsync.placeholders(t.value #>> '{}') p(name)
   WHERE _flohsync.placeholder_kind(p.name) = _kind;
END;
COMMENT ON FUNCTION _flohsync.definition_names(jsonb, text) IS
  'Names of the {{config.NAME}} or {{secret.NAME}} that a definition uses';

CREATE FUNCTION _flohsync.credential_names(_d flohsync.connector_definition) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT n FROM _flohsync.of_kind('credentials', (_d).kind, (_d).config, (_d).definition) n
  UNION VALUES ('webhook'), ('webhook_previous');
END;
COMMENT ON FUNCTION _flohsync.credential_names(flohsync.connector_definition) IS
  'Names of the secrets that a connector uses, including those that verify its webhooks';

-- An unknown name may be the secret itself: it is not reported.
CREATE FUNCTION _flohsync.remark_secret(_connector uuid, _name text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  d flohsync.connector_definition;
BEGIN
  SELECT * INTO STRICT d FROM flohsync.connector_definition x WHERE x.id = _connector;
  IF _name NOT IN (SELECT n FROM _flohsync.credential_names(d) n) THEN
    RAISE NOTICE USING
      MESSAGE = _flohsync.clean(format('connector "%s" uses no secret of this name', d.name)),
      DETAIL = 'The name is not shown, since it may be the secret.',
      HINT = (SELECT format('It looks for %s.', string_agg(n, ', ' ORDER BY n COLLATE "C"))
              FROM _flohsync.credential_names(d) n);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.remark_secret(uuid, text) IS
  'Raises a NOTICE when a secret has a name that the connector does not use';

CREATE FUNCTION _flohsync.fill_placeholders(_text text, _config jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT pg_catalog.string_agg(
           CASE WHEN p.i = 1 THEN p.part
                ELSE coalesce(_config ->> pg_catalog.substr(pg_catalog.split_part(p.part, '}}', 1), 8), '')
                     || pg_catalog.substr(p.part, pg_catalog.strpos(p.part, '}}') + 2) END, '' ORDER BY p.i)
    FROM pg_catalog.regexp_split_to_table(_text, '\{\{') WITH ORDINALITY p(part, i);
END;
COMMENT ON FUNCTION _flohsync.fill_placeholders(text, jsonb) IS
  'A text of a valid definition with its {{config.NAME}} placeholders replaced';

CREATE FUNCTION _flohsync.raise_faults(_faults jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  said constant text := _flohsync.clean(format('invalid definition at "%s": %s', _faults -> 0 ->> 'pointer',
                                               _faults -> 0 ->> 'message'));
  advice constant text := coalesce(_faults -> 0 ->> 'hint',
                                   'flohsync.validate_definition() lists every fault; doc/definition.md describes the '
                                   'format.');
BEGIN
  IF jsonb_array_length(_faults) = 1 THEN
    PERFORM _flohsync.raise('22023', said, NULL, advice);
  ELSIF jsonb_array_length(_faults) > 1 THEN
    PERFORM _flohsync.raise('22023',
      said,
      (
      SELECT string_agg(_flohsync.clean(format('At "%s": %s', f ->> 'pointer', f ->> 'message')), E'\n' ORDER BY i)
             || CASE WHEN jsonb_array_length(_faults) > 21
               THEN format(E'\nAnd %s more.', jsonb_array_length(_faults) - 21) ELSE '' END
        FROM jsonb_array_elements(_faults) WITH ORDINALITY e(f, i) WHERE i BETWEEN 2 AND 21),
      advice);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.raise_faults(jsonb) IS 'Raises 22023 with the faults of a definition, if there are any';

CREATE FUNCTION _flohsync.strategy_problem(_definition jsonb, _resource_type text, _strategy text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE
  WHEN NOT EXISTS (SELECT FROM _flohsync.resources(_definition) r WHERE r.type = _resource_type)
    THEN pg_catalog.format('the definition has no resource "%s"', _resource_type)
  WHEN _strategy = 'incremental'
       AND coalesce(_definition -> 'resources' -> _resource_type -> 'list' -> 'incremental' ->> 'type', 'none') = 'none'
    THEN pg_catalog.format('the definition does not say how to ask for changes of resource "%s"', _resource_type)
END;
COMMENT ON FUNCTION _flohsync.strategy_problem(jsonb, text, text) IS
  'Why a resource type cannot be synced with a strategy by a definition; null when it can';

CREATE FUNCTION _flohsync.check_strategy(_definition jsonb, _resource_type text, _strategy text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  problem text := _flohsync.strategy_problem(_definition, _resource_type, NULL);
BEGIN
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('resource_type', problem,
      format('Resources are %s.', (SELECT string_agg(r.type, ', ' ORDER BY r.type COLLATE "C")
                                   FROM _flohsync.resources(_definition) r)));
  END IF;
  problem := _flohsync.strategy_problem(_definition, _resource_type, _strategy);
  IF problem IS NOT NULL THEN
    PERFORM _flohsync.invalid('strategy', problem,
      format('Use strategy full, or give the definition a /resources/%s/list/incremental.', _resource_type));
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.check_strategy(jsonb, text, text) IS
  'Raises 22023 when a definition does not have the resource type, or cannot list what changed';

-- The one door through which a connector comes, by a function or by a statement:
-- what is stored is what the C code may rely on.  Whether a function of kind
-- sql exists is not asked here: when a dump is restored it may come later.
CREATE FUNCTION _flohsync.guard_connector() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  k text;
BEGIN
  PERFORM _flohsync.check_connector(NEW.kind, NEW.config, NEW.definition, false);
  IF TG_OP = 'INSERT' THEN
    NEW.code_owner := coalesce(NEW.code_owner, _flohsync.code_owner(NEW.kind, NEW.config));
    NEW.author := coalesce(NEW.author, _flohsync.role(_flohsync.acting_role()));
    IF NOT coalesce(_flohsync.may_act_as(_flohsync.role_oid(NEW.author)), true) THEN
      RAISE insufficient_privilege USING
        MESSAGE = format('role "%s" cannot be made the author of a connector', _flohsync.role_name(NEW.author)),
        HINT = 'Only a member of that role can do that.';
    END IF;
  END IF;
  FOR k IN SELECT h.key FROM jsonb_object_keys(CASE NEW.kind WHEN 'command' THEN NEW.config -> 'headers' END) h(key)
            WHERE lower(h.key COLLATE "C") ~ '^(authorization|cookie|(x-)?api-?key|x-auth-token|x-access-token)$' LOOP
    RAISE NOTICE USING
      MESSAGE = format('header "%s" is stored in clear text', k),
      HINT = 'flohsync.set_secret(…, ''token'', …) stores a bearer token encrypted; it is sent in '
             'the header "Authorization".';
  END LOOP;
  IF TG_OP = 'UPDATE' AND NEW.kind = 'rest' THEN
    PERFORM _flohsync.invalid('definition', p.problem, 'A configuration requires it: change that with '
                                                       'flohsync.configure_sync(), or remove it with '
                                                       'flohsync.delete_sync_config().')
       FROM flohsync.connector_sync_config c
      CROSS JOIN LATERAL _flohsync.strategy_problem(NEW.definition, c.resource_type, c.strategy) p(problem)
      WHERE c.connector_id = NEW.id AND p.problem IS NOT NULL;
  END IF;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.guard_connector() IS
  'Rejects an invalid connector (22023), warns of a credential in clear text, and records the role that decides what '
  'it runs';
CREATE TRIGGER guard_connector_insert BEFORE INSERT ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.guard_connector();
CREATE TRIGGER guard_connector_update BEFORE UPDATE ON flohsync.connector_definition
FOR EACH ROW WHEN ((NEW.kind, NEW.config, NEW.definition) IS DISTINCT FROM (OLD.kind, OLD.config, OLD.definition))
EXECUTE FUNCTION _flohsync.guard_connector();
