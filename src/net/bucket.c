/*
 * Token buckets. Bursts and queues are those of the kernel backend's queues.
 */
#include "net/bucket.h"

#define NS 1000000000
#define FRAME_BYTES 1514		/* of the usual MTU */
#define BURST_MIN (2 * FRAME_BYTES)
#define BURST_NS (5 * INT64_C(1000000))
#define QUEUE_MIN (64 * FRAME_BYTES)
#define QUEUE_NS (200 * INT64_C(1000000))
#define BITS_MAX (UINT64_C(1) << 33)	/* in nanoseconds still 63 bits */

/* How long that many bytes take. */
static int64_t bytes_ns(uint64_t bytes, uint64_t bps)
{
	uint64_t bits = bytes > BITS_MAX / 8 ? BITS_MAX : bytes * 8;

	return (int64_t)(bits * NS / bps);
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

bool bucket_set(struct bucket *b, uint64_t bps, uint64_t burst_bytes, int64_t now)
{
	int64_t burst = 0, limit = 0;

	if (bps > 0) {
		burst = burst_bytes ? bytes_ns(burst_bytes, bps) : larger(bytes_ns(BURST_MIN, bps), BURST_NS);
		limit = larger(bytes_ns(QUEUE_MIN, bps), QUEUE_NS);
	}
	if (bps == b->bps && burst == b->burst_ns)
		return false;
	*b = (struct bucket){ .bps = bps, .burst_ns = burst, .limit_ns = limit, .full_at = now };
	return true;
}

int64_t bucket_pass(struct bucket *b, size_t len, int64_t now)
{
	int64_t full, leave;

	if (b->bps == 0)
		return now;
	full = larger(b->full_at, now) + bytes_ns(len, b->bps);
	leave = larger(now, full - b->burst_ns);
	if (leave - now > b->limit_ns)
		return -1;
	b->full_at = full;
	return leave;
}
