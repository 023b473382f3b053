/*
 * A rate limit: a token bucket kept as one point in time, the moment at which it will be full again.
 *
 * A frame that comes while tokens are short waits; how long is known when it comes, so the queue in front of the
 * bucket is nothing but departures in the future.
 */
#ifndef PROVIUM_NET_BUCKET_H
#define PROVIUM_NET_BUCKET_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

struct bucket {
	uint64_t bps;			/* 0: no limit */
	int64_t burst_ns, limit_ns;	/* the burst, and the longest queue, as time at this rate */
	int64_t full_at;
};

/* burst 0: a default. False when nothing changes; else the bucket is full and its queue must be planned anew. */
bool bucket_set(struct bucket *b, uint64_t bps, uint64_t burst_bytes, int64_t now);
/* When a frame that comes at `now` leaves; -1: the queue is too long, it is dropped. */
int64_t bucket_pass(struct bucket *b, size_t len, int64_t now);

#endif
