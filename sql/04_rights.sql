-- Who called, who may do what, and roles as tables keep them.
--
-- Everything in the schemas of flohsync belongs to flohsync_owner.  Public functions
-- run as that role, so inside them it is current_user; they act for the
-- caller, whose permissions are checked here.  Functions that need to
-- know the caller come in two halves (src/base/run_as.c, src/entry/rights.c).
--
-- Who may call a function or read a table is declared right behind it, with
-- _flohsync.allow().  grant_reader(), grant_manager() and grant_gateway() give what
-- is declared, and nothing else; what is not declared is for superusers.
--
-- A function f of schema flohsync_api is made from its inner half, _flohsync.api_f,
-- by _flohsync.serve(), which declares it as well.

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
  level   text COLLATE "C" NOT NULL CHECK (level IN ('reader', 'manager', 'gateway')),
  kind    text NOT NULL CHECK (kind IN ('FUNCTION', 'PROCEDURE', 'TABLE')),
  columns text,
  PRIMARY KEY (object, level)
);
COMMENT ON TABLE _flohsync.access IS
  'What grant_reader(), grant_manager() and grant_gateway() grant; filled by the script of the extension';
COMMENT ON COLUMN _flohsync.access.object IS 'Function with its argument types, or table or view, with its schema';
COMMENT ON COLUMN _flohsync.access.level IS
  'reader: readers and managers; manager: managers only; gateway: the role that a program for HTTP connects as';
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

CREATE FUNCTION _flohsync.serve(_levels text[], _inner text, _comment text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  inner_half regprocedure := ('_flohsync.api_' || _inner)::regprocedure;
  outer_half text;
BEGIN
  EXECUTE (SELECT format($create$CREATE FUNCTION flohsync_api.%I(%s) RETURNS %s
                                 LANGUAGE c %s AS 'MODULE_PATHNAME', 'flohsync_api_call'$create$,
                         substr(p.proname, length('api_') + 1), pg_get_function_arguments(p.oid),
                         pg_get_function_result(p.oid),
                         CASE p.provolatile WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END)
             FROM pg_proc p WHERE p.oid = inner_half);
  outer_half := 'flohsync_api.' || _inner;
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', outer_half::regprocedure, _comment);
  EXECUTE format('COMMENT ON FUNCTION %s IS %L', inner_half,
                 'Implementation of the function of schema flohsync_api, run as its owner');
  PERFORM _flohsync.allow(l.level, outer_half) FROM unnest(_levels) l(level);
END
$$;
COMMENT ON FUNCTION _flohsync.serve(text[], text, text) IS
  'Makes the function of schema flohsync_api for an inner half api_…, with the same arguments, defaults and '
  'volatility, and declares which roles may call it; for the extension script';
