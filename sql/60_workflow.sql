-- The queue of workflow jobs and what was made of them.

CREATE TABLE flohsync.workflow_job (
  id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id       bigint REFERENCES flohsync.sync_run ON DELETE SET NULL,
  workflow_id  uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  data         jsonb NOT NULL,
  status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'failed')),
  attempts     integer NOT NULL DEFAULT 0,
  run_after    timestamptz NOT NULL DEFAULT pg_catalog.now(),
  error        text,
  created_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
  finished_at  timestamptz
);
CREATE INDEX workflow_job_queue ON flohsync.workflow_job (run_after, id) WHERE status = 'queued';
COMMENT ON TABLE flohsync.workflow_job IS 'Queue of sync-workflow-trigger jobs';
COMMENT ON COLUMN flohsync.workflow_job.id IS 'Identity of the job';
COMMENT ON COLUMN flohsync.workflow_job.run_id IS 'Run that queued it';
COMMENT ON COLUMN flohsync.workflow_job.workflow_id IS 'Workflow to run';
COMMENT ON COLUMN flohsync.workflow_job.data IS 'Payload of the job';
COMMENT ON COLUMN flohsync.workflow_job.status IS 'queued, running, done or failed';
COMMENT ON COLUMN flohsync.workflow_job.attempts IS 'How often it was tried';
COMMENT ON COLUMN flohsync.workflow_job.run_after IS 'Not to be tried before';
COMMENT ON COLUMN flohsync.workflow_job.error IS 'Message of the last failure';
COMMENT ON COLUMN flohsync.workflow_job.created_at IS 'When it was queued';
COMMENT ON COLUMN flohsync.workflow_job.finished_at IS 'When it ended';

CREATE TABLE flohsync.workflow_run (
  id          uuid PRIMARY KEY DEFAULT flohsync._new_id(),
  job_id      bigint REFERENCES flohsync.workflow_job ON DELETE SET NULL,
  workflow_id uuid REFERENCES flohsync.workflow_definition ON DELETE SET NULL,
  variables   jsonb NOT NULL,
  status      text NOT NULL DEFAULT 'pending',
  created_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE flohsync.workflow_run IS 'Workflow runs that jobs started';
COMMENT ON COLUMN flohsync.workflow_run.id IS 'Identity of the workflow run';
COMMENT ON COLUMN flohsync.workflow_run.job_id IS 'Job that started it';
COMMENT ON COLUMN flohsync.workflow_run.workflow_id IS 'Workflow';
COMMENT ON COLUMN flohsync.workflow_run.variables IS 'Variables that it starts with';
COMMENT ON COLUMN flohsync.workflow_run.status IS 'Status, written by who runs the workflow';
COMMENT ON COLUMN flohsync.workflow_run.created_at IS 'When it was made';
