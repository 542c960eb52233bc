# Private clusters and other processes in a scratch folder that goes away.  For bash; source it.
#
#	scratch_make NAME          makes $SCRATCH for the server user; sets PG_CONFIG and PATH
#	as_server COMMAND...       runs a command as the user that runs servers; through $ALONE, if that is set
#	cluster_start DIR LINE...  makes a cluster in DIR/data with these lines of configuration, and starts
#	                           it; its socket is in DIR; the log is DIR/server.log; superuser postgres
#	cluster_stop DIR [MODE]    stops it
#	upstream_start DIR ARG...  starts a copy of the test server; sets UPSTREAM_PORT; its pid is in DIR/upstream.pid
#	upstream_stop DIR          stops it
#	gateway_start DIR LINE...  starts flohsync-http with these settings; sets GATEWAY_PORT; its pid is in
#	                           DIR/gateway.pid, its log DIR/gateway.log
#	gateway_stop DIR           stops it
#	scratch_drop               stops all that is left in $SCRATCH and removes it
#
# initdb and postgres refuse to run as root, so root hands them to the user
# "postgres", who may not be able to read the checkout: what servers need is
# copied into the scratch folder.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SCRATCH=

# Settings of the caller's own PostgreSQL must not reach ours.
unset PGDATA PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE \
	PGOPTIONS PGSSLMODE PGAPPNAME PGCLIENTENCODING PGTZ PGDATESTYLE PGCONNECT_TIMEOUT PGTARGETSESSIONATTRS
export LC_ALL=C.UTF-8 PSQLRC=/dev/null

if [ "$(id -u)" = 0 ]; then
	SERVER_USER=postgres
else
	SERVER_USER=$(id -un)
fi

as_server() {
	if [ "$(id -u)" = 0 ]; then
		HOME=${SCRATCH:-/} USER=$SERVER_USER LOGNAME=$SERVER_USER ${ALONE:+"$ALONE"} \
			setpriv --reuid="$SERVER_USER" --regid="$SERVER_USER" --init-groups -- "$@"
	else
		${ALONE:+"$ALONE"} "$@"
	fi
}

scratch_make() {
	PG_CONFIG=$("$ROOT/script/pg-config") || {
		echo "no PostgreSQL to run: see script/setup" >&2
		return 1
	}
	export PG_CONFIG
	PATH=$("$PG_CONFIG" --bindir):$PATH
	local parent=${TMPDIR:-/tmp}
	# A socket's path has at most 107 bytes.
	[ ${#parent} -le 50 ] || parent=/tmp
	SCRATCH=$(mktemp -d "$parent/$1.XXXXXX")
	chmod 700 "$SCRATCH"
	[ "$(id -u)" != 0 ] || chown "$SERVER_USER": "$SCRATCH"
	# The server user may not be allowed to stand where we stand.
	cd "$SCRATCH" || return 1
}

cluster_start() {
	local dir=$1
	shift
	as_server mkdir -p "$dir"
	as_server initdb -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$SCRATCH/initdb.log" 2>&1 || {
		cat "$SCRATCH/initdb.log" >&2
		return 1
	}
	{
		printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$dir'" "unix_socket_permissions = 0700" \
			"fsync = off" "max_connections = 50" "max_worker_processes = 16" "log_line_prefix = '%m [%p] %b '"
		printf '%s\n' "$@"
	} | as_server tee -a "$dir/data/postgresql.conf" >/dev/null
	as_server pg_ctl start -s -w -t 60 -D "$dir/data" -l "$dir/server.log" </dev/null >"$SCRATCH/start.log" 2>&1 || {
		cat "$SCRATCH/start.log" >&2
		as_server tail -n 20 "$dir/server.log" >&2
		return 1
	}
}

cluster_stop() {
	as_server pg_ctl stop -s -w -t 60 -D "$1/data" -m "${2:-fast}" >/dev/null 2>&1
}

# Is this process the copy of the test server in this folder?
upstream_runs() {
	[ -n "$1" ] && kill -0 "$1" 2>/dev/null && ps -o args= -p "$1" | grep -qF -- "$2/upstream "
}

upstream_start() {
	local dir=$1
	shift
	as_server mkdir -p "$dir"
	as_server rm -f "$dir/port"
	install -m 755 "$ROOT/test/upstream/upstream" "$dir/upstream"
	# A session of its own: an interrupt at the terminal is for the script alone.
	as_server setsid --fork sh -c 'echo $$ >"$1/upstream.pid"; dir=$1; shift
		exec "$dir/upstream" --port-file "$dir/port" "$@" >"$dir/upstream.log" 2>&1 </dev/null' sh "$dir" "$@"
	local i
	for ((i = 0; i < 200; i++)); do
		[ -s "$dir/port" ] && break
		sleep 0.05
	done
	UPSTREAM_PORT=$(cat "$dir/port" 2>/dev/null) && [ -n "$UPSTREAM_PORT" ] && return
	echo "the test server did not start:" >&2
	cat "$dir/upstream.log" >&2
	return 1
}

upstream_stop() {
	local pid i
	pid=$(cat "$1/upstream.pid" 2>/dev/null) || return 0
	upstream_runs "$pid" "$1" || return 0
	kill "$pid" 2>/dev/null || true
	for ((i = 0; i < 100; i++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.05
	done
}

gateway_runs() {
	[ -n "$1" ] && kill -0 "$1" 2>/dev/null && ps -o args= -p "$1" | grep -qF -- "$2/flohsync-http "
}

gateway_start() {
	local dir=$1 i
	shift
	as_server mkdir -p "$dir"
	install -m 755 "$ROOT/gateway/build/flohsync-http" "$dir/flohsync-http"
	printf '%s\n' "listen = 127.0.0.1:0" "$@" | as_server tee "$dir/gateway.conf" >/dev/null
	as_server setsid --fork sh -c 'echo $$ >"$1/gateway.pid"
		exec "$1/flohsync-http" --config "$1/gateway.conf" 2>"$1/gateway.log" </dev/null' sh "$dir"
	for ((i = 0; i < 200; i++)); do
		GATEWAY_PORT=$(sed -n 's/.* is ready listen=127.0.0.1:\([0-9]*\)$/\1/p' "$dir/gateway.log" 2>/dev/null) || true
		[ -z "$GATEWAY_PORT" ] || return 0
		sleep 0.05
	done
	echo "flohsync-http did not start:" >&2
	cat "$dir/gateway.log" >&2
	return 1
}

gateway_stop() {
	local pid i
	pid=$(cat "$1/gateway.pid" 2>/dev/null) || return 0
	gateway_runs "$pid" "$1" || return 0
	kill "$pid" 2>/dev/null || true
	for ((i = 0; i < 200; i++)); do
		kill -0 "$pid" 2>/dev/null || return 0
		sleep 0.05
	done
	kill -KILL "$pid" 2>/dev/null || true
}

scratch_drop() {
	local file
	[ -n "$SCRATCH" ] && [ -d "$SCRATCH" ] || return 0
	cd /
	while IFS= read -r file; do
		gateway_stop "${file%/*}"
	done < <(find "$SCRATCH" -name gateway.pid -type f 2>/dev/null)
	while IFS= read -r file; do
		as_server pg_ctl stop -s -w -t 30 -D "${file%/*}" -m immediate >/dev/null 2>&1 || true
	done < <(find "$SCRATCH" -name postmaster.pid -type f 2>/dev/null)
	while IFS= read -r file; do
		upstream_stop "${file%/*}"
	done < <(find "$SCRATCH" -name upstream.pid -type f 2>/dev/null)
	rm -rf "$SCRATCH"
	SCRATCH=
}
