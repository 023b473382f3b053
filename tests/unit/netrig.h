/*
 * A net with bridges and ports for tests: replies are waited for, frames are written to and read from the ports' ends.
 * For the kernel backend as it is; who has another kind of port gives struct netrig its own send and receive.
 */
#ifndef PROVIUM_NETRIG_H
#define PROVIUM_NETRIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/net.h"

#define NETRIG_GUARD_NS INT64_C(60000000000)
#define NETRIG_TYPE 0x88b5	/* for local experiments */
#define NETRIG_HEADER 22	/* Ethernet, and a number of eight bytes */

struct netrig {
	struct loop *loop;
	struct net *net;
	struct net_counters counters;	/* of the last netrig_counted */
	struct err err;			/* of the last reply */
	bool replied, guard_fired;
};

void netrig_open(struct netrig *r);
void netrig_close(struct netrig *r);

/* Callbacks that end netrig_wait; arg is the rig. */
void netrig_done(void *arg, const struct err *e);
void netrig_counted(void *arg, const struct net_counters *c, const struct err *e);
/* Runs the loop until one of them was called. */
void netrig_wait(struct netrig *r);
/* The same, and the test fails if the reply is an error. */
void netrig_ok(struct netrig *r);
/* The same, and the test fails unless the error says text. */
void netrig_fails(struct netrig *r, const char *text);
void netrig_run_for(struct netrig *r, int64_t ns);

/* Bridges and ports that came about. n gives a port its MAC, 02:00:00:00:00:n. */
struct net_bridge *netrig_bridge(struct netrig *r, const char *name);
struct net_port *netrig_port(struct netrig *r, struct net_bridge *b, unsigned n);

/* Writes a frame of size bytes with that number in it; to 0: broadcast. Whether it was taken. */
bool netrig_send(int fd, unsigned from, unsigned to, uint64_t number, size_t size);
/* Reads one of ours, leaving out nothing else: any other frame fails the test. False when there is none now. */
bool netrig_receive(int fd, uint64_t *number, size_t *size);
/* Runs the loop until a frame comes; false after ns. */
bool netrig_receive_within(struct netrig *r, int fd, int64_t ns, uint64_t *number);
/* Sends n frames, a few at a time, and counts what arrives within ns after the last. */
unsigned netrig_pass(struct netrig *r, int from_fd, unsigned from, int to_fd, unsigned to, unsigned n, int64_t ns);

/* ---- a bridge with three guests, which know one another ---- */

#define NETLAN_SOON INT64_C(200000000)	/* nothing comes: long after everything has */
#define NETLAN_LONG INT64_C(20000000000)

struct netlan {
	struct netrig r;
	struct net_bridge *lan;
	struct net_port *p[4];		/* from 1 */
	int fd[4];
};

int netlan_setup(void **state);
int netlan_teardown(void **state);
/* Whether a frame arrives. */
bool netlan_passes(struct netlan *w, unsigned from, unsigned to);
/* from or to 0: any. */
void netlan_impair(struct netlan *w, unsigned from, unsigned to, struct net_impairment i);
/* Fails the test when got is not within five standard deviations of n * p: one run in two million is outside. */
void netlan_about(unsigned got, unsigned n, double p);

#endif
