# flohsync: a PostgreSQL extension.  "make" builds, "make install" installs,
# "make installcheck" tests what is installed on a running server, "make test" runs
# all tests on clusters of its own; README.md has the rest.  "make gateway" builds
# flohsync-http, and "make install-gateway" installs it.
#
#	make WERROR=1	a warning is an error
#	make HARDENING=	without our own hardening flags
#	make sanitize	builds with the address and undefined-behaviour sanitizers,
#			in build/sanitize; "test/run sanitize" tests that

# Where this file is; the current folder may be another one (a VPATH build).
TOP := $(patsubst %/,%,$(or $(VPATH),$(dir $(firstword $(MAKEFILE_LIST)))))

EXTENSION = flohsync
FLOHSYNC_VERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(TOP)/flohsync.control)
MODULE_big = flohsync
OBJS = $(patsubst $(TOP)/%.c,%.o,$(wildcard $(TOP)/src/*/*.c))
# The folders of src/ are described in src/README.md.
OBJ_DIRS = $(sort $(dir $(OBJS)))
STEPS = $(sort $(notdir $(wildcard $(TOP)/sql/flohsync--*--*.sql)))
DATA_built = sql/flohsync--$(FLOHSYNC_VERSION).sql $(addprefix build/steps/,$(STEPS))
INSTALL_SQL = $(sort $(wildcard $(TOP)/sql/[0-9][0-9]_*.sql))
INSTALL_JSON = $(wildcard $(TOP)/sql/*.json $(TOP)/sql/templates/*.json)
DATA = sql/flohsync.definition.schema.json
# "make installcheck": on the running server that PGHOST and PGPORT name, as one
# of its superusers, with the extension as it is installed there.
REGRESS = $(sort $(notdir $(basename $(wildcard $(TOP)/test/sql/*.sql))))
REGRESS_OPTS = $(INSTALLCHECK_OPTS)
ISOLATION = $(sort $(notdir $(basename $(wildcard $(TOP)/test/specs/*.spec))))
ISOLATION_OPTS = $(INSTALLCHECK_OPTS)
INSTALLCHECK_OPTS = --inputdir=$(TOP)/test --encoding=UTF8 --no-locale
EXTRA_CLEAN = sql/flohsync--$(FLOHSYNC_VERSION).sql test/upstream/upstream build gateway/build

PG_CONFIG ?= pg_config
# Up to PostgreSQL 15, PGDLLEXPORT is empty unless we say what it means.
PG_CPPFLAGS = -I$(TOP)/src -DFLOHSYNC_VERSION=\"$(FLOHSYNC_VERSION)\" \
	-D'PGDLLEXPORT=__attribute__((visibility("default")))'
PG_CFLAGS = -std=gnu11 -fvisibility=hidden -Wall -Wextra $(if $(WERROR),-Werror) \
	-Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
	-Wno-declaration-after-statement
SHLIB_LINK = -lcurl -lhiredis -lssl -lcrypto
# Bitcode serves inlining of SQL functions written in C; these are not hot there.
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Only sources are looked for there: what was built in the source folder, with
# other flags perhaps, is none of ours.
override VPATH :=
vpath %.c $(TOP)
vpath %.control $(TOP)

# PostgreSQL's flags and headers may be made for another compiler.
ifneq ($(findstring clang,$(shell $(CC) --version 2>/dev/null)),)
override CFLAGS += -Wno-ignored-optimization-argument -Wno-ignored-attributes -Wno-unknown-warning-option
endif

HARDENING = yes
ifdef SANITIZE
override CPPFLAGS += -U_FORTIFY_SOURCE
override CFLAGS += -O1 -g -fsanitize=address,undefined,float-cast-overflow -fno-omit-frame-pointer
override LDFLAGS += -fsanitize=address,undefined,float-cast-overflow
else ifneq ($(HARDENING),)
# Each only if the compiler has it, and PostgreSQL's own flags do not.
HARDENING_CFLAGS := $(shell $(TOP)/script/cc-flags "-fstack-protector-strong -fstack-clash-protection \
	-fcf-protection -mbranch-protection=standard -Wformat=2 -D_FORTIFY_SOURCE=3 -D_FORTIFY_SOURCE=2" \
	-- $(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_SL) -c)
HARDENING_LDFLAGS := $(shell $(TOP)/script/cc-flags "-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack" \
	-- $(CC) $(CFLAGS) $(CFLAGS_SL) -shared $(LDFLAGS))
override CFLAGS += $(HARDENING_CFLAGS)
override LDFLAGS += $(HARDENING_LDFLAGS)
endif

$(OBJS): $(wildcard $(TOP)/src/*/*.h) $(TOP)/flohsync.control | $(OBJ_DIRS)

# One script from topic files, in the order of their names, and each step from a
# version to the next; sql/README.md says what is in them.
sql/flohsync--$(FLOHSYNC_VERSION).sql: $(INSTALL_SQL) $(INSTALL_JSON) $(TOP)/script/include-sql | $(CURDIR)/sql
	$(TOP)/script/include-sql $(INSTALL_SQL) > $@.tmp
	mv $@.tmp $@

build/steps/%: $(TOP)/sql/% $(wildcard $(TOP)/sql/upgrade/*.sql) $(INSTALL_SQL) $(INSTALL_JSON) $(TOP)/script/include-sql | $(CURDIR)/build/steps
	$(TOP)/script/include-sql $< > $@.tmp
	mv $@.tmp $@

$(OBJ_DIRS) $(CURDIR)/sql $(CURDIR)/build/steps:
	mkdir -p $@

sanitize:
	mkdir -p build/sanitize
	$(MAKE) -C build/sanitize -f $(abspath $(TOP))/Makefile PG_CONFIG='$(PG_CONFIG)' SANITIZE=1

gateway:
	$(MAKE) -C $(TOP)/gateway PG_CONFIG='$(PG_CONFIG)'

install-gateway:
	$(MAKE) -C $(TOP)/gateway PG_CONFIG='$(PG_CONFIG)' install

upstream: test/upstream/upstream
test/upstream/upstream: $(wildcard $(TOP)/test/upstream/*.c $(TOP)/test/upstream/*.h)
	$(MAKE) -C $(TOP)/test/upstream

test:
	$(TOP)/test/run

demo:
	$(TOP)/demo/run

bench:
	$(TOP)/bench/run

.PHONY: sanitize gateway install-gateway upstream test demo bench
