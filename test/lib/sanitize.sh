# A copy of PostgreSQL's installation with the extension built for the sanitizers.
# For bash; source it after scratch_make (cluster.sh).
#
#	sanitize_install	builds, makes the copy in $SCRATCH, sets PG_CONFIG and PATH to it
#	sanitize_reports	what the sanitizers have reported since, in TAP
#
# PostgreSQL finds its files by where its programs are, so that a copy works as
# it is, and nothing of the real installation is touched.  The program "postgres"
# of the copy is a script that loads the sanitizers' library first; all other
# programs run without it.
#
# The library sets itself up in the first malloc(), and looks up names then, which
# takes a lock of the C library: that must not be a malloc() of a constructor that
# holds it already (newlocale() in p11-kit's).  So there is one before all others.

sanitize_install() {
	local inst=$SCRATCH/sanitized log=$SCRATCH/sanitize.log dir library bindir
	echo "# building with the sanitizers"
	if ! make -C "$ROOT" sanitize PG_CONFIG="$PG_CONFIG" -j"$(nproc 2>/dev/null || echo 2)" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		return 1
	fi
	library=$(ldd "$ROOT/build/sanitize/flohsync.so" | sed -n 's/.*libasan[^ ]* => \([^ ]*\) .*/\1/p')
	if [ -z "$library" ]; then
		echo "the sanitizers' library is not found; they need gcc" >&2
		return 1
	fi
	echo '#include <stdlib.h>
static void __attribute__((constructor)) first(void) { free(malloc(1)); }' >"$SCRATCH/first.c"
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
export LD_PRELOAD=$library:$SCRATCH/first.so\${LD_PRELOAD:+:\$LD_PRELOAD}
export ASAN_OPTIONS=detect_leaks=0:log_path=$SCRATCH/reports/report
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$SCRATCH/reports/report
exec -a "\$0" "\${0%/*}/postgres.real" "\$@"
SCRIPT
	chmod 755 "$inst$bindir/postgres"
	PG_CONFIG=$inst$bindir/pg_config
	PATH=$inst$bindir:$PATH
	export PG_CONFIG
	[[ $("$PG_CONFIG" --pkglibdir) == "$inst"/* ]] || {
		echo "PostgreSQL's installation cannot be copied: its programs do not find their files by where they are" >&2
		return 1
	}
}

sanitize_reports() {
	local file n=0
	for file in "$SCRATCH"/reports/report.*; do
		[ -e "$file" ] || continue
		n=$((n + 1))
		[ -z "${RESULTS_DIR:-}" ] || cp "$file" "$RESULTS_DIR"
		echo "not ok - sanitize: report of process ${file##*.}"
		head -n 40 "$file" | sed 's/^/# /'
	done
	[ "$n" -gt 0 ] || echo 'ok - sanitize: nothing was reported'
	if [ "$n" -gt 0 ]; then
		echo "# places:"
		grep -hE 'runtime error|ERROR: AddressSanitizer' "$SCRATCH"/reports/report.* | sed 's/==[0-9]*==//; s/0x[0-9a-f]*/0x/g' | sort | uniq -c | sort -rn | head -n 50 | sed 's/^/# /'
	fi
}
