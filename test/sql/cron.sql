-- Cron against a sample of another implementation's answers (test/cron/README).
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS flohsync;
SET client_min_messages = warning;
\getenv folder PG_ABS_SRCDIR
\cd :folder
\cd ..
\set ECHO none
\i test/cron/cron_check.sql
