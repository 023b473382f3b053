# Unit tests (make check), fuzz targets (--enable-fuzzing), and the suites that tests/run runs on real VMs.

EXTRA_DIST += tests/run tests/demo tests/e2e tests/unit/data tests/unit/lua fixtures

UNIT_TESTS = \
	tests/unit/helper_test

# Each is tests/unit/NAME_test.c and the library; cmocka.h wants the first four headers before it.
LDADD = $(LIBPROVIUM) $(CMOCKA_LIBS)
AM_CPPFLAGS += $(CMOCKA_CFLAGS)

if HAVE_CMOCKA
check_PROGRAMS += $(UNIT_TESTS)
TESTS = $(UNIT_TESTS)
endif

# Tests find what they need by these, wherever they are started.
AM_TESTS_ENVIRONMENT = \
	PROVIUM_SRCDIR='$(abs_top_srcdir)'; export PROVIUM_SRCDIR; \
	PROVIUM_BIN='$(abs_top_builddir)/provium'; export PROVIUM_BIN; \
	PROVIUM_AGENT='$(abs_top_builddir)/provium-agent'; export PROVIUM_AGENT;

FUZZERS =
if FUZZING
noinst_PROGRAMS += $(FUZZERS)
endif
