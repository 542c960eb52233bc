-- Who called, who may do what, and roles as tables keep them.
--
-- Everything in the two schemas belongs to flohsync_owner.  Public functions
-- run as that role, so inside them it is current_user; they act for the
-- caller, whose permissions are checked here.  Functions that need to
-- know the caller come in two halves (src/base/run_as.c, src/entry/rights.c).
--
-- Who may call a function or read a table is declared right behind it, with
-- _flohsync.allow().  grant_reader() and grant_manager() give what is declared,
-- and nothing else; what is not declared is for superusers.

CREATE FUNCTION _flohsync.caller() RETURNS oid
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_caller';
COMMENT ON FUNCTION _flohsync.caller() IS
  'Role that called the public function, for its inner half, which runs as the owner; 42501 anywhere else';

CREATE FUNCTION _flohsync.caller_name() RETURNS name
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'flohsync_caller_name';
COMMENT ON FUNCTION _flohsync.caller_name() IS
  'Name of the role that called the public function, for the record; also for an inner half that runs as the '
  'worker; 42501 anywhere else';

CREATE FUNCTION _flohsync.acting_role() RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN CASE current_user WHEN 'flohsync_owner' THEN _flohsync.caller()
       ELSE (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) END;
COMMENT ON FUNCTION _flohsync.acting_role() IS
  'Role on whose behalf a table is written: inside functions of flohsync their caller, else the current role';

CREATE FUNCTION _flohsync.may_act_as(_role oid) RETURNS boolean
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
RETURN (SELECT r.rolsuper OR pg_catalog.pg_has_role(r.oid, _role,
                 CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
          FROM pg_catalog.pg_roles r WHERE r.oid = _flohsync.acting_role());
COMMENT ON FUNCTION _flohsync.may_act_as(oid) IS 'Whether the acting role could take another one with SET ROLE';

-- Roles in tables (src/entry/rights.c).

CREATE TYPE _flohsync.role;
CREATE FUNCTION _flohsync.role_in(cstring) RETURNS _flohsync.role
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_in';
COMMENT ON FUNCTION _flohsync.role_in(cstring) IS
  'Input of type role: the name of a role, or ? and the name of a dropped role';
CREATE FUNCTION _flohsync.role_out(_flohsync.role) RETURNS cstring
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_out';
COMMENT ON FUNCTION _flohsync.role_out(_flohsync.role) IS 'Output of type role';
CREATE TYPE _flohsync.role (INPUT = _flohsync.role_in, OUTPUT = _flohsync.role_out, INTERNALLENGTH = 68,
                            ALIGNMENT = int4, STORAGE = plain);
COMMENT ON TYPE _flohsync.role IS
  'Reference to a role: follows renaming, is dumped by name, and does not refer to a later role of the same name '
  'once the role has been dropped';

CREATE FUNCTION _flohsync.role(_id oid) RETURNS _flohsync.role
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_from_oid';
COMMENT ON FUNCTION _flohsync.role(oid) IS 'The role of an id; 42704 when there is none';
CREATE FUNCTION _flohsync.role_oid(_role _flohsync.role) RETURNS oid
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_oid';
COMMENT ON FUNCTION _flohsync.role_oid(_flohsync.role) IS 'OID of a role; null when it has been dropped';
CREATE FUNCTION _flohsync.role_name(_role _flohsync.role) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_name';
COMMENT ON FUNCTION _flohsync.role_name(_flohsync.role) IS 'Name of a role, also of a dropped one';
CREATE FUNCTION _flohsync.role_gone(_role _flohsync.role) RETURNS _flohsync.role
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'flohsync_role_gone';
COMMENT ON FUNCTION _flohsync.role_gone(_flohsync.role) IS
  'The role marked as dropped, so that nothing runs as it any more';

-- Declarations.  Objects are known by their text, which pg_upgrade does not change.

CREATE TABLE _flohsync.access (
  object  text COLLATE "C" NOT NULL,
  level   text COLLATE "C" NOT NULL CHECK (level IN ('reader', 'manager')),
  kind    text NOT NULL CHECK (kind IN ('FUNCTION', 'PROCEDURE', 'TABLE')),
  columns text,
  PRIMARY KEY (object, level)
);
COMMENT ON TABLE _flohsync.access IS
  'What grant_reader() and grant_manager() grant; filled by the script of the extension';
COMMENT ON COLUMN _flohsync.access.object IS 'Function with its argument types, or table or view, with its schema';
COMMENT ON COLUMN _flohsync.access.level IS 'reader: readers and managers; manager: managers only';
COMMENT ON COLUMN _flohsync.access.kind IS 'FUNCTION or PROCEDURE (EXECUTE), TABLE (SELECT)';
COMMENT ON COLUMN _flohsync.access.columns IS 'Columns of a table, separated by commas; null: all';

CREATE FUNCTION _flohsync.allow(_level text, _object text, _columns text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  routine regprocedure := CASE WHEN _object LIKE '%(%' THEN _object::regprocedure END;
BEGIN
  INSERT INTO _flohsync.access (object, level, kind, columns)
  SELECT coalesce(routine::text, _object::regclass::text), _level,
         CASE WHEN routine IS NULL THEN 'TABLE'
              ELSE (SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END FROM pg_proc p
                    WHERE p.oid = routine) END,
         _columns;
END
$$;
COMMENT ON FUNCTION _flohsync.allow(text, text, text) IS
  'Declares which roles may call a function or read a table; for the extension script';
