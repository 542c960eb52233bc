-- Users, matches and profiles.  flohsync reads users only through v_user: an
-- application with its own users replaces that view.

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
  deactivated_by_run bigint REFERENCES flohsync.sync_run ON DELETE SET NULL,
  created_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
  UNIQUE (iss, sub),
  UNIQUE (iss, email),
  CHECK (confirmed OR (iss = '-' AND sub = email))
);
COMMENT ON TABLE flohsync.floh_user IS 'Users; an unconfirmed one has iss ''-'' and its e-mail address as sub';
COMMENT ON COLUMN flohsync.floh_user.id IS 'Identity of the user';
COMMENT ON COLUMN flohsync.floh_user.iss IS 'Issuer of the login, ''-'' while unconfirmed';
COMMENT ON COLUMN flohsync.floh_user.sub IS 'Subject of the login, the e-mail address while unconfirmed';
COMMENT ON COLUMN flohsync.floh_user.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.floh_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.floh_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN flohsync.floh_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN flohsync.floh_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN flohsync.floh_user.active IS 'Whether the user may work';
COMMENT ON COLUMN flohsync.floh_user.deleted_at IS 'When the user was soft-deleted';
COMMENT ON COLUMN flohsync.floh_user.deactivated_by_run IS 'Run that deactivated the user; only such a user is reactivated by a sync';
COMMENT ON COLUMN flohsync.floh_user.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.floh_user.updated_at IS 'When the row was last changed';

CREATE VIEW flohsync.v_user WITH (security_barrier) AS
SELECT u.id, u.email, u.display_name, u.upstream_issuer, u.upstream_id, u.sub, u.confirmed, u.active
  FROM flohsync.floh_user u
 WHERE u.deleted_at IS NULL;
COMMENT ON VIEW flohsync.v_user IS 'The users that matching looks at: those not soft-deleted';
COMMENT ON COLUMN flohsync.v_user.id IS 'Identity of the user';
COMMENT ON COLUMN flohsync.v_user.email IS 'E-mail address';
COMMENT ON COLUMN flohsync.v_user.display_name IS 'Human-readable name';
COMMENT ON COLUMN flohsync.v_user.upstream_issuer IS 'Issuer behind the login''s issuer';
COMMENT ON COLUMN flohsync.v_user.upstream_id IS 'Id at that issuer';
COMMENT ON COLUMN flohsync.v_user.sub IS 'Subject of the login';
COMMENT ON COLUMN flohsync.v_user.confirmed IS 'Whether the user has logged in';
COMMENT ON COLUMN flohsync.v_user.active IS 'Whether the user may work';

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
COMMENT ON COLUMN flohsync.user_profile.manager_id IS 'User to whom this one reports';
COMMENT ON COLUMN flohsync.user_profile.custom_attributes IS 'Values of custom fields';
COMMENT ON COLUMN flohsync.user_profile.attribute_sources IS 'Which source last wrote which field: manual, oidc, workflow or connector';
COMMENT ON COLUMN flohsync.user_profile.updated_at IS 'When the row was last changed';

CREATE TABLE flohsync.user_external_identity (
  user_id               uuid NOT NULL REFERENCES flohsync.floh_user ON DELETE CASCADE,
  connector_id          uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  external_id           varchar(255) COLLATE "C" NOT NULL,
  external_email        varchar(255),
  external_display_name varchar(255),
  source                text NOT NULL CHECK (source IN ('connector_sync', 'workflow', 'manual')),
  attributes            jsonb,
  verified_at           timestamptz,
  UNIQUE (user_id, connector_id, external_id)
);
CREATE INDEX user_external_identity_email ON flohsync.user_external_identity (external_email);
COMMENT ON TABLE flohsync.user_external_identity IS 'Which upstream identities a user has';
COMMENT ON COLUMN flohsync.user_external_identity.user_id IS 'User';
COMMENT ON COLUMN flohsync.user_external_identity.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.user_external_identity.external_id IS 'Id in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.external_email IS 'E-mail address in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.external_display_name IS 'Name in the upstream';
COMMENT ON COLUMN flohsync.user_external_identity.source IS 'connector_sync, workflow or manual';
COMMENT ON COLUMN flohsync.user_external_identity.attributes IS 'Attributes of the identity';
COMMENT ON COLUMN flohsync.user_external_identity.verified_at IS 'When the identity was last confirmed';

CREATE TABLE flohsync.connector_sync_match (
  id                    uuid PRIMARY KEY DEFAULT flohsync._new_id(),
  connector_id          uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  resource_type         varchar(64) COLLATE "C" NOT NULL,
  connector_resource_id uuid NOT NULL REFERENCES flohsync.resource_record ON DELETE CASCADE,
  external_id           varchar(255) COLLATE "C" NOT NULL,
  external_display_name varchar(255),
  external_email        varchar(255),
  user_id               uuid REFERENCES flohsync.floh_user ON DELETE SET NULL,
  match_status          varchar(32) NOT NULL
                        CHECK (match_status IN ('matched', 'unmatched', 'ambiguous', 'manual_override', 'skipped', 'create_pending')),
  match_confidence      varchar(32) NOT NULL CHECK (match_confidence IN ('exact', 'probable', 'ambiguous', 'none')),
  match_strategy        varchar(32),
  candidate_user_ids    jsonb,
  resolution_notes      text,
  resolved_by           uuid REFERENCES flohsync.floh_user ON DELETE SET NULL,
  resolved_at           timestamptz,
  created_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
  updated_at            timestamptz NOT NULL DEFAULT pg_catalog.now(),
  UNIQUE (connector_id, resource_type, connector_resource_id)
);
CREATE INDEX connector_sync_match_resource ON flohsync.connector_sync_match (connector_resource_id);
CREATE INDEX connector_sync_match_user ON flohsync.connector_sync_match (user_id);
COMMENT ON TABLE flohsync.connector_sync_match IS 'Which user a record belongs to, and how that was found';
COMMENT ON COLUMN flohsync.connector_sync_match.id IS 'Identity of the match';
COMMENT ON COLUMN flohsync.connector_sync_match.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.connector_sync_match.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.connector_sync_match.connector_resource_id IS 'Record; its deletion deletes the match';
COMMENT ON COLUMN flohsync.connector_sync_match.external_id IS 'Id of the record in the upstream';
COMMENT ON COLUMN flohsync.connector_sync_match.external_display_name IS 'Name of the record';
COMMENT ON COLUMN flohsync.connector_sync_match.external_email IS 'E-mail address of the record';
COMMENT ON COLUMN flohsync.connector_sync_match.user_id IS 'User, when there is one';
COMMENT ON COLUMN flohsync.connector_sync_match.match_status IS 'matched, unmatched, ambiguous, manual_override, skipped or create_pending';
COMMENT ON COLUMN flohsync.connector_sync_match.match_confidence IS 'exact, probable, ambiguous or none';
COMMENT ON COLUMN flohsync.connector_sync_match.match_strategy IS 'Strategy that led to the outcome';
COMMENT ON COLUMN flohsync.connector_sync_match.candidate_user_ids IS 'Candidates of an ambiguous match';
COMMENT ON COLUMN flohsync.connector_sync_match.resolution_notes IS 'What an operator noted';
COMMENT ON COLUMN flohsync.connector_sync_match.resolved_by IS 'User who resolved the match';
COMMENT ON COLUMN flohsync.connector_sync_match.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN flohsync.connector_sync_match.created_at IS 'When the row was created';
COMMENT ON COLUMN flohsync.connector_sync_match.updated_at IS 'When the row was last changed';
