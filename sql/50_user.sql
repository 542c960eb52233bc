-- Users, their profiles and their identities upstream.
--
-- The seam: the rest of flohsync reads users only through v_user, and writes
-- them only through _user_create, _user_deactivate, _user_reactivate and
-- _profile_update.  An application with its own users replaces these five, with
-- CREATE OR REPLACE and the same columns and arguments, and nothing else; so
-- no table outside this file may refer to floh_user.
--
-- Rights: the four functions, and the view when flohsync looks at it, run as
-- flohsync.worker_role, in a worker and for a manager alike.  The application
-- grants that role what its own objects need.

-- What is compared when e-mail addresses or issuers are.
-- Its cost counts where a plan chooses between a probe and all addresses.
CREATE FUNCTION _flohsync.match_key(_text text) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'flohsync_match_key';
COMMENT ON FUNCTION _flohsync.match_key(text) IS
  'A text without surrounding white space and with ASCII letters in lower case, nothing else '
  'folded; null when it is empty';

CREATE TABLE flohsync.floh_user (
  id                 uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  iss                varchar(500) NOT NULL,
  sub                varchar(500) NOT NULL,
  email              varchar(255) NOT NULL,
  display_name       varchar(255) NOT NULL,
  confirmed          boolean NOT NULL DEFAULT false,
  upstream_issuer    varchar(500),
  upstream_id        varchar(500),
  active             boolean NOT NULL DEFAULT true,
  deleted_at         timestamptz,
  deactivated_by_run bigint,
  created_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
  UNIQUE (iss, sub),
  UNIQUE (iss, email),
  CHECK (confirmed OR (iss = '-' AND sub = email))
);
CREATE INDEX floh_user_email_key ON flohsync.floh_user (_flohsync.match_key(email) COLLATE "C");
-- For matching; the others for whoever asks without saying a collation.
CREATE INDEX floh_user_sub ON flohsync.floh_user (sub COLLATE "C");
CREATE INDEX floh_user_upstream_id ON flohsync.floh_user (upstream_id COLLATE "C") WHERE upstream_id IS NOT NULL;
CREATE INDEX floh_user_email_hash ON flohsync.floh_user USING hash (email);
CREATE INDEX floh_user_sub_hash ON flohsync.floh_user USING hash (sub);
CREATE INDEX floh_user_upstream_id_hash ON flohsync.floh_user USING hash (upstream_id);
COMMENT ON TABLE flohsync.floh_user IS 'Users; an unconfirmed one has iss ''-'' and its e-mail address as sub';
COMMENT ON COLUMN flohsync.floh_user.id IS 'Identity of the user';
COMMENT ON COLUMN flohsync.floh_user.iss IS 'Issuer of the login, ''-'' while unconfirmed';
COMMENT ON COLUMN flohsync.floh_user.sub IS 'Subject of the login, the e-mail address while unconfirmed';
COMMENT ON COLUMN flohsync.floh_user.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.floh_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.floh_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN flohsync.floh_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN flohsync.floh_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN flohsync.floh_user.active IS 'Whether the user is active';
COMMENT ON COLUMN flohsync.floh_user.deleted_at IS 'When the user was soft-deleted';
COMMENT ON COLUMN flohsync.floh_user.deactivated_by_run IS
  'Run that deactivated the user, 0: a webhook; only such a user is reactivated by a sync';
COMMENT ON COLUMN flohsync.floh_user.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.floh_user.updated_at IS 'When the row was last changed';
SELECT _flohsync.allow('reader', 'flohsync.floh_user');

-- A security barrier: a role may have been granted this view only.
CREATE VIEW flohsync.v_user WITH (security_barrier) AS
SELECT u.id, u.email::text, u.display_name::text, u.upstream_issuer::text, u.upstream_id::text, u.sub::text,
  u.confirmed, u.active
  FROM flohsync.floh_user u
 WHERE u.deleted_at IS NULL;
COMMENT ON VIEW flohsync.v_user IS 'The users that matching considers: those not soft-deleted';
COMMENT ON COLUMN flohsync.v_user.id IS 'Identity of the user';
COMMENT ON COLUMN flohsync.v_user.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.v_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.v_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN flohsync.v_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN flohsync.v_user.sub IS 'Subject of the login';
COMMENT ON COLUMN flohsync.v_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN flohsync.v_user.active IS 'Whether the user is active';
SELECT _flohsync.allow('reader', 'flohsync.v_user');

-- The same for our own statements.  A security barrier, which v_user is because
-- it hides rows, keeps joins from using the indexes of the table.
CREATE VIEW _flohsync.app_user AS
SELECT u.id, u.email::text, u.display_name::text, u.upstream_issuer::text, u.upstream_id::text, u.sub::text,
  u.confirmed, u.active
  FROM flohsync.floh_user u
 WHERE u.deleted_at IS NULL;
COMMENT ON VIEW _flohsync.app_user IS
  'Like v_user, but not a security barrier; updated when an application replaces v_user';
COMMENT ON COLUMN _flohsync.app_user.id IS 'Identity of the user';
COMMENT ON COLUMN _flohsync.app_user.email IS 'E-mail address';
COMMENT ON COLUMN _flohsync.app_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN _flohsync.app_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN _flohsync.app_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN _flohsync.app_user.sub IS 'Subject of the login';
COMMENT ON COLUMN _flohsync.app_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN _flohsync.app_user.active IS 'Whether the user is active';

-- Runs for each CREATE VIEW of any role, with that role's rights: no name is looked up.
CREATE FUNCTION _flohsync.seam_changed() RETURNS event_trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d WHERE d.object_identity = 'flohsync.v_user') THEN
    EXECUTE 'CREATE OR REPLACE VIEW _flohsync.app_user AS ' || pg_get_viewdef('flohsync.v_user'::regclass);
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.seam_changed() IS 'Keeps app_user identical to v_user';
CREATE EVENT TRIGGER flohsync_seam ON ddl_command_end
  WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION _flohsync.seam_changed();
COMMENT ON EVENT TRIGGER flohsync_seam IS 'Detects that an application replaces flohsync.v_user with its own users';

CREATE TABLE flohsync.user_profile (
  user_id           uuid PRIMARY KEY REFERENCES flohsync.floh_user ON DELETE CASCADE,
  title             text,
  department        text,
  phone_number      text,
  location          text,
  employee_id       text,
  cost_center       text,
  start_date        date,
  manager_id        uuid,
  custom_attributes jsonb NOT NULL DEFAULT '{}',
  attribute_sources jsonb NOT NULL DEFAULT '{}',
  updated_at        timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE flohsync.user_profile IS 'Profiles of users, with the source of each value';
COMMENT ON COLUMN flohsync.user_profile.user_id IS 'User';
COMMENT ON COLUMN flohsync.user_profile.title IS 'Job title';
COMMENT ON COLUMN flohsync.user_profile.department IS 'Department';
COMMENT ON COLUMN flohsync.user_profile.phone_number IS 'Telephone number';
COMMENT ON COLUMN flohsync.user_profile.location IS 'Place of work';
COMMENT ON COLUMN flohsync.user_profile.employee_id IS 'Employee number';
COMMENT ON COLUMN flohsync.user_profile.cost_center IS 'Cost centre';
COMMENT ON COLUMN flohsync.user_profile.start_date IS 'First day of work';
COMMENT ON COLUMN flohsync.user_profile.manager_id IS 'Manager of the user';
COMMENT ON COLUMN flohsync.user_profile.custom_attributes IS 'Values of custom fields';
COMMENT ON COLUMN flohsync.user_profile.attribute_sources IS
  'Which source last wrote which field: manual, oidc, workflow or connector';
COMMENT ON COLUMN flohsync.user_profile.updated_at IS 'When the row was last changed';
SELECT _flohsync.allow('reader', 'flohsync.user_profile');

CREATE TABLE flohsync.user_external_identity (
  user_id               uuid NOT NULL,
  connector_id          uuid NOT NULL,
  external_id           varchar(255) COLLATE "C" NOT NULL,
  external_email        varchar(255),
  external_display_name varchar(255),
  source                text NOT NULL CHECK (source IN ('connector_sync', 'workflow', 'manual')),
  attributes            jsonb,
  verified_at           timestamptz,
  CONSTRAINT user_external_identity_key PRIMARY KEY (external_id, connector_id, user_id)
);
CREATE INDEX user_external_identity_user ON flohsync.user_external_identity (user_id);
CREATE INDEX user_external_identity_email ON flohsync.user_external_identity (external_email);

-- As ON DELETE CASCADE would; a foreign key would be checked for each of 500,000 identities.
CREATE FUNCTION _flohsync.connector_removed() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('DELETE FROM %s t WHERE t.connector_id = $1', TG_ARGV[0]::regclass) USING OLD.id;
  RETURN OLD;
END
$$;
COMMENT ON FUNCTION _flohsync.connector_removed() IS
  'Removes the rows of a deleted connector from the table that the trigger names, which has no foreign key';
CREATE TRIGGER identities_removed AFTER DELETE ON flohsync.connector_definition
FOR EACH ROW EXECUTE FUNCTION _flohsync.connector_removed('flohsync.user_external_identity');

COMMENT ON TABLE flohsync.user_external_identity IS 'Upstream identities of users';
COMMENT ON COLUMN flohsync.user_external_identity.user_id IS 'User';
COMMENT ON COLUMN flohsync.user_external_identity.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.user_external_identity.external_id IS 'Id in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.external_email IS 'E-mail address in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.external_display_name IS 'Name in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.source IS 'connector_sync, workflow or manual';
COMMENT ON COLUMN flohsync.user_external_identity.attributes IS 'Attributes of the identity';
COMMENT ON COLUMN flohsync.user_external_identity.verified_at IS 'When the identity was last confirmed';
SELECT _flohsync.allow('reader', 'flohsync.user_external_identity');


-- One creation at a time for an address, whatever its case; few locks for any number of addresses.
CREATE FUNCTION _flohsync.lock_addresses(_emails text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM _flohsync.lock('address', b.bucket::text, false)
     FROM (SELECT DISTINCT hashtextextended(_flohsync.match_key(e.email), 0) & 15 AS bucket
             FROM unnest(_emails) e(email) WHERE _flohsync.match_key(e.email) IS NOT NULL ORDER BY 1) b;
END
$$;
COMMENT ON FUNCTION _flohsync.lock_addresses(text[]) IS
  'Prevents concurrent creation of users with some e-mail addresses until the end of the transaction';

CREATE FUNCTION flohsync._user_create(_emails text[], _display_names text[])
RETURNS TABLE ("position" integer, user_id uuid, problem text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM _flohsync.lock_addresses(_emails);
  RETURN QUERY
  WITH wanted AS (
    SELECT w.position::int, btrim(w.email, E' \t\n\r\f\v') AS email, _flohsync.match_key(w.email) AS key,
           coalesce(nullif(btrim(w.name), ''), w.email) AS name,
           row_number() OVER (PARTITION BY _flohsync.match_key(w.email) ORDER BY w.position) AS nth
      FROM unnest(_emails, _display_names) WITH ORDINALITY AS w(email, name, position)
  ), taken AS (
    -- Whatever the issuer or the case, and soft-deleted or not: it would be the same person twice.
    SELECT DISTINCT ON (w.position) w.position,
           format('the e-mail address belongs to user %s%s%s', u.id,
                  CASE WHEN u.iss <> '-' THEN format(' of issuer %s', u.iss) ELSE '' END,
                  CASE WHEN u.deleted_at IS NOT NULL THEN ', who is deleted' ELSE '' END) AS problem
      FROM wanted w
      JOIN flohsync.floh_user u ON _flohsync.match_key(u.email) COLLATE "C" = w.key COLLATE "C"
     ORDER BY w.position, u.deleted_at NULLS FIRST, u.id
  ), made AS (
    INSERT INTO flohsync.floh_user AS u (iss, sub, email, display_name)
    SELECT '-', w.email, w.email, left(w.name, 255)
      FROM wanted w
     WHERE w.nth = 1 AND w.key IS NOT NULL AND length(w.email) <= 255
       AND NOT EXISTS (SELECT FROM taken t WHERE t.position = w.position)
    ON CONFLICT DO NOTHING
    RETURNING u.id, u.email
  )
  SELECT w.position, m.id,
         CASE WHEN m.id IS NOT NULL THEN NULL
              WHEN w.key IS NULL THEN 'there is no e-mail address'
              WHEN length(w.email) > 255 THEN 'the e-mail address has more than 255 characters'
              WHEN w.nth > 1 THEN 'another record has the same e-mail address'
              ELSE coalesce(t.problem, 'the e-mail address was taken meanwhile') END
    FROM wanted w
    LEFT JOIN taken t ON t.position = w.position
    -- A trigger of the table may have changed the case.
    LEFT JOIN made m ON _flohsync.match_key(m.email) = w.key AND w.nth = 1;
END
$$;
COMMENT ON FUNCTION flohsync._user_create(text[], text[]) IS
  'Seam: creates unconfirmed users; for each position the new user''s id, or why there is none';

CREATE FUNCTION flohsync._user_deactivate(_users uuid[], _run bigint) RETURNS SETOF uuid
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH there AS MATERIALIZED (
    SELECT x.id FROM flohsync.floh_user x WHERE x.id = ANY (_users) AND x.deleted_at IS NULL
      ORDER BY x.id FOR NO KEY UPDATE)
  UPDATE flohsync.floh_user u
     SET deleted_at = pg_catalog.clock_timestamp(), active = false, deactivated_by_run = coalesce(_run, 0),
       updated_at = pg_catalog.now()
    FROM there t WHERE u.id = t.id
  RETURNING u.id;
END;
COMMENT ON FUNCTION flohsync._user_deactivate(uuid[], bigint) IS
  'Seam: soft-deletes users on behalf of a run (null: none) and returns those that were not';

CREATE FUNCTION flohsync._user_reactivate(_users uuid[]) RETURNS SETOF uuid
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH gone AS MATERIALIZED (
    SELECT x.id FROM flohsync.floh_user x
     WHERE x.id = ANY (_users) AND x.deleted_at IS NOT NULL AND x.deactivated_by_run IS NOT NULL
       ORDER BY x.id FOR NO KEY UPDATE)
  UPDATE flohsync.floh_user u
     SET deleted_at = NULL, active = true, deactivated_by_run = NULL, updated_at = pg_catalog.now()
    FROM gone g WHERE u.id = g.id
  RETURNING u.id;
END;
COMMENT ON FUNCTION flohsync._user_reactivate(uuid[]) IS
  'Seam: restores those of the users that _user_deactivate soft-deleted, and returns them';

-- The fields of a patch that are written over what a profile has now.
CREATE FUNCTION _flohsync.profile_changes(_p flohsync.user_profile, _patch jsonb) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_profile_changes';
COMMENT ON FUNCTION _flohsync.profile_changes(flohsync.user_profile, jsonb) IS
  'Changes of a profile (null: none yet) by a patch of _profile_update, as field and value; null when nothing changes';

CREATE FUNCTION _flohsync.profile_sources(_changes jsonb, _source text) RETURNS jsonb
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'flohsync_profile_sources';
COMMENT ON FUNCTION _flohsync.profile_sources(jsonb, text) IS
  'What attribute_sources says of the fields of profile_changes(): each has a source';

CREATE FUNCTION _flohsync.profile_cached(_sql text, _users uuid[], _patches jsonb[], _source text) RETURNS uuid[]
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'flohsync_execute_cached_plan';
COMMENT ON FUNCTION _flohsync.profile_cached(text, uuid[], jsonb[], text) IS
  'Runs a statement of _profile_update, which returns one array of users, with a cached plan by indexes';

CREATE FUNCTION _flohsync.profile_new(_user uuid, _patch jsonb, _source text) RETURNS flohsync.user_profile
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_profile_new';
COMMENT ON FUNCTION _flohsync.profile_new(uuid, jsonb, text) IS
  'The profile that a patch of _profile_update makes of none; null when nothing is to be written';

-- The users whose profile is made are locked first, as the foreign key would, in the order of their ids.
CREATE FUNCTION _flohsync.profile_insert(_users uuid[], _patches jsonb[], _source text) RETURNS uuid[]
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_profile_insert';
COMMENT ON FUNCTION _flohsync.profile_insert(uuid[], jsonb[], text) IS
  'Writes the profiles of those of some users who have none, and returns whose it wrote; null when none';

CREATE FUNCTION flohsync._profile_update(_users uuid[], _patches jsonb[], _source text) RETURNS SETOF uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  done uuid[];
BEGIN
  -- New profiles; one that is inserted concurrently counts as existing.
  done := _flohsync.profile_insert(_users, _patches, _source);
  IF done IS NOT NULL THEN
    RETURN QUERY SELECT unnest(done);
    IF cardinality(done) = cardinality(_users) THEN
      RETURN;
    END IF;
    SELECT array_agg(u.user_id), array_agg(u.patch) INTO _users, _patches
      FROM unnest(_users, _patches) AS u(user_id, patch)
     WHERE u.user_id NOT IN (SELECT d.id FROM unnest(done) AS d(id));
  END IF;
  IF _users IS NULL THEN
    RETURN;
  END IF;

  -- What is to be written is found from the row as it is once it is locked:
  -- concurrent changes count.
  done := _flohsync.profile_cached($sql$
    SELECT array_agg(l.user_id)
      FROM (SELECT p.user_id FROM flohsync.user_profile p
             WHERE p.user_id IN (SELECT u.user_id FROM unnest($1, $2) AS u(user_id, patch)
                                   JOIN flohsync.user_profile q ON q.user_id = u.user_id
                                  WHERE _flohsync.profile_changes(q, u.patch) IS NOT NULL) AND $3 IS NOT NULL
             ORDER BY p.user_id FOR NO KEY UPDATE) l
    $sql$, _users, _patches, _source);
  IF done IS NULL THEN
    RETURN;
  END IF;
  RETURN QUERY SELECT unnest(_flohsync.profile_cached($sql$
    WITH done AS (
      UPDATE flohsync.user_profile p
         SET title = CASE WHEN c.new ? 'title' THEN c.new ->> 'title' ELSE p.title END,
             department = CASE WHEN c.new ? 'department' THEN c.new ->> 'department' ELSE p.department END,
             phone_number = CASE WHEN c.new ? 'phoneNumber' THEN c.new ->> 'phoneNumber' ELSE p.phone_number END,
             location = CASE WHEN c.new ? 'location' THEN c.new ->> 'location' ELSE p.location END,
             employee_id = CASE WHEN c.new ? 'employeeId' THEN c.new ->> 'employeeId' ELSE p.employee_id END,
             cost_center = CASE WHEN c.new ? 'costCenter' THEN c.new ->> 'costCenter' ELSE p.cost_center END,
             start_date = CASE WHEN c.new ? 'startDate' THEN (c.new ->> 'startDate')::date ELSE p.start_date END,
             manager_id = CASE WHEN c.new ? 'managerId' THEN (c.new ->> 'managerId')::uuid ELSE p.manager_id END,
             custom_attributes = p.custom_attributes
               || (c.new - '{title,department,phoneNumber,location,employeeId,costCenter,startDate,managerId}'::text[]),
             attribute_sources = p.attribute_sources || _flohsync.profile_sources(c.new, $3), updated_at = now()
        FROM (SELECT q.user_id, _flohsync.profile_changes(q, u.patch) AS new
                FROM unnest($1, $2) AS u(user_id, patch)
                JOIN flohsync.user_profile q ON q.user_id = u.user_id
              OFFSET 0) c  -- so that "new" is computed once
       WHERE c.new IS NOT NULL AND p.user_id = c.user_id
      RETURNING p.user_id
    )
    SELECT array_agg(d.user_id) FROM done d
    $sql$, _users, _patches, _source));
END
$$;
COMMENT ON FUNCTION flohsync._profile_update(uuid[], jsonb[], text) IS
  'Seam: writes profile fields and their sources; a patch is {"field": {"value": …, "mode": "overwrite_always" or '
  '"overwrite_if_empty"}}; returns the users whose profile changed';

-- When a user deactivated by a sync is deactivated otherwise as well, no sync reactivates the user any more.
CREATE FUNCTION _flohsync.user_guard() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  NEW.deactivated_by_run := NULL;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _flohsync.user_guard() IS
  'Clears deactivated_by_run of a user whose state is changed other than by a sync';
CREATE TRIGGER user_guard BEFORE UPDATE OF active, deleted_at ON flohsync.floh_user
FOR EACH ROW WHEN (NEW.deactivated_by_run IS NOT NULL
                   AND NEW.deactivated_by_run IS NOT DISTINCT FROM OLD.deactivated_by_run
                   AND (NEW.active, NEW.deleted_at) IS DISTINCT FROM (OLD.active, OLD.deleted_at))
EXECUTE FUNCTION _flohsync.user_guard();
