/*
 * The mux: owns the transports, routes frames, never does a user's work.
 */
#ifndef PROVIUM_AGENT_MUX_H
#define PROVIUM_AGENT_MUX_H

#include "args.h"
#include "conn.h"
#include "ev.h"
#include "frame.h"

struct mux;
struct peer;

/* Runs until a transport that cannot come back is closed, or shutdown ends it. Returns the exit status. */
struct mux *mux_new(void);
int mux_run(struct mux *m);
struct ev *mux_ev(struct mux *m);

/* ---- transports (transport.c) ---- */

struct transport_options {
	int fd;				/* an inherited socket; -1: none */
	const char *socket;		/* a unix socket to listen on; NULL: none */
	unsigned port;			/* vsock */
	bool guest;			/* virtio-serial and vsock */
};

struct transports;
struct transports *transports_new(struct mux *m, const struct transport_options *o);
/* Nobody is connected any more, or somebody is: looking for ports goes on only while nobody is. */
void transports_connected(struct transports *t, bool connected);
void mux_set_transports(struct mux *m, struct transports *t);

/* One end that a host may speak on. `once`: its end is the end of the agent. `gone` comes when it closed. */
void mux_add_transport(struct mux *m, int fd, bool port, bool once, void (*gone)(void *arg), void *arg);

/* ---- executors as the mux sees them (peer.c) ---- */

struct peers;
struct peers *peers_new(struct mux *m);
/* A frame from the host for a channel other than the mux's. */
void peers_route(struct peers *ps, const uint8_t *p, size_t n, const struct wire_head *h, size_t body);
/* A new connection: forget what the former one asked for. */
void peers_reset(struct peers *ps);
/* The host takes no more for now, or does again. */
void peers_pause(struct peers *ps, bool pause);
int peers_spawn_worker(struct peers *ps, uint32_t *channel, pid_t *pid);	/* 0 or -errno */
/* Answers when it has ended. -ENOENT: no such worker. */
int peers_join(struct peers *ps, uint32_t channel, uint32_t id);
bool peers_cancel_join(struct peers *ps, uint32_t id);
int peers_signal(struct peers *ps, uint32_t channel, int sig);			/* 0 or -errno */
/* A process that somebody started has ended. */
void peers_reaped(struct peers *ps, pid_t pid, int wstatus);

/* To the host, if one is connected; takes the buffer. */
void mux_send(struct mux *m, struct buf frame, enum conn_class class);
void mux_forward(struct mux *m, const uint8_t *p, size_t n, enum conn_class class);
bool mux_connected(const struct mux *m);

/* ---- requests to the mux itself (muxops.c) ---- */

/* p, n is the body of a request. */
void mux_request(struct mux *m, struct peers *ps, uint32_t id, const uint8_t *p, size_t n);

#endif
