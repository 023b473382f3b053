# Unit tests (make check), fuzz targets (--enable-fuzzing), and the suites that tests/run runs on real VMs.

TEST_TREES = \
	fixtures \
	tests/bench/fairness \
	tests/demo \
	tests/e2e \
	tests/fuzz/corpus \
	tests/run \
	tests/unit/data \
	tests/unit/lua

# One by one: of a whole directory `make dist` also takes what was compiled into it.
BENCHES = \
	tests/bench/bare.c \
	tests/bench/bareinit.c \
	tests/bench/barerestore.c \
	tests/bench/bench.lua \
	tests/bench/boot.test.lua \
	tests/bench/bootcache.lua \
	tests/bench/density.test.lua \
	tests/bench/impair.test.lua \
	tests/bench/latency.test.lua \
	tests/bench/network.test.lua \
	tests/bench/provium.toml \
	tests/bench/qga.c \
	tests/bench/reset.test.lua \
	tests/bench/restore.test.lua \
	tests/bench/run \
	tests/bench/scale.lua \
	tests/bench/syscalls.test.lua \
	tests/bench/transfer.test.lua

EXTRA_DIST += $(TEST_TREES) $(BENCHES)

UNIT_TESTS = \
	tests/unit/accel_test \
	tests/unit/agent_test \
	tests/unit/agentclient_test \
	tests/unit/agentfiles_test \
	tests/unit/args_test \
	tests/unit/artifacts_test \
	tests/unit/build_test \
	tests/unit/child_test \
	tests/unit/compat_test \
	tests/unit/config_test \
	tests/unit/console_test \
	tests/unit/discover_test \
	tests/unit/fixturekey_test \
	tests/unit/emulate_test \
	tests/unit/eras_test \
	tests/unit/framed_test \
	tests/unit/framework_test \
	tests/unit/helper_test \
	tests/unit/hostile_test \
	tests/unit/image_test \
	tests/unit/incoming_test \
	tests/unit/json_test \
	tests/unit/loop_test \
	tests/unit/modules_test \
	tests/unit/netem_test \
	tests/unit/netcapture_test \
	tests/unit/nethost_test \
	tests/unit/netkernel_test \
	tests/unit/netlink_test \
	tests/unit/nics_test \
	tests/unit/optionsjson_test \
	tests/unit/overlay_test \
	tests/unit/pack_test \
	tests/unit/pool_test \
	tests/unit/qemu_test \
	tests/unit/qmp_test \
	tests/unit/ramimage_test \
	tests/unit/render_test \
	tests/unit/rerun_test \
	tests/unit/result_test \
	tests/unit/router_test \
	tests/unit/runner_test \
	tests/unit/save_test \
	tests/unit/scan_test \
	tests/unit/scope_test \
	tests/unit/store_test \
	tests/unit/switch_test \
	tests/unit/task_test \
	tests/unit/testfile_test \
	tests/unit/toml_test \
	tests/unit/units_test \
	tests/unit/usernet_test \
	tests/unit/vm_test \
	tests/unit/wait_test \
	tests/unit/wire_test

# What several of them share: fakes of the other side, and the runner of tests written in Lua.
UNIT_SUPPORT = \
	tests/unit/agent_rig.c \
	tests/unit/agent_rig.h \
	tests/unit/fake_agent.c \
	tests/unit/fake_agent.h \
	tests/unit/fake_qmp.c \
	tests/unit/fake_qmp.h \
	tests/unit/luacases.h \
	tests/unit/netguest.c \
	tests/unit/netguest.h \
	tests/unit/netrig.c \
	tests/unit/netrig.h \
	tests/unit/rig.c \
	tests/unit/rig.h

# Each is tests/unit/NAME_test.c, the support and the library.
LDADD = libunit.a $(LIBPROVIUM) $(CMOCKA_LIBS)
AM_CPPFLAGS += $(CMOCKA_CFLAGS)

check_LIBRARIES += libunit.a
libunit_a_SOURCES = $(UNIT_SUPPORT)

if HAVE_CMOCKA
check_PROGRAMS += $(UNIT_TESTS) tests/unit/outside tests/bench/kernelnet
TESTS = $(UNIT_TESTS)
endif

# Tests find what they need by these, wherever they are started.
AM_TESTS_ENVIRONMENT = \
	PROVIUM_SRCDIR='$(abs_top_srcdir)'; export PROVIUM_SRCDIR; \
	PROVIUM_BIN='$(abs_top_builddir)/provium'; export PROVIUM_BIN; \
	PROVIUM_AGENT='$(abs_top_builddir)/provium-agent'; export PROVIUM_AGENT;

# Each fuzzer brings its main from the compiler: ./tests/fuzz/frame_fuzz -max_total_time=60 corpus...
FUZZERS = \
	tests/fuzz/frame_fuzz \
	tests/fuzz/packet_fuzz

if FUZZING
noinst_PROGRAMS += $(FUZZERS)
endif
tests_fuzz_frame_fuzz_LDADD = $(LIBPROVIUM)
tests_fuzz_frame_fuzz_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_packet_fuzz_LDADD = $(LIBPROVIUM)
tests_fuzz_packet_fuzz_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
