-- Secrets of connectors.  The table holds ciphertext only (src/source/secret_store.c
-- says how), so a dump may carry it: whoever has the dump and the key file has
-- the secrets, whoever lacks one of them has nothing.
--
-- A secret belongs to the origins that its connector had when it was set; they
-- are authenticated with the ciphertext.  One that the connector has come to
-- have since makes it void, one that is gone does not.  What verifies webhooks
-- belongs to none.  In SQL that is shown (usable); src/source/origin.c enforces it.

CREATE TABLE _flohsync.connector_secret (
  connector_id uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  name         text COLLATE "C" NOT NULL,
  format       smallint NOT NULL,
  key_id       text COLLATE "C" NOT NULL,
  ciphertext   bytea NOT NULL,
  updated_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  kind         text COLLATE "C",
  origins      text[] COLLATE "C",
  PRIMARY KEY (connector_id, name)
);
COMMENT ON TABLE _flohsync.connector_secret IS 'Secrets of connectors, encrypted; see set_secret()';
COMMENT ON COLUMN _flohsync.connector_secret.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.connector_secret.name IS 'Name by which the kind or the definition refers to it';
COMMENT ON COLUMN _flohsync.connector_secret.format IS 'Version of the format of ciphertext';
COMMENT ON COLUMN _flohsync.connector_secret.key_id IS
  'Identifies the encryption key: 16 hex digits from which the key cannot be derived';
COMMENT ON COLUMN _flohsync.connector_secret.ciphertext IS
  'Nonce, AES-256-GCM ciphertext and tag; connector, name, format, kind and origins are authenticated with it';
COMMENT ON COLUMN _flohsync.connector_secret.updated_at IS 'When the secret was last set';
COMMENT ON COLUMN _flohsync.connector_secret.kind IS
  'Kind of the connector at that time; null for a secret that verifies webhooks';
COMMENT ON COLUMN _flohsync.connector_secret.origins IS
  'Origins of the connector at that time, to which the secret may be sent; null for a secret that verifies webhooks';

CREATE VIEW flohsync.connector_secrets AS
SELECT s.connector_id, d.name AS connector, s.name, s.key_id, s.updated_at, s.origins,
       s.format = 2 AND (s.name IN ('webhook', 'webhook_previous')
                         OR coalesce(s.kind = d.kind AND s.origins @> d.origins, false)) AS usable
  FROM _flohsync.connector_secret s JOIN flohsync.connector_definition d ON d.id = s.connector_id;
COMMENT ON VIEW flohsync.connector_secrets IS 'Names of the secrets that are set, without their values';
COMMENT ON COLUMN flohsync.connector_secrets.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.connector_secrets.connector IS 'Its name';
COMMENT ON COLUMN flohsync.connector_secrets.name IS 'Name of the secret';
COMMENT ON COLUMN flohsync.connector_secrets.key_id IS 'Which key it is encrypted with';
COMMENT ON COLUMN flohsync.connector_secrets.updated_at IS 'When it was last set';
COMMENT ON COLUMN flohsync.connector_secrets.origins IS
  'Origins of the connector at that time; null for a secret that verifies webhooks, which is never sent';
COMMENT ON COLUMN flohsync.connector_secrets.usable IS
  'False: the connector has a new origin since, and the secret must be set again';
SELECT _flohsync.allow('manager', 'flohsync.connector_secrets');

CREATE FUNCTION flohsync.set_secret(connector text, name text, value text) RETURNS void
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_set_secret';
COMMENT ON FUNCTION flohsync.set_secret(text, text, text) IS
  'Stores a secret of a connector, encrypted, for the current origins of the connector, replacing one of that name; '
  'null removes it. 1 to 65536 bytes. F0000 without a usable flohsync.encryption_key_file, 42704 for an unknown '
  'connector, 22023 for a bad name or length';
SELECT _flohsync.allow('manager', 'flohsync.set_secret(text, text, text)');

CREATE FUNCTION _flohsync.tell_void_secrets(_connector uuid) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(s.name, ', ' ORDER BY s.name) INTO names
    FROM flohsync.connector_secrets s WHERE s.connector_id = _connector AND NOT s.usable;
  IF names IS NOT NULL THEN
    RAISE WARNING USING
      MESSAGE = _flohsync.clean((SELECT format('secrets of connector "%s" must be set again: %s', d.name, names)
                                 FROM flohsync.connector_definition d WHERE d.id = _connector)),
      DETAIL = (SELECT format('They were set for an origin other than %s.',
                              coalesce(nullif(array_to_string(d.origins, ', '), ''), 'none'))
                  FROM flohsync.connector_definition d WHERE d.id = _connector),
      HINT = 'Requests that need them fail until they are set again with flohsync.set_secret().';
  END IF;
END
$$;
COMMENT ON FUNCTION _flohsync.tell_void_secrets(uuid) IS
  'Warns of the secrets of a connector that were set for another origin';

CREATE FUNCTION flohsync.rotate_secrets() RETURNS bigint
LANGUAGE c VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'flohsync_rotate_secrets';
COMMENT ON FUNCTION flohsync.rotate_secrets() IS
  'Re-encrypts all secrets with the key of flohsync.encryption_key_file, each bound to the same origins as before, and '
  'returns their number; all or none. F0000 when one cannot be decrypted with that key or the one of '
  'flohsync.encryption_key_file_previous';
