# flohsync: a PostgreSQL extension.  "make" builds, "make install" installs,
# "make test" runs the tests on clusters of its own; README.md has the rest.

EXTENSION = flohsync
FLOHSYNC_VERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" flohsync.control)
MODULE_big = flohsync
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))
DATA_built = sql/flohsync--$(FLOHSYNC_VERSION).sql
INSTALL_SQL = $(sort $(wildcard sql/[0-9][0-9]_*.sql))
INSTALL_JSON = $(wildcard sql/*.json sql/templates/*.json)
DATA = sql/flohsync.definition.schema.json
EXTRA_CLEAN = sql/flohsync--$(FLOHSYNC_VERSION).sql test/upstream/upstream

PG_CONFIG ?= pg_config
# Up to PostgreSQL 15, PGDLLEXPORT is empty unless we say what it means.
PG_CPPFLAGS = -DFLOHSYNC_VERSION=\"$(FLOHSYNC_VERSION)\" \
	-D'PGDLLEXPORT=__attribute__((visibility("default")))'
PG_CFLAGS = -std=gnu11 -fvisibility=hidden -Wall -Wextra -Werror \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-declaration-after-statement
SHLIB_LINK = -lcurl -lhiredis -lssl -lcrypto
# Bitcode serves inlining of SQL functions written in C; these are not hot there.
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h) flohsync.control

# One script from topic files, in the order of their names.  A line
# "--:include FILE" stands for the text of that file.
sql/flohsync--$(FLOHSYNC_VERSION).sql: $(INSTALL_SQL) $(INSTALL_JSON)
	awk '$$1 == "--:include" { while ((got = (getline line < ("sql/" $$2))) > 0) print line; \
		close("sql/" $$2); if (got < 0) exit 1; next } { print }' $(INSTALL_SQL) > $@.tmp
	mv $@.tmp $@

upstream: test/upstream/upstream
test/upstream/upstream: $(wildcard test/upstream/*.c test/upstream/*.h)
	$(MAKE) -C test/upstream

test:
	test/run

demo:
	demo/run

bench:
	bench/run

.PHONY: upstream test demo bench
