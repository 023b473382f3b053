/*
 * Replies with every field of the wrong type, from an agent that is this program: each operation raises or
 * returns something, and Provium goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/protocol.h"
#include "fake_agent.h"
#include "loop/loop.h"

static const char config[] =
	"[provium]\nroots = [\".\"]\n\n[profiles.guest]\nkernel = \"none\"\ncmdline = \"\"\n";

static const char script[] =
	"local vm = provium:vm('a', 'guest'):boot()\n"
	"local reader = { read = true }\n"
	"local ops = {\n"
	"	function() return vm:run('true') end,\n"
	"	function() return vm:run_async('true'):wait() end,\n"
	"	function() return vm:run_async('true'):status() end,\n"
	"	function() return vm:run_async('true'):stdin_write('x') end,\n"
	"	function() return vm:read_file('/x') end,\n"
	"	function() return vm:write_file('/x', 'x') end,\n"
	"	function() return vm:stat('/x') end,\n"
	"	function() return vm:exists('/x') end,\n"
	"	function() return vm:mkdir('/x') end,\n"
	"	function() return vm:open_file('/x', reader):read(4) end,\n"
	"	function() return vm:open_file('/x', reader):read_all() end,\n"
	"	function() return vm:open_file('/x', reader):tell() end,\n"
	"	function() return vm:open_file('/x', { write = true }):write('x') end,\n"
	"	function() return vm:tail_file('/x') end,\n"
	"	function() return vm:syscall(1).out_bufs[1] end,\n"
	"	function() return vm:syscall_async(1):await() end,\n"
	"	function() return vm:ioctl(1, 2).out_data end,\n"
	"	function() return vm:read_mem(1, 2) end,\n"
	"	function() return vm:clock():get() end,\n"
	"	function() return vm:clock():advance(1) end,\n"
	"	function() return vm:spawn_worker():join() end,\n"
	"	function() return vm:batch(function(b) b:run('x'); b:listdir('/x') end) end,\n"
	"}\n"
	"test('every operation', function(t)\n"
	"	for _, op in ipairs(ops) do\n"
	"		pcall(op)\n"
	"	end\n"
	"	local file = vm:open_file('/x', { write = true })\n"
	"	t:assert_contains(t:assert_raises(function() file:write('abc') end),\n"
	"		'write `/x`: the guest says that it wrote 0 of 3 bytes, after 0')\n"
	"	t:assert_same(vm:listdir('/x'), { { name = 'good', entry_type = 'file' } })\n"
	"	t:assert_eq(vm:state(), 'booted')\n"
	"end)\n";

static bool is_request(unsigned type, const msgpack_object *body, const char *op)
{
	const msgpack_object *name = body->via.array.ptr;

	return type == WIRE_REQUEST && body->type == MSGPACK_OBJECT_ARRAY && body->via.array.size > 0 &&
		name->type == MSGPACK_OBJECT_STR && name->via.str.size == strlen(op) &&
		memcmp(name->via.str.ptr, op, strlen(op)) == 0;
}

/* One answer for nearly every request: what one of them reads is here with another type. */
static void answer(struct fake_agent *fa, unsigned type, unsigned channel, uint32_t id,
	const msgpack_object *body, void *arg)
{
	(void)arg;
	if (is_request(type, body, "open"))
		fake_agent_send(fa, WIRE_REPLY, channel, id, "{2susu", "handle", 1, "fd", 3);
	else if (is_request(type, body, "write"))
		fake_agent_send(fa, WIRE_REPLY, channel, id, "{1su", "written", 0);
	else if (type == WIRE_REQUEST)
		fake_agent_send(fa, WIRE_REPLY, channel, id,
			"{9" "s[4[2uu[2[0{0s[2ss" "s{0" "su" "su" "s[0" "ss" "ss" "s{1su" "s[2u[2ns",
			"entries", 1, 2, "bad", "good", "file", "status", "data", 7, "entry_type", 8, "size",
			"handle", "x", "ret", "y", "ns", "z", 1, "results", 3, "x");
}

static int be_the_agent(void)
{
	struct loop *l = loop_new();

	fake_agent_new(l, 3, answer, NULL);
	return loop_run(l);
}

static void put(const char *dir, const char *name, const char *text)
{
	char *path = xasprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
	free(path);
}

static void fields_of_wrong_types(void **state)
{
	const char *provium = getenv("PROVIUM_BIN");
	char dir[] = "/tmp/provium-hostile-XXXXXX", self[4096], *command;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int status;

	(void)state;
	if (!provium)
		skip();
	assert_true(n > 0);
	self[n] = '\0';
	assert_non_null(mkdtemp(dir));
	put(dir, "provium.toml", config);
	put(dir, "x.test.lua", script);
	command = xasprintf("cd %s && cp '%s' provium && ln -s '%s' provium-agent && HOME=%s "
		"./provium --vmm local -v --timeout 60s >&2", dir, provium, self, dir);
	status = system(command);
	free(command);
	command = xasprintf("rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	free(command);
	assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_of_wrong_types),
	};

	if (argc > 1 && strcmp(argv[1], "--fd") == 0)
		return be_the_agent();
	(void)argv;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
