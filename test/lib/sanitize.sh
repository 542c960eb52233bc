# A copy of PostgreSQL's installation with the extension built for the sanitizers.
# For bash; source it after scratch_make (cluster.sh).
#
#	sanitize_install	builds, makes the copy in $SCRATCH, sets PG_CONFIG and PATH to it
#	sanitize_control	has two faults of its own reported, in TAP: else the rest would prove nothing
#	sanitize_scan DIR NAME	takes what they have written to logs in a folder that goes away
#	sanitize_reports	what the sanitizers have reported since, in TAP
#
# PostgreSQL finds its files by where its programs are, so that a copy works as
# it is, and nothing of the real installation is touched.  The program "postgres"
# of the copy is a script that loads the sanitizers' library first; all other
# programs run without it.
#
# It comes with a library of ours.  The sanitizers set themselves up in the first
# malloc(), and look up names then, which takes a lock of the C library: that must
# not be a malloc() of a constructor that holds it already (newlocale() in
# p11-kit's), so there is one before all others.  And the one for undefined
# behaviour reads its options from /proc/self/environ when it has something to say,
# where PostgreSQL has its title then: they are in a function.

sanitize_install() {
	local inst=$SCRATCH/sanitized log=$SCRATCH/sanitize.log dir library bindir
	echo "# building with the sanitizers"
	if ! make -C "$ROOT" sanitize PG_CONFIG="$PG_CONFIG" -j"$(nproc 2>/dev/null || echo 2)" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		return 1
	fi
	library=$(ldd "$ROOT/build/sanitize/flohsync.so" | sed -n 's/.*lib\(asan\|ubsan\)[^ ]* => \([^ ]*\) .*/\2/p' | sort | paste -sd :)
	if [[ $library != *libasan*:*libubsan* ]]; then
		echo "the sanitizers' libraries are not found; they need gcc" >&2
		return 1
	fi
	cat >"$SCRATCH/first.c" <<SOURCE
#include <stdlib.h>
const char *__ubsan_default_options(void) { return "print_stacktrace=1"; }
static void __attribute__((constructor)) first(void) { free(malloc(1)); }
SOURCE
	if ! gcc -O0 -shared -fPIC -Wl,-z,initfirst -o "$SCRATCH/first.so" "$SCRATCH/first.c" >"$log" 2>&1; then
		cat "$log" >&2
		return 1
	fi
	bindir=$("$PG_CONFIG" --bindir)
	for dir in bindir pkglibdir sharedir includedir-server; do
		dir=$("$PG_CONFIG" "--$dir")
		[ ! -e "$inst$dir" ] || continue
		mkdir -p "$inst${dir%/*}"
		case $dir in
			*/include/*) ln -s "$dir" "$inst$dir" ;;
			*) cp -a "$dir" "$inst$dir" ;;
		esac
	done
	if ! make -C "$ROOT/build/sanitize" -f "$ROOT/Makefile" install PG_CONFIG="$PG_CONFIG" SANITIZE=1 DESTDIR="$inst" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		return 1
	fi
	mv "$inst$bindir/postgres" "$inst$bindir/postgres.real"
	as_server mkdir "$SCRATCH/reports"
	cat >"$inst$bindir/postgres" <<SCRIPT
#!/bin/bash
export LD_PRELOAD=$SCRATCH/first.so:$library\${LD_PRELOAD:+:\$LD_PRELOAD}
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:log_path=$SCRATCH/reports/report
exec -a "\$0" "\${0%/*}/postgres.real" "\$@"
SCRIPT
	chmod 755 "$inst$bindir/postgres"
	PG_CONFIG=$inst$bindir/pg_config
	PATH=$inst$bindir:$PATH
	export PG_CONFIG FLOHSYNC_SANITIZED=1	# the sanitizers take memory of their own: tests that measure it stand back
	[[ $("$PG_CONFIG" --pkglibdir) == "$inst"/* ]] || {
		echo "PostgreSQL's installation cannot be copied: its programs do not find their files by where they are" >&2
		return 1
	}
}

# The one for undefined behaviour writes to where the server's stderr goes, whatever its options say.
sanitize_scan() {
	local found
	found=$(grep -rhE -A 15 'runtime error: |AddressSanitizer' "$1" --include='*.log' 2>/dev/null) || return 0
	printf '%s\n' "$found" >"$SCRATCH/reports/report.$2"
}

sanitize_control() {
	local dir=$SCRATCH/control file
	as_server mkdir -p "$dir"
	cat >"$SCRATCH/control.c" <<'SOURCE'
#include "postgres.h"
#include "fmgr.h"

PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	volatile int n = 40;
	volatile char *p = malloc(4);

	elog(LOG, "%d", 1 << n);
	elog(LOG, "%d", p[n - 36]);
}
SOURCE
	gcc -g -shared -fPIC -fsanitize=address,undefined -I"$("$PG_CONFIG" --includedir-server)" \
		-o "$SCRATCH/control.so" "$SCRATCH/control.c" && cluster_start "$dir" &&
		as_server psql -h "$dir" -U postgres -d postgres -XAtqc "LOAD '$SCRATCH/control.so'" >"$dir/out" 2>&1
	cluster_stop "$dir" immediate
	sanitize_scan "$dir" control
	if grep -q 'shift exponent' "$SCRATCH"/reports/report.* && grep -q 'heap-buffer-overflow' "$SCRATCH"/reports/report.*; then
		echo 'ok - sanitize: what is wrong is reported'
	else
		echo 'not ok - sanitize: what is wrong is not reported'
		tail -n 20 "$dir/out" "$dir/server.log" "$SCRATCH"/reports/report.* 2>/dev/null | sed 's/^/# /'
	fi
	rm -f "$SCRATCH"/reports/report.*
}

sanitize_reports() {
	local file n=0
	for file in "$SCRATCH"/reports/report.*; do
		[ -e "$file" ] || continue
		n=$((n + 1))
		[ -z "${RESULTS_DIR:-}" ] || cp "$file" "$RESULTS_DIR"
		echo "not ok - sanitize: report of ${file##*report.}"
		head -n 40 "$file" | sed 's/^/# /'
	done
	[ "$n" -gt 0 ] || echo 'ok - sanitize: nothing was reported'
	if [ "$n" -gt 0 ]; then
		echo "# places:"
		grep -hE 'runtime error|ERROR: AddressSanitizer' "$SCRATCH"/reports/report.* | sed 's/==[0-9]*==//; s/0x[0-9a-f]*/0x/g' | sort | uniq -c | sort -rn | head -n 50 | sed 's/^/# /'
	fi
}
