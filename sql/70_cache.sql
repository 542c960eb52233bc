-- Tables behind the cache and the webhooks.

CREATE TABLE flohsync.cache_outbox (
  connector_id  uuid NOT NULL,
  resource_type varchar(64) COLLATE "C" NOT NULL DEFAULT '',
  external_id   varchar(255) COLLATE "C" NOT NULL DEFAULT '',
  seq           bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (connector_id, resource_type, external_id)
);
COMMENT ON TABLE flohsync.cache_outbox IS 'Cache entries to be invalidated; an empty type or id stands for all';
COMMENT ON COLUMN flohsync.cache_outbox.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.cache_outbox.resource_type IS 'Resource type';
COMMENT ON COLUMN flohsync.cache_outbox.external_id IS 'Id in the upstream';
COMMENT ON COLUMN flohsync.cache_outbox.seq IS 'Order of the requests';
COMMENT ON COLUMN flohsync.cache_outbox.created_at IS 'When the invalidation was asked for';

CREATE TABLE flohsync.webhook_delivery (
  connector_id uuid NOT NULL REFERENCES flohsync.connector_definition ON DELETE CASCADE,
  webhook_id   text NOT NULL,
  received_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (connector_id, webhook_id)
);
COMMENT ON TABLE flohsync.webhook_delivery IS 'Ids of webhooks that were received, so that each counts once';
COMMENT ON COLUMN flohsync.webhook_delivery.connector_id IS 'Connector';
COMMENT ON COLUMN flohsync.webhook_delivery.webhook_id IS 'Id that the sender gave it';
COMMENT ON COLUMN flohsync.webhook_delivery.received_at IS 'When it was received';

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
