/*
 * How the agent in a guest is reached: vsock where the host has it, else a virtio-serial port.
 */
#ifndef PROVIUM_VMM_TRANSPORT_H
#define PROVIUM_VMM_TRANSPORT_H

#include "loop/loop.h"

struct transport;

/* Reserves what QEMU is to inherit. linked(fd) comes from the loop whenever an agent can be spoken to;
 * the receiver owns fd. NULL and *e on failure. */
struct transport *transport_new(struct loop *l, void (*linked)(void *arg, int fd), void *arg, struct err *e);
/* The ends for QEMU, ours until transport_started; vhost is -1 without vsock. */
int transport_serial_fd(const struct transport *t);
int transport_vhost_fd(const struct transport *t);
uint32_t transport_cid(const struct transport *t);	/* 0 without vsock */
/* QEMU runs and has its descriptors. */
void transport_started(struct transport *t);
/* The guest opened or closed its agent port. True when that ends the link in use. */
bool transport_port(struct transport *t, bool open);
/* The link is no more (the guest rebooted, the connection was lost): waits for the next. */
void transport_unlink(struct transport *t);
void transport_free(struct transport *t);

#endif
