/*
 * The Lua face: every global and userdata that a test file sees.
 *
 * The one header of src/ops/ that other folders include. src/run makes one struct ops_env for each
 * test file, attaches it to the file's Lua state and calls ops_open; the rest happens through Lua.
 */
#ifndef PROVIUM_OPS_H
#define PROVIUM_OPS_H

#include "loop/loop.h"
#include "store/store.h"
#include "vmm/vmm.h"

struct lease;			/* a share of the pool: src/run/pool.c */
struct fixture_wish;		/* a fixture asked for: src/run/supply.c */
struct vm_start;		/* a boot that may come from the cache: there, too */

/* What the layer above provides to the Lua face. Filled and owned by src/run/testfile.c. */
struct ops_env {
	struct vmm *vmm;
	const char *path;		/* the test file, root-relative */
	const char *const *roots;	/* NULL-terminated absolute directories; modules come from them */
	void *arg;			/* first argument of all that follows */

	/* NULL when there is none of that name. */
	const struct profile *(*profile)(void *arg, const char *name);
	const char *const *(*profile_names)(void *arg);	/* sorted, NULL-terminated */

	/* Asks the pool for a VM's share. granted() comes from the loop, with e when it can never be. The lease is
	 * given back, or the request withdrawn, by lease_free. */
	struct lease *(*lease_new)(void *arg, uint64_t memory, unsigned cpus,
		void (*granted)(void *garg, const struct err *e), void *garg);
	void (*lease_free)(struct lease *l);
	/* Takes a part out of a granted lease, as a lease of its own. */
	struct lease *(*lease_split)(struct lease *from, uint64_t memory, unsigned cpus);

	/* Why this test is left out ("filtered: did not match --tag (smoke)"), or NULL. meta is at index meta
	 * (a table or nil). The text is valid until the next call. */
	const char *(*select)(void *arg, lua_State *L, const char *name, int meta);
	/* A line for the user; the same text is shown once only. */
	void (*notice)(void *arg, const char *text);
	/* One thing that happened, its fields in the table at index t: test_started, test_passed, test_failed,
	 * test_skipped, chunk_error (run.md). */
	void (*report)(void *arg, lua_State *L, const char *kind, int t);
	/* Something of the file begins to wait for the pool, or nothing does any more: that time does not count. */
	void (*pool_wait)(void *arg, bool waiting);
	/* Where a snapshot without a path of its own goes: a fresh path, malloc'ed. NULL: to the run directory, until the scope
	 * that made it is closed; or *e. The function may be NULL, too. */
	char *(*snapshot_dir)(void *arg, struct err *e);
	/* Asks for a fixture's snapshot: got() comes from the loop, with the entry (the receiver's: cache_hold_free) or
	 * with e. The request is withdrawn, or freed after that, by fixture_free. */
	struct fixture_wish *(*fixture_get)(void *arg, const char *name,
		void (*got)(void *garg, struct cache_hold *h, const struct err *e), void *garg);
	void (*fixture_free)(struct fixture_wish *w);
	/* Whether the wish waits for a build that waits for the pool. */
	bool (*fixture_stuck)(const struct fixture_wish *w);
	/* The entry of fixture `name` cannot be restored. */
	void (*fixture_bad)(void *arg, const char *name, struct cache_hold *h, const char *why);
	/* Boots a VM when that may come from the boot cache; NULL: it may not, vm_boot is the way. done() comes from the
	 * loop, once; how is for vm_spawned. The start is freed, or forgotten, by boot_free. */
	struct vm_start *(*boot_start)(void *arg, struct vm *vm, const struct vm_options *o,
		void (*done)(void *garg, const char *how, const struct err *e), void *garg);
	void (*boot_free)(struct vm_start *s);
	void (*vm_spawned)(void *arg, struct vm *vm, uint64_t memory, const char *how, int64_t boot_ns);
	void (*vm_gone)(void *arg, struct vm *vm);
};

/* Installs every global in the state. */
void ops_open(struct state *s, struct ops_env *env);
/* Pushes a function of lua/framework.lua: "run" (chunk) runs a loaded test file and then its tests; "fixture" (chunk)
 * one that must return a snapshot, reported as "fixture" {path=, lab=}; "cleanup"
 * (reason), after run was cancelled, does what the ends of its tests would have done. */
void ops_push_framework(lua_State *L, const char *function);
/* Frees the state and what the Lua face holds of it; the file's scope must be closed and every task over. */
void ops_close(struct state *s);
/* Whether nothing in the state can go on before the pool grants it something. */
bool ops_waits_for_pool_only(struct state *s);
struct ops_env *ops_env(lua_State *L);
/* The scope of the test file (its VMs, bridges, ...), closed by src/run when the file is over. */
struct scope *ops_file_scope(struct state *s);

/*
 * What embedded Lua (lua/framework.lua) gets as its first argument, the table `core`:
 *
 *   core.spawn(name, fn, ...) -> Task      inherits the current task's locals (scope, test)
 *   core.locals() -> table                 the current task's own table; children start with a copy
 *   Task:wait([seconds]) -> status, ...    "done", results... | "failed", error, traceback |
 *                                          "cancelled", reason | "timeout"      never raises
 *   Task:join([timeout]) -> results...     raises the task's error
 *   Task:cancel([reason]), Task:status() -> "running"|"done"|"failed"|"cancelled"
 *   Task:waiting_for() -> string           what it waits for now; "" when it computes
 *   core.scope_open(name) -> scope         a test's lab and clean-up stack; falls through to the file's
 *   core.scope_close(scope)                yields until everything is undone
 *   core.scope_console(scope) -> string    console excerpt, last 4 KiB of each VM it can reach
 *   core.scope_current([scope]) -> scope   get or set the current task's scope
 *   core.select(name, meta) -> nil|reason  run's filters
 *   core.report(kind, table)               see struct ops_env
 *   core.parse_duration(v, what) -> seconds   raises as spec/README.md says
 *   core.where() -> "file:line: "          the nearest caller that is test code
 *   core.raise(message)                    raises with that position in front
 *   core.traceback([thread|error])         without embedded frames
 */
#endif
