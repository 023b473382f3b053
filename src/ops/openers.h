/*
 * What the files of src/ops/ share: the openers, the file's context, the current scope.
 */
#ifndef PROVIUM_OPENERS_H
#define PROVIUM_OPENERS_H

#include "ops/ops.h"

/* One test file's share of the Lua face; the state's user pointer. */
struct ops_file {
	struct ops_env *env;
	struct scope *scope;		/* owned: closed by src/run, freed by ops_close */
	struct filenet *net;		/* its networks, NULL before the first bridge (bridge.c) */
	int64_t pool_waited_ns;		/* time in which every boot so far waited for the pool */
	int64_t pool_waiting_since;	/* 0 when nothing waits */
	unsigned pool_waiting;
	LIST_HEAD(, stream) streams;	/* the open ones (stream.c) */
};

struct ops_file *ops_file(lua_State *L);
/* The scope that what is made now belongs to: the current test's, else the file's. Raises when it is closed. */
struct scope *ops_scope(lua_State *L);
/* Whether w waits for the pool (boot.c). */
bool vm_wait_is_for_pool(const struct wait *w);
/* Whether w waits for a fixture whose build waits for the pool (fixture.c). */
bool fixture_wait_is_stuck(const struct wait *w);
/* Something of the file begins to wait for the pool, or for what others build; that time is not the test's (boot.c). */
void pool_wait_begin(struct ops_file *f);
void pool_wait_end(struct ops_file *f);
/* Pushes the current task's table of locals. */
void ops_push_locals(lua_State *L);
/* Gives the coroutine co (of a new task) a copy of the current task's locals. */
void ops_inherit_locals(lua_State *L, lua_State *co);

/* Makes a userdata type: its metatable, collector, tostring, methods and yielding ops. The methods are left in
 * core.NAME for lua/ to add to; core is on top of the stack. */
void ops_new_type(lua_State *L, const char *type, const char *name, lua_CFunction gc, lua_CFunction tostring,
	const luaL_Reg *methods, const luaL_Reg *ops);
/* Adds ops to both VM and Worker. */
void ops_add_target_ops(lua_State *L, const luaL_Reg *ops);

/* Each puts its functions into the table `core`, which is on top of the stack and stays there. */
void ops_open_bridge(lua_State *L);
void ops_open_nic(lua_State *L);
void ops_open_guestnet(lua_State *L);
void ops_open_capture(lua_State *L);
void ops_open_sleep(lua_State *L);
void ops_open_task(lua_State *L);
void ops_open_scope(lua_State *L);
void ops_open_fixture(lua_State *L);
void ops_open_latch(lua_State *L);
void ops_open_host(lua_State *L);
void ops_open_vm(lua_State *L);
void ops_open_boot(lua_State *L);
void ops_open_snapshot(lua_State *L);
void ops_open_power(lua_State *L);
void ops_open_command(lua_State *L);
void ops_open_files(lua_State *L);
void ops_open_transfer(lua_State *L);
void ops_open_stream(lua_State *L);
void ops_open_process(lua_State *L);
void ops_open_remote(lua_State *L);
void ops_open_syscall(lua_State *L);
void ops_open_worker(lua_State *L);
void ops_open_tail(lua_State *L);
void ops_open_console(lua_State *L);

/* These push a module's table (json.c, msgpack.c). */
int ops_open_json(lua_State *L);
int ops_open_msgpack(lua_State *L);
/* encode_request(value) -> msgpack for the guest, which takes integers and no floats. */
int ops_encode_request(lua_State *L);

#endif
