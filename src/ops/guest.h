/*
 * What a VM's userdata points to, for the files that make up its Lua face: vm.c and boot.c.
 */
#ifndef PROVIUM_GUEST_H
#define PROVIUM_GUEST_H

#include "ops/network.h"

/*
 * Belongs to the scope it was made in, and is anchored in the registry until that scope has killed
 * the VM; then the userdata's collector frees it.
 */
struct guest {
	struct target target, mux;
	struct ops_file *file;
	struct vm_options options;	/* of vm() */
	struct vm_options booted_with;	/* merged with boot()'s */
	struct lease *lease;
	struct undo undo;
	struct vm_listener listener;
	struct guestnet *net;
	lua_State *L;			/* the state's main thread */
	bool reported;			/* vm_spawned was told, vm_gone was not */
};

struct guest *check_guest(lua_State *L, int arg);
/* Gives its share of the pool back. */
void guest_drop_lease(struct guest *g);

#endif
