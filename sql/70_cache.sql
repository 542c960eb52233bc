-- Tables behind the cache and the webhooks.

-- The columns of these three are read by src/record/outbox.c, in this order.
CREATE TABLE _flohsync.cache_state (
  id         boolean PRIMARY KEY DEFAULT true CHECK (id),
  server     bigint,
  epoch      bigint NOT NULL DEFAULT 0,
  timeline   integer NOT NULL DEFAULT 0,
  changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);
INSERT INTO _flohsync.cache_state DEFAULT VALUES;
COMMENT ON TABLE _flohsync.cache_state IS 'The Redis server that the cache uses; one row';
COMMENT ON COLUMN _flohsync.cache_state.id IS 'Limits the table to one row';
COMMENT ON COLUMN _flohsync.cache_state.server IS
  'Identity of the Redis server, from its URL, run_id and replication id; null: there is no cache, and '
  'changes are not recorded for it';
COMMENT ON COLUMN _flohsync.cache_state.epoch IS 'Random number; part of the epoch of every cached value';
COMMENT ON COLUMN _flohsync.cache_state.timeline IS 'Timeline of this server when the row was written';
COMMENT ON COLUMN _flohsync.cache_state.changed_at IS 'When the row was written';

CREATE TABLE _flohsync.cache_epoch (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL,
  epoch         bigint NOT NULL,
  PRIMARY KEY (connector_id, resource_type)
) WITH (fillfactor = 50);
COMMENT ON TABLE _flohsync.cache_epoch IS
  'Further parts of the epoch of cached values: changing one invalidates all of them';
COMMENT ON COLUMN _flohsync.cache_epoch.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.cache_epoch.resource_type IS 'Resource type; empty: all';
COMMENT ON COLUMN _flohsync.cache_epoch.epoch IS 'Random number';

CREATE TABLE _flohsync.cache_outbox (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL DEFAULT '',
  external_id   varchar(255) COLLATE "C" NOT NULL DEFAULT '',
  seq           bigint NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 100),
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  -- seq is in it because no writer shall wait for another who invalidates the same.
  PRIMARY KEY (connector_id, resource_type, external_id, seq)
);
COMMENT ON TABLE _flohsync.cache_outbox IS 'Cache entries to be invalidated; an empty type or id means all';
COMMENT ON COLUMN _flohsync.cache_outbox.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.cache_outbox.resource_type IS 'Resource type';
COMMENT ON COLUMN _flohsync.cache_outbox.external_id IS 'Id in the upstream';
COMMENT ON COLUMN _flohsync.cache_outbox.seq IS 'Distinguishes requests for the same entry';
COMMENT ON COLUMN _flohsync.cache_outbox.created_at IS 'When the invalidation was requested';

CREATE FUNCTION _flohsync.connectors_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'flohsync_connectors_changed';
COMMENT ON FUNCTION _flohsync.connectors_changed() IS
  'Notifies readers of the cache that connectors may have been renamed';
CREATE TRIGGER connectors_changed BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON flohsync.connector_definition
FOR EACH STATEMENT EXECUTE FUNCTION _flohsync.connectors_changed();

CREATE TABLE _flohsync.webhook_delivery (
  connector_id uuid NOT NULL,  -- no foreign key: it would be checked, and its row locked, for each delivery
  webhook_id   text NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (connector_id, webhook_id)
);
COMMENT ON TABLE _flohsync.webhook_delivery IS 'Ids of received webhooks, so that each is processed once';
COMMENT ON COLUMN _flohsync.webhook_delivery.connector_id IS 'Connector';
COMMENT ON COLUMN _flohsync.webhook_delivery.webhook_id IS
  'Id from the sender, or, where that is not signed, a digest of it and the body';
COMMENT ON COLUMN _flohsync.webhook_delivery.received_at IS 'When it was received';

CREATE TABLE flohsync.entitlement_event (
  id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  connector_id uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  body         jsonb NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE flohsync.entitlement_event IS 'Webhooks without a resource type, for the entitlement handler';
COMMENT ON COLUMN flohsync.entitlement_event.id IS 'Identity of the event';
COMMENT ON COLUMN flohsync.entitlement_event.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.entitlement_event.body IS 'Body of the webhook';
COMMENT ON COLUMN flohsync.entitlement_event.received_at IS 'When it was received';
SELECT _flohsync.allow('manager', 'flohsync.entitlement_event');
