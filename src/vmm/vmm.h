/*
 * One guest from outside: profiles, options, the VM state machine, its console and its agent.
 *
 * The one header of src/vmm/ that other folders include. Everything here is asynchronous: a function
 * that waits takes a callback, which comes from the loop, once, and never from inside the call.
 */
#ifndef PROVIUM_VMM_H
#define PROVIUM_VMM_H

#include "loop/loop.h"

/* ---- what a guest is made of ---- */

enum accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
enum vmm_kind { VMM_QEMU, VMM_LOCAL };

/* A profile of provium.toml, checked. Filled and owned by src/run/config.c; VMs borrow it. */
struct profile {
	char *name;
	char *kernel;			/* absolute; NULL when the profile has none (error at boot) */
	char *initrd;			/* NULL: the overlay is the whole initramfs */
	char *modules;			/* /lib/modules/VERSION directory, or NULL */
	char *cmdline;			/* cmdline_file's text and the inline text, joined */
	char *arch;			/* "x86_64", "aarch64" */
	char *machine;			/* "pc", "q35", "microvm", "virt" */
	enum accel accel;
	uint64_t memory;		/* bytes */
	unsigned cpus;
	bool inject_agent;
	char *agent_overlay_path;	/* NULL: search */
	int64_t agent_boot_timeout;	/* ns, 0: by acceleration */
	struct disk_spec *disks; size_t ndisks;
	bool boot_cache;
	char **qemu_args;		/* NULL-terminated, or NULL */
};

struct disk_spec {
	char *id;			/* also the virtio serial */
	char *path;			/* exactly one of path, scratch, template */
	uint64_t scratch;		/* bytes */
	char *template;
	char *format;			/* "raw", "qcow2" */
	bool readonly, direct;
};

struct file_spec {			/* a file put into the initramfs */
	char *path;			/* in the guest */
	char *content; size_t content_len;	/* or: */
	char *host;
	unsigned mode;			/* 0: 0644, or the host file's */
};

/* Options of vm() and boot(), merged; anything unset is the profile's. Release with vm_options_release. */
struct vm_options {
	uint64_t memory;		/* 0: unset */
	unsigned cpus;			/* 0: unset */
	char *cmdline, *cmdline_append;
	bool has_rng_seed; uint64_t rng_seed;
	bool has_initial_time; double initial_time;	/* seconds since the epoch */
	struct file_spec *files; size_t nfiles;
	struct disk_spec *disks; size_t ndisks;
	int64_t agent_timeout;		/* ns, 0: unset */
	char *expect;			/* console text instead of the agent */
	bool cold;
	enum accel accel;		/* ACCEL_AUTO: unset */
	char *machine;
	char **qemu_args;		/* NULL-terminated */
};

void vm_options_release(struct vm_options *o);
/* dst gets what src sets; src keeps its own copies. */
void vm_options_merge(struct vm_options *dst, const struct vm_options *src);

/* ---- the process-wide context (vmm.c) ---- */

struct vmm;

struct vmm_config {
	enum vmm_kind kind;
	enum accel accel;		/* --accel: overrides every profile unless ACCEL_AUTO */
	const char *qemu;		/* $PROVIUM_QEMU, or NULL: found in PATH */
	const char *cache_dir;		/* for initramfs pieces cached by content */
	const char *agent;		/* path of the provium-agent binary, for VMM_LOCAL */
	unsigned spares;		/* QEMUs that may wait for a snapshot's next restore, at most */
	/* Whether there is room for one more of them now. NULL: always. */
	bool (*spare_room)(void *arg, uint64_t memory, unsigned cpus);
	/* One-line notices for the user ("TCG: no vmx or svm flag ..."). */
	void (*notice)(void *arg, const char *text);
	void *arg;
};

/* Makes the private run directory (and sweeps those whose owner is gone). NULL and *e on failure. */
struct vmm *vmm_new(struct loop *l, const struct vmm_config *c, struct err *e);
void vmm_free(struct vmm *v);		/* every VM must be freed; removes the run directory */
/* For a process that ends at once: removes the run directory, nothing else; QEMUs die with their parent. */
void vmm_abandon(struct vmm *v);
struct loop *vmm_loop(struct vmm *v);
const char *vmm_run_dir(struct vmm *v);
const char *vmm_cache_dir(struct vmm *v);	/* as configured; may not exist yet */
enum vmm_kind vmm_kind(struct vmm *v);
/* "x86_64"; and the model name of the host's processor, "" when it has none. */
const char *host_arch(void);
const char *host_cpu(void);
/* Which acceleration `want` comes to on this host. ACCEL_AUTO on error (KVM asked for, not usable), with *e. */
enum accel vmm_resolve_accel(struct vmm *v, enum accel want, struct err *e);
/* The files of the host that a guest of p is made from: QEMU, kernel, initrd, agent, the modules that are loaded (on
 * `machine`; NULL: the profile's). NULL-terminated; the caller frees each. What is missing is left out: boot says so. */
char **vmm_sources(struct vmm *v, const struct profile *p, const char *machine);

/* The helper verbs of this folder, for helper_register (overlay.c). */
extern const struct helper_verb vmm_helper_verbs[];

/* ---- a VM (vm.c) ---- */

enum vm_state { VM_CREATED, VM_BOOTING, VM_BOOTED, VM_PAUSED, VM_SHUTDOWN, VM_DEAD };

struct vm;
struct agent;
struct console;

typedef void vm_done_fn(void *arg, const struct err *e);	/* e NULL: success */

struct vm *vm_new(struct vmm *v, const char *name, const struct profile *p);
/* Kills what runs, in the background, and frees. No pending callback is called any more. */
void vm_free(struct vm *vm);
const char *vm_name(const struct vm *vm);
const struct profile *vm_profile(const struct vm *vm);
enum vm_state vm_state(const struct vm *vm);
const char *vm_state_name(enum vm_state s);	/* "created" ..; VM_BOOTING is "created" to users */
pid_t vm_pid(const struct vm *vm);		/* QEMU's, or the local agent's; 0 when there is none */
uint32_t vm_cid(const struct vm *vm);		/* 0 without vsock */
int64_t vm_booted_ns(const struct vm *vm);	/* now_ns() when it became booted; 0 before */
struct console *vm_console(struct vm *vm);	/* lives as long as the VM */
/* Requests to its agent that are not answered yet. */
size_t vm_pending(const struct vm *vm);
struct agent *vm_agent(struct vm *vm);		/* NULL when no agent is connected */
/* What the options and the profile come to: for the pool and events. */
uint64_t vm_memory(const struct vm *vm, const struct vm_options *o);
unsigned vm_cpus(const struct vm *vm, const struct vm_options *o);
/* The command line of the running or last QEMU, NULL-terminated; NULL before the first boot. */
const char *const *vm_qemu_argv(const struct vm *vm);

/* Boots a created (or shutdown, or dead) VM: QEMU started, agent answering (or o->expect seen). A failure names
 * stage, cause and the last 16 KiB of console; the VM stays inspectable. */
void vm_boot(struct vm *vm, const struct vm_options *o, vm_done_fn *cb, void *arg);
/* Agent shutdown, then QMP quit, then SIGKILL, within timeout_ns. Any state; idempotent. */
void vm_shutdown(struct vm *vm, int64_t timeout_ns, vm_done_fn *cb, void *arg);
/* SIGKILL; done when reaped. Any state; idempotent. Also what cancels a boot. cb may be NULL. */
void vm_kill(struct vm *vm, vm_done_fn *cb, void *arg);
void vm_pause(struct vm *vm, vm_done_fn *cb, void *arg);
void vm_resume(struct vm *vm, vm_done_fn *cb, void *arg);
/* Resets a booted or paused VM: booting from now until its agent answers again, as vm_boot tells it. */
void vm_reset(struct vm *vm, vm_done_fn *cb, void *arg);
/* Wakes a guest up from S3: done when its agent answers. Fails when it is not suspended. */
void vm_wakeup(struct vm *vm, vm_done_fn *cb, void *arg);
/* Changes with each boot, reset, reboot, snapshot and restore (eras.h). */
unsigned vm_era(const struct vm *vm);
/* Whether what was made in that era is still there. */
bool vm_era_alive(const struct vm *vm, unsigned era);
/* How the current era began: "the VM was reset", "the guest rebooted", "the VM was booted again". */
const char *vm_era_began(const struct vm *vm);
/* How often it was restored. */
unsigned vm_restores(const struct vm *vm);
/* Forgets a pending callback of this pair; the operation itself goes on. */
void vm_forget(struct vm *vm, vm_done_fn *cb, void *arg);

/* Told at every change of state: for the pool, events, and ops that wait for a VM. */
struct vm_listener {
	TAILQ_ENTRY(vm_listener) entry;
	void (*changed)(struct vm_listener *l, struct vm *vm, enum vm_state from, enum vm_state to);
	/* The agent answers, for the first time or again. May be NULL. */
	void (*up)(struct vm_listener *l, struct vm *vm);
};
void vm_listen(struct vm *vm, struct vm_listener *l);
void vm_unlisten(struct vm *vm, struct vm_listener *l);
/* Why the VM is dead or shut down ("QEMU died: signal 9 (Killed)"), with the console tail; "" while it lives. */
const char *vm_reason(const struct vm *vm);

/* ---- snapshots of one VM (snapshot.c) ----
 *
 * A directory: meta.json, ram (and base, when ram holds only what differs from it), state, console, disk-ID. Moving or
 * copying it whole is fine: nothing in it names a place outside.
 */
struct vm_saved {
	uint64_t bytes;			/* written */
	int64_t pause_ns;		/* how long the guest stood still */
};

/* Saves a booted or paused VM and leaves it as it was. dir must not exist: it appears whole or not at all. out may be
 * NULL; else it must live until cb. -ENOSPC names the path and the bytes needed. */
void vm_save(struct vm *vm, const char *dir, struct vm_saved *out, vm_done_fn *cb, void *arg);

struct vm_restore_options {
	const struct profile *profile;	/* the one that the snapshot names; NULL: the VM's own */
	bool keep_clock;		/* else the guest's clock is set to the host's, or initial_time */
	bool has_time; double time;	/* seconds since the epoch, instead of the host's */
};

/* What a snapshot says of itself, read from meta.json. An error names the directory and what is wrong: it is missing
 * (-ENOENT), truncated, foreign, of a newer format, or of another QEMU, machine or processor (-ESTALE). */
struct vm_image {
	char *dir, *vm_name, *profile, *qemu_version, *machine, *accel;
	uint64_t memory;
	unsigned cpus;
};
struct vm_image *vm_image_open(struct vmm *v, const char *dir, struct err *e);
void vm_image_free(struct vm_image *i);
/* Bytes on disk of a snapshot's directory, or of any with directories in it; 0 when it is gone. */
uint64_t vm_image_size(const char *dir);
/* Removes such a directory in the background; cb may be NULL. */
void vm_image_remove(struct loop *l, const char *dir, void (*cb)(void *arg, const struct err *e), void *arg);

/* Puts a created, shutdown, dead or booted VM into the snapshot's state; what ran is killed first. Memory, processors,
 * command line, NICs and disks are the snapshot's. Done when the agent answers (at once when it was paused at the
 * time), with fresh entropy and the clock set. -ESTALE: the snapshot does not fit or is damaged. i is not needed
 * after the call. */
void vm_restore(struct vm *vm, const struct vm_image *i, const struct vm_restore_options *o, vm_done_fn *cb, void *arg);

/* A VM that is off becomes as if it had never been booted: its log, its reason and its disks are gone. */
void vm_renew(struct vm *vm);

/* ---- network cards (nics.c) ----
 *
 * A card belongs to its VM over all power-ons, in one of VM_NICS slots. What it is connected to is known above only:
 * each QEMU gets a descriptor from there.
 */
#define VM_NICS 8

struct vm_nic;

struct nic_ops {
	/* Makes a descriptor for the next QEMU: vm_nic_ready, at once or later. */
	void (*open)(void *arg, struct vm_nic *n);
	int (*fd)(void *arg);
	/* The value of -netdev; fd is a number in QEMU, or a name. malloc'ed. */
	char *(*netdev)(void *arg, const char *id, const char *fd);
	/* QEMU has its copy of the descriptor. */
	void (*given)(void *arg);
};

/* slot: -1 takes the first free one. bridge: a word for vm_nic_each. Nothing is plugged yet. NULL and *e when there is
 * no room. */
struct vm_nic *vm_nic_new(struct vm *vm, int slot, const uint8_t mac[6], const char *bridge, const struct nic_ops *ops,
	void *arg, struct err *e);
unsigned vm_nic_slot(const struct vm_nic *n);
void vm_nic_ready(struct vm_nic *n, const struct err *e);
/* Plugs a new card into the VM that runs; when none does it will be there at the next boot, and cb comes all the
 * same. */
void vm_nic_plug(struct vm_nic *n, vm_done_fn *cb, void *arg);
/* Takes it out, and frees it before cb comes, in any case: with an error when the guest does not let go of it. at_once:
 * the guest is not asked, because it is about to end. No other callback of this card comes any more. */
void vm_nic_free(struct vm_nic *n, bool at_once, vm_done_fn *cb, void *arg);
/* The guest sees its link go down, or up. Kept over power-ons. */
void vm_nic_set_link(struct vm_nic *n, bool up, vm_done_fn *cb, void *arg);
/* Forgets a pending callback of this pair; the operation itself goes on. */
void vm_nic_forget(struct vm_nic *n, vm_done_fn *cb, void *arg);

struct vm_nic_info { unsigned slot; uint8_t mac[6]; const char *bridge; bool link_up; };
/* Calls fn for each card, by slot. */
void vm_nic_each(struct vm *vm, void (*fn)(void *arg, const struct vm_nic_info *i), void *arg);

/* ---- QMP, for the escape hatch (vmqmp.c) ---- */

struct vm_qmp_call;
/* args is a JSON object's text or NULL; result is JSON text, valid during the call. */
typedef void vm_qmp_fn(void *arg, const char *result, const struct err *e);
struct vm_qmp_call *vm_qmp(struct vm *vm, const char *command, const char *args, vm_qmp_fn *cb, void *arg, struct err *e);
void vm_qmp_cancel(struct vm_qmp_call *c);

/* ---- the console (console.c) ---- */

/* Everything since the first power-on, serial port and hvc0 in order of arrival; borrowed, valid until the loop runs. */
const char *console_log(const struct console *c, size_t *len);
/* How far in the log an expectation has matched: here for whoever matches, so that a snapshot has it, too. */
size_t *console_consumed(struct console *c);
/* The last whole lines that fit in max bytes, with control sequences stripped; malloc'ed. */
char *console_tail(const struct console *c, size_t max);
/* Queues input for the guest's console. -ENOTCONN when nothing runs. */
int console_write(struct console *c, const void *data, size_t len);

struct console_listener {
	TAILQ_ENTRY(console_listener) entry;
	/* The log grew; `from` is the offset of the new bytes. */
	void (*grew)(struct console_listener *l, struct console *c, size_t from);
	/* No more output will come until the next boot. May be NULL. */
	void (*ended)(struct console_listener *l, struct console *c);
};
void console_listen(struct console *c, struct console_listener *l);
void console_unlisten(struct console *c, struct console_listener *l);

/* ---- the agent client (agent.c) ----
 *
 * One connection, many outstanding requests. When it breaks (VM died, garbage, silence) every pending
 * call fails with the reason and the connection is gone.
 */
struct agent_call;

struct agent_events {
	/* The reply (o) or the failure (e: "os: No such file or directory (errno 2)", code -errno). Called once;
	 * nothing else is called afterwards unless keep_open. */
	void (*reply)(void *arg, const msgpack_object *o, const struct err *e);
	/* A piece of a stream, or its end (data NULL). The receiver grants credit with agent_call_credit when it
	 * has consumed it. May be NULL for calls without streams. */
	void (*piece)(void *arg, unsigned stream, const void *data, size_t len);
	/* The peer takes more of our stream 0 (see agent_call_send). May be NULL. */
	void (*writable)(void *arg);
	/* keep_open calls only: the connection broke, or the guest gave an error, after the reply. May be NULL. */
	void (*broken)(void *arg, const struct err *e);
};

/* Sends request [op, params] on a channel. params is one packed msgpack map, copied. ev is borrowed for the call's life.
 * keep_open: its streams go on after the reply, for spawn and tail. The caller owns the call until agent_call_free. */
struct agent_call *agent_call(struct agent *a, unsigned channel, const char *op, const msgpack_sbuffer *params,
	bool keep_open, const struct agent_events *ev, void *arg);
/* Frees a call in any state, also after its reply: no callback any more. Sends a cancel frame if it is pending, and
 * unsubscribes a keep_open call that has its reply. Safe from its own callbacks. NULL is fine. */
void agent_call_free(struct agent_call *c);
uint32_t agent_call_id(const struct agent_call *c);
/* Returns consumed bytes of a stream to its sender. */
void agent_call_credit(struct agent_call *c, unsigned stream, size_t n);
/* Sends a piece of our stream 0: takes as much as the credit allows, returns how much (0: wait for writable).
 * data NULL ends the stream. */
size_t agent_call_send(struct agent_call *c, const void *data, size_t len);

struct agent_info { char *agent_version, *kernel, *arch, *boot_id; char **features; };
const struct agent_info *agent_info(const struct agent *a);

#endif
