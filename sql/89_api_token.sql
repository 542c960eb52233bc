-- API tokens: who shows one by HTTP is its role.  The table has digests alone, of
-- random values of 256 bits, so that nobody makes tokens of it.
--
-- A dump does not carry them: a copy of a database is given to others than the
-- database is, and must not let in whoever has a token of the original.  What
-- copies the cluster (base backup, standby, pg_upgrade) has them.

CREATE TABLE _flohsync.api_token (
  name       text COLLATE "C" PRIMARY KEY CHECK (name <> '' AND pg_catalog.length(name) <= 255),
  token_hash bytea NOT NULL UNIQUE CHECK (pg_catalog.octet_length(token_hash) = 32),
  role       _flohsync.role NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  created_by name NOT NULL,
  expires_at timestamptz
);
COMMENT ON TABLE _flohsync.api_token IS 'API tokens, as digests; excluded from dumps; see create_api_token()';
COMMENT ON COLUMN _flohsync.api_token.name IS 'Name of the token';
COMMENT ON COLUMN _flohsync.api_token.token_hash IS 'SHA-256 of the token';
COMMENT ON COLUMN _flohsync.api_token.role IS
  'Role of requests with the token; ?name: that role was dropped, and the token is not accepted';
COMMENT ON COLUMN _flohsync.api_token.created_at IS 'When it was created';
COMMENT ON COLUMN _flohsync.api_token.created_by IS 'Role that created it';
COMMENT ON COLUMN _flohsync.api_token.expires_at IS 'From when on it is not accepted; null: never';

CREATE VIEW flohsync.api_tokens AS
SELECT t.name, t.role::text AS role, t.created_at, t.created_by, t.expires_at FROM _flohsync.api_token t;
COMMENT ON VIEW flohsync.api_tokens IS 'API tokens, without anything from which they could be made';
COMMENT ON COLUMN flohsync.api_tokens.name IS 'Name of the token';
COMMENT ON COLUMN flohsync.api_tokens.role IS
  'Role of requests with the token; ?name: that role was dropped, and the token is not accepted';
COMMENT ON COLUMN flohsync.api_tokens.created_at IS 'When it was created';
COMMENT ON COLUMN flohsync.api_tokens.created_by IS 'Role that created it';
COMMENT ON COLUMN flohsync.api_tokens.expires_at IS 'From when on it is not accepted; null: never';
SELECT _flohsync.allow('manager', 'flohsync.api_tokens');

CREATE FUNCTION _flohsync.new_token() RETURNS bytea
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_new_token';
COMMENT ON FUNCTION _flohsync.new_token() IS '32 bytes that cannot be guessed';

CREATE FUNCTION _flohsync.create_api_token(name text, role regrole, expires_at timestamptz) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  token text;
BEGIN
  IF coalesce(length(create_api_token.name), 0) NOT BETWEEN 1 AND 255 THEN
    PERFORM _flohsync.invalid('name', 'it must have 1 to 255 characters');
  END IF;
  PERFORM _flohsync.check_access_role(create_api_token.role);
  IF (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = create_api_token.role) THEN
    PERFORM _flohsync.invalid('role', format('%s is a superuser', create_api_token.role),
                              'Create the token for a role that grant_reader() or grant_manager() was called for.');
  ELSIF create_api_token.expires_at <= clock_timestamp() THEN
    PERFORM _flohsync.invalid('expires_at', 'it is in the past');
  ELSIF NOT coalesce(_flohsync.may_act_as(create_api_token.role), false) THEN
    PERFORM _flohsync.raise('42501',
      format('permission denied to create an API token for role %s', create_api_token.role),
      NULL,
      'Only a member of that role, who could take it with SET ROLE, can do that.');
  END IF;
  token := 'fls_' || translate(encode(_flohsync.new_token(), 'base64'), '+/=', '-_');
  INSERT INTO _flohsync.api_token AS t (name, token_hash, role, created_by, expires_at)
  VALUES (create_api_token.name, sha256(convert_to(token, 'UTF8')), _flohsync.role(create_api_token.role),
          _flohsync.caller_name(), create_api_token.expires_at)
  ON CONFLICT ON CONSTRAINT api_token_pkey DO NOTHING;
  IF NOT FOUND THEN
    PERFORM _flohsync.raise('42710', format('API token "%s" already exists', create_api_token.name), NULL,
                            'Choose another name, or revoke that one with flohsync.revoke_api_token().');
  END IF;
  PERFORM pg_notify('flohsync_api_token', '');
  RETURN token;
END
$$;
COMMENT ON FUNCTION _flohsync.create_api_token(text, regrole, timestamptz) IS
  'Implementation of the public function of this name, run as its owner';

CREATE FUNCTION flohsync.create_api_token(name text, role regrole, expires_at timestamptz DEFAULT NULL) RETURNS text
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'flohsync_as_owner';
COMMENT ON FUNCTION flohsync.create_api_token(text, regrole, timestamptz) IS
  'Creates a token with which requests by HTTP have a role, and returns it: it is not stored, and cannot be shown '
  'again. 42501 unless the caller is a member of the role, 42710 when the name is taken, 22023 for a superuser, a '
  'role of flohsync itself and a time in the past';
SELECT _flohsync.allow('manager', 'flohsync.create_api_token(text, regrole, timestamptz)');

CREATE FUNCTION flohsync.revoke_api_token(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM _flohsync.api_token t WHERE t.name = revoke_api_token.name;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM pg_notify('flohsync_api_token', '');
  RETURN true;
END
$$;
COMMENT ON FUNCTION flohsync.revoke_api_token(text) IS
  'Removes an API token, so that it is not accepted any more; false when there was none of that name';
SELECT _flohsync.allow('manager', 'flohsync.revoke_api_token(text)');

CREATE FUNCTION _flohsync.api_api_token(token_hash bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (SELECT jsonb_build_object('name', t.name, 'role', r.rolname, 'expiresAt', _flohsync.iso(t.expires_at),
                                    'expiresIn', floor(extract(epoch FROM t.expires_at - clock_timestamp())))
            FROM _flohsync.api_token t JOIN pg_roles r ON r.oid = _flohsync.role_oid(t.role) AND NOT r.rolsuper
           WHERE t.token_hash = api_api_token.token_hash
             AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp()));
END
$$;
SELECT _flohsync.serve('{gateway}', 'api_token(bytea)',
  'The API token of a SHA-256 digest: {name, role, expiresAt, expiresIn}, expiresIn in whole seconds; null when it is '
  'unknown or expired, or its role is gone');
